"""The plan of a run before any weight is loaded: steps, disk, and the memory of its largest step, without numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from codex_ml.config.schema.root import TrainConfig
from codex_ml.data.batches import AnyBatch, Batch, make_batch
from codex_ml.data.tokenize import TokenizedRecord
from codex_ml.modeling.gradient_checkpointing import enable_gradient_checkpointing
from codex_ml.modeling.head import chunk_rows
from codex_ml.modeling.layout import Layout, lay_out
from codex_ml.modeling.loss import makes_logits_in_chunks, supervised_loss
from codex_ml.modeling.peak_memory import PeakMemory
from codex_ml.modeling.without_numbers import WithoutNumbers
from codex_ml.models.registry import Shell, build_shell
from codex_ml.models.source import locate_tokenizer
from codex_ml.peft.peft_adapter import trainable_share
from codex_ml.recipes.model_setup import put_adapter_on, trainable_wish
from codex_ml.recipes.preparation import Prepared
from codex_ml.training.plan import ModelSize, Plan, make_plan
from codex_ml.training.precision import computing_in


@dataclass(frozen=True)
class Outline:
    """The model of a run without its numbers: its adapter on, laid out as the loaded one will be."""

    model: nn.Module
    shell: Shell
    layout: Layout
    nothing: WithoutNumbers

    @property
    def device(self) -> str:
        """Where the model will be."""
        return self.shell.device.value


def outline(config: TrainConfig, prepared: Prepared) -> Outline:
    """Build the model of a config as `build_trainable_model` does, without reading a weight.

    Raises
    ------
    ModelError, AdapterError
        What that would raise for the same config.
    """
    wish = trainable_wish(config)
    shell = build_shell(wish, prepared.tokenizer)
    layout = lay_out(shell.model, wish.batch_layout)
    model = shell.model if config.adapter.kind == "none" else put_adapter_on(shell.model, config.adapter)
    if config.training.gradient_checkpointing:
        enable_gradient_checkpointing(shell.model)
    with WithoutNumbers(shell.device.value) as nothing:
        nothing.furnish(model)
    return Outline(model, shell, layout, nothing)


def plan_run(config: TrainConfig, prepared: Prepared, outlined: Outline) -> Plan:
    """Work out steps, tokens, memory and disk of a run.

    The memory of a step is counted on the records of its largest pass, through the very code that trains, with tensors
    that have no numbers; where a model cannot be followed without numbers, it is an estimate, and says so.
    """
    records = prepared.dataset.require("train")
    plan = make_plan(config.training, records, _model_size(config, outlined), config.run.seed)
    try:
        peak = _pass_bytes(config, outlined, [records[index] for index in plan.largest_pass])
    except Exception as error:  # noqa: BLE001 - whatever a model does without numbers, its run can do with them
        # It looks at numbers to know what to compute: a mask that it makes itself, experts that it routes to.
        because = f"as {type(outlined.shell.model).__name__} looks at numbers to know what to compute"
        return replace(plan, estimated_because=f"{because}: {type(error).__name__}")
    parts = dict(plan.memory_bytes)
    estimated = max(1, parts["activations"])
    passing = max(0, peak - parts["gradients"])
    parts["logits"] = min(parts["logits"], passing)
    parts["activations"] = passing - parts["logits"]
    saved = plan.checkpointing_saves_bytes * parts["activations"] // estimated
    return replace(plan, memory_bytes=parts, estimated_because=None, checkpointing_saves_bytes=saved)


def _pass_bytes(config: TrainConfig, outlined: Outline, records: Sequence[TokenizedRecord]) -> int:
    """Return what the tensors of one pass take at most, gradients with them."""
    training = config.training
    batch = make_batch(records, 0, outlined.layout.kind)
    outlined.model.train()
    outlined.model.zero_grad(set_to_none=True)
    with outlined.nothing as nothing:
        empty = _emptied(batch, nothing)
        with PeakMemory([*outlined.model.parameters(), *outlined.model.buffers()]) as memory:
            # With accumulation all gradients of the first pass are there while the second computes.
            for _ in range(min(2, training.gradient_accumulation_steps)):
                with computing_in(training.mixed_precision, outlined.device.partition(":")[0]):
                    loss = supervised_loss(outlined.model, empty)
                torch.autograd.backward(loss.loss_sum)
                del loss
    peak: int = memory.peak_bytes
    return peak


def _emptied(batch: AnyBatch, nothing: WithoutNumbers) -> AnyBatch:
    """Return a batch whose tensors have no numbers."""
    tensors = {field.name: value for field in fields(batch) if isinstance(value := getattr(batch, field.name), Tensor)}
    if isinstance(batch, Batch):
        # Whether a row has padding decides about the mask that attention gets, and cannot be asked here.
        rows, width = batch.input_ids.shape
        tensors["attention_mask"] = torch.ones(rows, 1, width, width, dtype=torch.bool)
    empty: dict[str, Any] = {name: nothing.tensor(value) for name, value in tensors.items()}
    if not batch.padding:
        empty["attention_mask"] = None
    return replace(batch, **empty)


def _model_size(config: TrainConfig, outlined: Outline) -> ModelSize:
    beside = locate_tokenizer(config.model).directory.iterdir()
    settings = outlined.shell.model.config
    share = trainable_share(outlined.model)
    sizes = [(p.requires_grad, p.numel() * p.element_size()) for p in outlined.model.parameters()]
    adapted = isinstance(outlined.model, PeftModel)
    adapter_bytes = sum(size for trained, size in sizes if trained) if adapted else 0
    return ModelSize(
        parameters=share.total,
        trainable=share.trainable,
        weight_bytes=sum(size for _, size in sizes) - adapter_bytes,
        adapter_bytes=adapter_bytes,
        layers=int(settings.num_hidden_layers),
        hidden_size=int(settings.hidden_size),
        vocabulary_size=int(settings.vocab_size),
        tokenizer_bytes=sum(f.stat().st_size for f in beside if f.is_file() and f.suffix != ".safetensors"),
        layout=outlined.layout.kind,
        logit_rows=_logit_rows(config, outlined),
    )


def _logit_rows(config: TrainConfig, outlined: Outline) -> int | None:
    """Return the positions whose logits a pass makes at a time; None: all."""
    if outlined.layout.kind == "padded":
        return None
    with computing_in(config.training.mixed_precision, outlined.device.partition(":")[0]):
        in_chunks = makes_logits_in_chunks(outlined.model)
    return chunk_rows(int(outlined.shell.model.config.vocab_size)) if in_chunks else None
