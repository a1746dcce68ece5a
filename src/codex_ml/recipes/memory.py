"""What to say when memory is not enough: what the plan had estimated, and the settings that save most, in order."""

from __future__ import annotations

from dataclasses import dataclass

from codex_ml.config.schema.root import TrainConfig
from codex_ml.errors import MemoryShortageError
from codex_ml.training.plan import Plan, format_bytes

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
