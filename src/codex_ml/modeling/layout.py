"""How the records of a micro-batch reach the model: one after another in one row, or padded to the longest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from codex_ml.errors import ModelError
from codex_ml.modeling.attention import RECORD_ATTENTION, register_record_attention
from codex_ml.modeling.normalisation import replace_norms

LayoutKind = Literal["ragged", "padded"]
# Families whose losses and gradients are proven equal, record by record, in tests/invariant/test_ragged.py. A family
# belongs here when its attention goes through transformers' interface and knows neither soft caps nor sinks, its
# positions come from `position_ids` alone, nothing but attention mixes the tokens of a row, and its logits are one
# linear layer over the last hidden states, with no soft cap and no scale after it.
RAGGED_FAMILIES = frozenset({"gpt2", "llama", "mistral", "qwen2"})


# Kinds of rotary embedding whose frequencies are a function of the model alone.
_FIXED_POSITIONS = frozenset({"default", "linear", "llama3", "yarn"})


@dataclass(frozen=True)
class Layout:
    """A layout and why it was taken; a line of it is shown when a run begins, and its provenance keeps it."""

    kind: LayoutKind
    reason: str

    def line(self) -> str:
        """Return what a user is told."""
        return f"batches {self.kind}: {self.reason}"


PADDED = Layout("padded", "nothing else was asked for")


def lay_out(model: nn.Module, wish: Literal["auto", "ragged", "padded"]) -> Layout:
    """Choose the layout of a model's batches and prepare the model for it.

    A model laid out for ragged batches also gets its norms in closed form; for padded ones nothing is put into it.
    What is chosen depends on the model alone, so that a resumed run computes as the first one did. Padded batches and
    generation are computed as before either way.

    Parameters
    ----------
    model : nn.Module
        The base model, bare or with an adapter around it.
    wish : str
        The config's ``model.batch_layout``.

    Raises
    ------
    ModelError
        If ragged batches are asked for and the model cannot take them.
    """
    bare: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    layout = _choose(bare, wish)
    if layout.kind == "ragged":
        register_record_attention()
        bare.set_attn_implementation(RECORD_ATTENTION)
        replace_norms(bare)
    return layout


def _choose(model: PreTrainedModel, wish: Literal["auto", "ragged", "padded"]) -> Layout:
    if wish == "padded":
        return Layout("padded", "model.batch_layout asks for it")
    obstacle = _obstacle(model)
    if obstacle is None:
        return Layout("ragged", "no position is padding, and attention runs within each record")
    if wish == "ragged":
        raise ModelError(
            "model.batch_layout: this model cannot take ragged batches",
            why=obstacle,
            fix="use model.batch_layout=auto (or padded); results are the same, padding is computed",
        )
    return Layout("padded", obstacle)


def _obstacle(model: PreTrainedModel) -> str | None:
    """Return why a model cannot take records one after another, or None."""
    family = str(model.config.model_type)
    if family not in RAGGED_FAMILIES:
        proven = ", ".join(sorted(RAGGED_FAMILIES))
        return f"that records in one row do not see each other is proven for {proven}; this model is {family}"
    positions = str((getattr(model.config, "rope_parameters", None) or {}).get("rope_type", "default"))
    if positions not in _FIXED_POSITIONS:
        return f"its rotary positions are of the kind {positions}, which may depend on the longest record of a batch"
    # transformers has no public name for what it chose.
    attention = str(getattr(model.config, "_attn_implementation", "unknown"))
    if attention not in ("sdpa", RECORD_ATTENTION):
        return f"its attention is {attention}, and only sdpa has a form for records in one row"
    return None
