"""What is to be trained, on what and for how long: the value that the recipe hands to the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from codex_ml.config.schema.training import TrainingSection
from codex_ml.data.batches import BatchLayout
from codex_ml.data.tokenization.tokenizer import TokenizedRecord
from codex_ml.training.averaging import AveragedWeights


@dataclass(frozen=True)
class TrainingJob:
    """What is to be trained, on what, for how long.

    Parameters
    ----------
    model : nn.Module
        On its device; what requires a gradient is trained.
    records : sequence
        Tokenised training records; their order is part of the run.
    pad_token_id : int
        Fills short rows; masked by position, so any id will do.
    seed : int
        Decides the order of data and every random draw.
    settings : TrainingSection
        The `training` section of the config.
    total_steps : int
        Optimizer steps of the whole run.
    checkpoints : Path
        Directory that receives checkpoints.
    write_weights : callable
        Writes adapter or model, tokenizer and generation settings into a directory.
    checkpoint_values : callable
        Returns JSON values that each checkpoint keeps, as they are when it is written.
    manifest : dict
        What the manifest of each checkpoint says of the run.
    checkpoint_bytes : int
        About what a checkpoint takes, from the plan; the first one is measured by it, later ones by the one before.
    layout : str
        How records reach the model; ragged where the model was prepared for it (`codex_ml.modeling.forward`).
    average : AveragedWeights, optional
        Average of the trained weights, updated after every step and saved with them; None: none is kept.
    write_averaged : callable, optional
        Writes adapter or model alone into a directory, while the model holds the average; given where there is one.
    """

    model: nn.Module
    records: Sequence[TokenizedRecord]
    pad_token_id: int
    seed: int
    settings: TrainingSection
    total_steps: int
    checkpoints: Path
    write_weights: Callable[[Path], None]
    checkpoint_values: Callable[[], dict[str, Any]] = dict
    manifest: dict[str, Any] = field(default_factory=dict)
    checkpoint_bytes: int = 0
    layout: BatchLayout = "padded"
    average: AveragedWeights | None = None
    write_averaged: Callable[[Path], None] | None = None

    def __post_init__(self) -> None:
        """Check what no configuration can get wrong, only the code."""
        assert (self.average is None) == (self.write_averaged is None), "an average is kept to be written"
