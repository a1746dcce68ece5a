"""The plan of a run: steps, memory, disk, and a micro-batch size that fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import psutil
import torch
from peft import PeftModel
from torch import Tensor, nn

from codex_ml.config.schema.root import TrainConfig
from codex_ml.data.batches import AnyBatch, Batch, make_batch
from codex_ml.data.tokenization.tokenizer import TokenizedRecord
from codex_ml.errors import MemoryShortageError
from codex_ml.modeling.forward import (
    BatchLayout,
    chunk_rows,
    configure_batch_layout,
    makes_logits_in_chunks,
    supervised_loss,
)
from codex_ml.modeling.memory_estimate import FakeTensorContext, PeakMemory
from codex_ml.modeling.modes import enable_gradient_checkpointing
from codex_ml.models.registry import MetaModel, build_meta_model
from codex_ml.models.source import locate_tokenizer
from codex_ml.peft.peft_adapter import trainable_share
from codex_ml.recipes.preparation import Prepared
from codex_ml.recipes.train.setup import training_model_config, wrap_with_adapter
from codex_ml.training.checkpoint.load import LoadedState
from codex_ml.training.optimizer import computing_in
from codex_ml.training.plan import ModelSize, Plan, format_bytes, make_plan

_ADVICE_COUNT = 3


@dataclass(frozen=True)
class MemoryUse:
    """Why a run needs the memory that it does.

    Parameters
    ----------
    config : TrainConfig
        The settings that could be lower.
    plan : Plan
        Its estimate, by part.
    longest_tokens : int
        Tokens of the longest training record.
    device, dtype : str
        What was chosen, such as ``cpu`` and ``float32``.
    """

    config: TrainConfig
    plan: Plan
    longest_tokens: int
    device: str
    dtype: str

    def explain(self, error: BaseException, step: int) -> MemoryShortageError:
        """Return the error to show for an allocation that failed in a step (counted from 1)."""
        parts = self.plan.memory_bytes
        shown = ", ".join(f"{part} {format_bytes(count)}" for part, count in parts.items())
        advice = "; ".join(f"{number}. {text}" for number, text in enumerate(self.advice(), start=1))
        return MemoryShortageError(
            f"out of memory on {self.device} in step {step}",
            why=(
                f"{_asked_for(error)}; the plan estimated {format_bytes(sum(parts.values()))} of tensors ({shown}) for "
                f"{self._pass_size()} and records of up to "
                f"{self.longest_tokens} tokens in {self.dtype}"
            ),
            fix=(
                f"what helps most, in this order: {advice}; other settings make another run, so start it without "
                "--resume-from, or free memory and resume this one"
            ),
        )

    def advice(self) -> list[str]:
        """Return the settings that save most, the largest saving first, each with a value and what it saves."""
        found = [*self._smaller_batches(), *self._smaller_model()]
        # A stable sort: of two that save the same, the one that changes less of the result comes first.
        ranked = sorted(found, key=lambda item: -item[1])[:_ADVICE_COUNT]
        return [f"{text} (saves about {format_bytes(saved)})" for text, saved in ranked]

    def _pass_size(self) -> str:
        training = self.config.training
        if training.tokens_per_micro_batch is not None:
            return f"training.tokens_per_micro_batch={training.tokens_per_micro_batch}"
        return f"training.micro_batch_size={training.records_per_pass}"

    def _smaller_batches(self) -> list[tuple[str, int]]:
        """Return what makes one pass smaller; text and bytes saved."""
        training, parts = self.config.training, self.plan.memory_bytes
        passing = parts["activations"] + parts["logits"]
        found: list[tuple[str, int]] = []
        if not training.gradient_checkpointing and self.plan.checkpointing_saves_bytes > 0:
            found.append(
                (
                    "training.gradient_checkpointing=true, with which this run can be resumed",
                    self.plan.checkpointing_saves_bytes,
                )
            )
        if training.tokens_per_micro_batch is not None:
            # A budget above what a pass has changes nothing; below the longest record there is nothing more to gain.
            tokens = self.plan.largest_pass_positions
            smaller = max(tokens // 2, self.longest_tokens)
            if smaller < tokens:
                found.append((f"training.tokens_per_micro_batch={smaller}", passing - passing * smaller // tokens))
        elif training.records_per_pass > 1:
            window = training.records_per_step
            # Of a divisor, so that the accumulation window, and with it the result, stays what it is.
            smaller = max(size for size in range(1, training.records_per_pass // 2 + 1) if window % size == 0)
            found.append(
                (
                    f"training.micro_batch_size={smaller} training.gradient_accumulation_steps={window // smaller}",
                    passing - passing * smaller // training.records_per_pass,
                )
            )
        if self.longest_tokens > 1:
            shorter = self.longest_tokens // 2
            found.append(
                (
                    f"data.max_length_tokens={shorter} data.on_overlong=drop",
                    passing - passing * shorter // self.longest_tokens,
                )
            )
        return found

    def _smaller_model(self) -> list[tuple[str, int]]:
        """Return what makes weights and their training smaller; text and bytes saved."""
        adapter, parts = self.config.adapter, self.plan.memory_bytes
        training_bytes = parts["gradients"] + parts["optimizer"]
        if adapter.kind == "none":
            return [("adapter.kind=lora, which trains a small part of the weights", training_bytes * 9 // 10)]
        found = []
        if self.dtype == "float32":
            found.append(("model.dtype=bfloat16", (parts["weights"] + parts["activations"] + parts["logits"]) // 2))
        if adapter.r > 1:
            found.append((f"adapter.r={adapter.r // 2}", training_bytes // 2))
        return found


def _asked_for(error: BaseException) -> str:
    """Return the first line of an allocator's message without the place in its source code."""
    text = str(error).strip()
    line = text.splitlines()[0] if text else "an allocation failed"
    # torch's CPU allocator: `[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate …`
    return line.partition("DefaultCPUAllocator: ")[2] or line


