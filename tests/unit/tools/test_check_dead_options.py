"""Options that nothing reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from check_dead_options import main, options_of, reads_in, unread_options
from codex_ml.config.schema.root import TrainConfig

OPTIONS = {"training.max_steps": ("TrainingSection", "training"), "offline": ("TrainConfig", "")}


@pytest.mark.parametrize(
    "code",
    [
        "print(config.training.max_steps)",
        "print(self._training.max_steps)",
        "def f(settings: TrainingSection): return settings.max_steps",
        "settings = config.training\nprint(settings.max_steps)",
    ],
)
def test_unread_options_read_one_is_not_named(code: str) -> None:
    """By the section's name, by annotation and by assignment an option counts as read."""
    assert unread_options(OPTIONS, reads_in(code), ("config",)) == ["offline"]


@pytest.mark.parametrize(
    "code",
    [
        "print(plan.max_steps)",
        "config.training.max_steps = 3",
        "# config.training.max_steps",
        "def f(settings: EvalSection): return settings.max_steps",
    ],
)
def test_unread_options_same_name_elsewhere_does_not_count(code: str) -> None:
    """Another section's field of that name, a write and a comment read nothing."""
    assert unread_options(OPTIONS, reads_in(code), ("config",)) == ["training.max_steps", "offline"]


def test_unread_options_key_of_the_root_is_read_from_the_config() -> None:
    """A key without a section is read from the whole."""
    assert unread_options({"offline": ("TrainConfig", "")}, reads_in("config.offline"), ("config",)) == []


def test_options_of_schema_names_every_leaf() -> None:
    """Sections below sections are walked; a section itself is no option."""
    options = options_of(TrainConfig)
    assert options["data.split.ratios"] == ("SplitSection", "split")
    assert "data.split" not in options


def test_main_this_checkout_has_no_dead_option(repository_root: Path) -> None:
    """Every option does something."""
    assert main(["--root", str(repository_root)]) == 0
