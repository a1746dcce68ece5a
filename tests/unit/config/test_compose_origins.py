"""What --dry-run prints: every value, its origin beside it."""

from __future__ import annotations

import yaml

from codex_ml.config.compose import render_resolved
from codex_ml.config.messages import describe_schema
from codex_ml.config.schema.training import DEFAULT_EPOCHS
from codex_ml.config.validate import validate_train


def test_render_resolved_shows_every_value_with_its_origin(from_tree):
    """Each key of the schema stands on a line of its own, ending in the origin."""
    composed = from_tree("nested/deep", "adapter.alpha=32", "data.columns={prompt: q}")
    lines = render_resolved(validate_train(composed), composed.origins).splitlines()
    assert "adapter:" in lines
    assert [line.split() for line in lines if line.startswith("  alpha:")] == [["alpha:", "32", "#", "command", "line"]]
    assert [line.split("# ")[1] for line in lines if line.startswith("  r:")] == ["mine/adapter/mine.yaml"]
    assert [line.split("# ")[1] for line in lines if line.startswith("    prompt:")] == ["command line"]
    assert sum("  # " in line for line in lines) == len(describe_schema())


def test_render_resolved_is_yaml_of_the_configuration(from_tree):
    """The text reads back as the configuration, also where words look like other types."""
    config = validate_train(
        from_tree(
            "whole", "training.epochs=2", "run.name='1e3'", "data.split.group_by='null'", "tracking.experiment='a: b'"
        )
    )
    assert yaml.safe_load(render_resolved(config, {})) == config.model_dump(mode="json")


def test_render_resolved_origins_stand_in_one_column(from_tree):
    """The origins are aligned, so that they can be read down."""
    composed = from_tree("whole", "run.name=n")
    lines = render_resolved(validate_train(composed), composed.origins).splitlines()
    places = {line.index("  # ") for line in lines if "  # " in line and len(line.partition("  # ")[0].rstrip()) < 60}
    assert len(places) == 1


def test_render_resolved_epochs_that_nobody_set_are_shown_as_used(from_tree):
    """What a run without a length does is in the list, not a null; a number of steps leaves it null."""
    composed = from_tree("whole", "training.epochs=null", "training.max_steps=null")
    config = validate_train(composed)
    (line,) = [line for line in render_resolved(config, composed.origins).splitlines() if "epochs:" in line]
    assert line.split("#")[0].split() == ["epochs:", str(DEFAULT_EPOCHS)]
    assert line.endswith("# default where training.epochs and training.max_steps are null")
    steps = from_tree("whole", "training.epochs=null", "training.max_steps=5")
    (line,) = [text for text in render_resolved(validate_train(steps), steps.origins).splitlines() if "epochs:" in text]
    assert line.split("#")[0].split() == ["epochs:", "null"]