@dataclass(frozen=True)
class MemoryProbe:
    """The model of a run without its numbers: its adapter on, laid out as the loaded one will be."""

    model: nn.Module
    meta_model: MetaModel
    layout: BatchLayout
    nothing: FakeTensorContext

    @property
    def device(self) -> str:
        """Where the model will be."""
        return self.meta_model.device.value


def build_memory_probe(config: TrainConfig, prepared: Prepared) -> MemoryProbe:
    """Build the model of a config as `build_trainable_model` does, without reading a weight.

    Raises
    ------
    ModelError, AdapterError
        What that would raise for the same config.
    """
    model_config = training_model_config(config)
    meta_model = build_meta_model(model_config, prepared.tokenizer)
    layout = configure_batch_layout(meta_model.model, model_config.batch_layout)
    model = meta_model.model if config.adapter.kind == "none" else wrap_with_adapter(meta_model.model, config.adapter)
    if config.training.gradient_checkpointing:
        enable_gradient_checkpointing(meta_model.model)
    with FakeTensorContext(meta_model.device.value) as nothing:
        nothing.materialize_fake_parameters(model)
    return MemoryProbe(model, meta_model, layout, nothing)


def plan_run(config: TrainConfig, prepared: Prepared, memory_probe: MemoryProbe) -> Plan:
    """Work out steps, tokens, memory and disk of a run.

    The memory of a step is counted on the records of its largest pass, through the very code that trains, with tensors
    that have no numbers; where a model cannot be followed without numbers, it is an estimate, and says so.
    """
    records = prepared.dataset.require("train")
    plan = make_plan(config.training, records, _model_size(config, memory_probe), config.run.seed)
    try:
        peak = _pass_bytes(config, memory_probe, [records[index] for index in plan.largest_pass])
    except Exception as error:  # noqa: BLE001 - whatever a model does without numbers, its run can do with them
        # It looks at numbers to know what to compute: a mask that it makes itself, experts that it routes to.
        because = f"as {type(memory_probe.meta_model.model).__name__} looks at numbers to know what to compute"
        return replace(plan, estimated_because=f"{because}: {type(error).__name__}")
    parts = dict(plan.memory_bytes)
    estimated = max(1, parts["activations"])
    passing = max(0, peak - parts["gradients"])
    parts["logits"] = min(parts["logits"], passing)
    parts["activations"] = passing - parts["logits"]
    saved = plan.checkpointing_saves_bytes * parts["activations"] // estimated
    return replace(plan, memory_bytes=parts, estimated_because=None, checkpointing_saves_bytes=saved)


def _pass_bytes(config: TrainConfig, memory_probe: MemoryProbe, records: Sequence[TokenizedRecord]) -> int:
    """Return what the tensors of one pass take at most, gradients with them."""
    training = config.training
    batch = make_batch(records, 0, memory_probe.layout.kind)
    memory_probe.model.train()
    memory_probe.model.zero_grad(set_to_none=True)
    with memory_probe.nothing as nothing:
        empty = _emptied(batch, nothing)
        with PeakMemory([*memory_probe.model.parameters(), *memory_probe.model.buffers()]) as memory:
            # With accumulation all gradients of the first pass are there while the second computes.
            for _ in range(min(2, training.gradient_accumulation_steps)):
                with computing_in(training.mixed_precision, memory_probe.device.partition(":")[0]):
                    loss = supervised_loss(memory_probe.model, empty)
                torch.autograd.backward(loss.loss_sum)
                del loss
    peak: int = memory.peak_bytes
    return peak


def _emptied(batch: AnyBatch, nothing: FakeTensorContext) -> AnyBatch:
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


def _model_size(config: TrainConfig, memory_probe: MemoryProbe) -> ModelSize:
    beside = locate_tokenizer(config.model).directory.iterdir()
    settings = memory_probe.meta_model.model.config
    share = trainable_share(memory_probe.model)
    sizes = [(p.requires_grad, p.numel() * p.element_size()) for p in memory_probe.model.parameters()]
    adapted = isinstance(memory_probe.model, PeftModel)
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
        layout=memory_probe.layout.kind,
        logit_rows=_logit_rows(config, memory_probe),
    )


