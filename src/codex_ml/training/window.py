"""One accumulation window: its loss, gradients and counts, computed without changing a weight or a counter of steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from codex_ml.config.schema.training import TrainingSection
from codex_ml.data.batches import cut_window, make_batch, window_of_step
from codex_ml.data.tokenization.tokenizer import TokenizedRecord
from codex_ml.errors import DataError
from codex_ml.modeling.forward import supervised_loss
from codex_ml.training.checkpoint.state import random_tensors, restore_torch
from codex_ml.training.job import TrainingJob
from codex_ml.training.optimizer import LossScaler, clip, computing_in, record_names, total_norm, trainable_parameters

LogEvent = Callable[..., None]


@dataclass(frozen=True)
class WindowOutcome:
    """Loss and counts of a window; its clipped gradients are in the parameters."""

    records: Sequence[TokenizedRecord]
    loss_sum: float
    supervised_tokens: int
    masked_tokens: int
    padding_tokens: int
    gradient_norm: float

    @property
    def loss(self) -> float:
        """Mean loss a supervised token, in nats."""
        return self.loss_sum / self.supervised_tokens


class WindowGradients:
    """Computes the windows of one run.

    Parameters
    ----------
    job : TrainingJob
        Records, their order, sizes and precision.
    model : nn.Module
        The model as the accelerator prepared it.
    backward : callable
        Takes a loss and adds its gradients.
    scaler : LossScaler, optional
        Of float16; None where no scale is needed.
    log_event : callable
        Takes a kind and fields.
    """

    def __init__(
        self,
        job: TrainingJob,
        model: nn.Module,
        backward: Callable[[Tensor], Any],
        scaler: LossScaler | None,
        log_event: LogEvent,
    ) -> None:
        self._job = job
        self._model = model
        self._backward = backward
        self._scaler = scaler
        self._log_event = log_event
        self._parameters = list(trainable_parameters(job.model).values())
        self._device = self._parameters[0].device
        self._training: TrainingSection = job.settings
        self._window_size = job.settings.records_per_step

    def compute(self, step: int) -> WindowOutcome:
        """Return the outcome of the window of ``step`` (counted from 0); what is not finite is the caller's to judge.

        Raises
        ------
        DataError
            When the window holds no supervised token.
        """
        indices = window_of_step(self._job.seed, step, len(self._job.records), self._window_size)
        if self._scaler is None:
            return self._pass(step, indices)
        drawn_before = random_tensors()
        while True:
            scale = self._scaler.scale
            outcome = self._pass(step, indices)
            if not self._scaler.back_off(outcome.loss, outcome.gradient_norm):
                return outcome
            self._log_event("loss_scale_overflow", step=step + 1, loss_scale=scale, lowered_to=self._scaler.scale)
            self.clear()
            # The same dropout masks again: which ones a step uses must not depend on how often it was tried.
            restore_torch(drawn_before)

    def clear(self) -> None:
        """Let go all gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def _pass(self, step: int, indices: Sequence[int]) -> WindowOutcome:
        """Run forward and backward over one window."""
        records = [self._job.records[index] for index in indices]
        # Labels are shifted by one: the first position of a record is never predicted.
        window_tokens = sum(sum(record.supervised[1:]) for record in records)
        if window_tokens == 0:
            raise DataError(
                f"step {step + 1}: the accumulation window holds no supervised token",
                why=f"records {record_names(records)}: nothing in them would be learnt from",
                fix="check the completions, or raise data.max_length_tokens",
                code="TRAINING_NO_SUPERVISED_TOKEN",
            )
        losses: list[Tensor] = []
        masked = padding = 0
        for part in self._micro_batches(indices):
            part_records = [self._job.records[index] for index in part]
            batch = make_batch(part_records, self._job.pad_token_id, self._job.layout).to(self._device)
            with computing_in(self._training.mixed_precision, self._device.type):
                loss = supervised_loss(self._model, batch)
            # Divided by the tokens of the whole window, not of the micro-batch: the mean is the mean (promise 6).
            mean = loss.loss_sum / window_tokens
            self._backward(mean if self._scaler is None else self._scaler.scaled(mean))
            losses.append(loss.loss_sum.detach())
            masked += batch.tokens - loss.supervised
            padding += batch.padding
        # Read once a window: a GPU need not be waited for between micro-batches.
        loss_sum = sum(torch.stack(losses).tolist())
        return WindowOutcome(records, loss_sum, window_tokens, masked, padding, self._clipped_norm())

    def _micro_batches(self, indices: Sequence[int]) -> list[list[int]]:
        lengths = [len(self._job.records[index].input_ids) for index in indices]
        training = self._training
        return cut_window(
            indices, lengths, training.records_per_pass, training.tokens_per_micro_batch, self._job.layout
        )

    def _clipped_norm(self) -> float:
        """Return the norm before clipping, and clip."""
        if self._scaler is not None:
            self._scaler.unscale(self._parameters)
        norm = total_norm(self._parameters)
        if bool(torch.isfinite(norm)) or self._scaler is None:
            clip(self._parameters, norm, self._training.max_grad_norm)
        return float(norm)