def _logit_rows(config: TrainConfig, memory_probe: MemoryProbe) -> int | None:
    """Return the positions whose logits a pass makes at a time; None: all."""
    if memory_probe.layout.kind == "padded":
        return None
    with computing_in(config.training.mixed_precision, memory_probe.device.partition(":")[0]):
        in_chunks = makes_logits_in_chunks(memory_probe.model)
    return chunk_rows(int(memory_probe.meta_model.model.config.vocab_size)) if in_chunks else None


# What tensors may take of the memory at hand. An allocator keeps much of what was freed: processes on a CPU were
# measured at up to three times their tensors (docs/training.md).
_CPU_SHARE, _CUDA_SHARE = 0.5, 0.9

# Plans a run with so many records in a pass.
PlanWith = Callable[[int], Plan]


def available_bytes(device: str) -> int:
    """Return the memory that could still be taken on a device."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def resolve_micro_batch_size(
    config: TrainConfig, prepared: Prepared, memory_probe: MemoryProbe, at_hand: Callable[[str], int] = available_bytes
) -> tuple[TrainConfig, Plan]:
    """Return the config with a number for ``micro_batch_size: auto``, and its plan, with advice where it does not fit.

    Whatever is chosen, a step has the same records, and its result is the same up to the order of sums.

    Parameters
    ----------
    config : TrainConfig
        What is to be trained.
    prepared : Prepared
        Its records.
    memory_probe : Outline
        Its model without numbers.
    at_hand : callable
        Gives the bytes that could still be taken on a device.
    """
    available = at_hand(memory_probe.device)
    room = int(available * (_CUDA_SHARE if memory_probe.device.startswith("cuda") else _CPU_SHARE))
    records = config.training.records_per_step

    def plan_with(size: int) -> Plan:
        return plan_run(with_micro_batch_size(config, size), prepared, memory_probe)

    if config.training.micro_batch_size == "auto":
        size, plan = largest_that_fits(records, room, plan_with)
        chosen = (
            f"training.micro_batch_size={size} training.gradient_accumulation_steps={records // size}: "
            f"{_why(size, plan.total_bytes, room, records)} ({format_bytes(available)} at hand)"
        )
        return with_micro_batch_size(config, size), replace(plan, memory_advice=chosen)
    plan = plan_run(config, prepared, memory_probe)
    if plan.total_bytes <= available or config.training.tokens_per_micro_batch is not None:
        return config, plan
    size, smaller = largest_that_fits(records, room, plan_with)
    advice = (
        f"training.micro_batch_size={size} training.gradient_accumulation_steps={records // size} would take "
        f"{format_bytes(smaller.total_bytes)}, for the same steps"
        if smaller.total_bytes < plan.total_bytes
        else "one record in a pass takes as much; see training.gradient_checkpointing and data.max_length_tokens"
    )
    return config, replace(plan, memory_advice=f"warning: only {format_bytes(available)} at hand; {advice}")


def largest_that_fits(records: int, room: int, plan_with: PlanWith) -> tuple[int, Plan]:
    """Return the largest pass that divides a step and whose plan fits, or one record where none does.

    Parameters
    ----------
    records : int
        Of a step.
    room : int
        Bytes that the plan may take.
    plan_with : callable
        Plans the run for a number of records in a pass; more records never take less.
    """
    sizes = [size for size in range(1, records + 1) if records % size == 0]
    best, plan = 1, plan_with(1)
    low, high = 1, len(sizes) - 1
    while low <= high:
        middle = (low + high) // 2
        candidate = plan_with(sizes[middle])
        if candidate.total_bytes <= room:
            best, plan, low = sizes[middle], candidate, middle + 1
        else:
            high = middle - 1
    return best, plan


def with_micro_batch_size(config: TrainConfig, size: int) -> TrainConfig:
    """Return a config whose steps have the same records, so many of them in a pass."""
    steps = config.training.records_per_step // size
    training = config.training.model_copy(update={"micro_batch_size": size, "gradient_accumulation_steps": steps})
    return config.model_copy(update={"training": training})


def restore_micro_batch_size(config: TrainConfig, loaded: LoadedState | None) -> TrainConfig:
    """Return a config with the number that a run which is resumed chose for ``auto``; another one is left as it is."""
    if loaded is None or config.training.micro_batch_size != "auto":
        return config
    saved = loaded.values["fingerprint"]
    size, steps = saved.get("training.micro_batch_size"), saved.get("training.gradient_accumulation_steps")
    if not isinstance(size, int) or not isinstance(steps, int) or size * steps != config.training.records_per_step:
        return config
    return with_micro_batch_size(config, size)


def _why(size: int, taken: int, room: int, records: int) -> str:
    if taken > room:
        return f"not even one record in a pass fits into the {format_bytes(room)} that tensors may take"
    if size == records:
        return "all records of a step fit into one pass"
    return f"the most that {format_bytes(room)} of tensors hold"
