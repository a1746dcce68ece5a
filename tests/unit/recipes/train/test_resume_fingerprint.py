"""Every key of the configuration is compared at a resume, or may change for a reason that is written down."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import pytest

from codex_ml.config.messages import describe_schema, subsection
from codex_ml.config.schema.root import TrainConfig
from codex_ml.errors import CheckpointError
from codex_ml.recipes.train.resume import (
    BY_CONTENT,
    MAY_CHANGE,
    changeable_keys,
    check_fingerprint,
    may_change,
    settings_fingerprint,
)

KEYS = [field.key for field in describe_schema(TrainConfig)]
COMPARED = [key for key in KEYS if not may_change(key) and key not in BY_CONTENT]
BEFORE = TrainConfig.model_validate({"model": {"path": "/m"}, "data": {"path": "/d"}})


def _annotation(key: str) -> Any:
    section: type = TrainConfig
    *parents, name = key.split(".")
    for parent in parents:
        below = subsection(section.model_fields[parent])
        assert below is not None
        section = below
    return section.model_fields[name].annotation


def _other(annotation: Any, value: Any) -> Any:
    """Return a value of a type that is not the given one."""
    if get_origin(annotation) is Literal:
        return next(choice for choice in get_args(annotation) if choice != value)
    if value is None:
        kind = next(kind for kind in get_args(annotation) if kind is not type(None))
        return _other(kind, kind() if isinstance(kind, type) else None)
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, (tuple, list)):
        return (*value, value[0] if value else "other")
    if isinstance(value, dict):
        return {**value, "other": "other"}
    return f"{value}-other"


def _with_other_value(key: str) -> tuple[TrainConfig, Any, Any]:
    """Return the config with one key changed, and both values; rules across keys are of no account here."""
    *parents, name = key.split(".")
    sections = [BEFORE]
    for parent in parents:
        sections.append(getattr(sections[-1], parent))
    value = getattr(sections[-1], name)
    other = ("q_proj",) if key == "adapter.target_modules" else _other(_annotation(key), value)
    changed: Any = sections[-1].model_copy(update={name: other})
    for section, parent in zip(reversed(sections[:-1]), reversed(parents), strict=True):
        changed = section.model_copy(update={parent: changed})
    return changed, value, other


def test_fingerprint_keys_stand_on_one_list_only():
    """No key or section of the lists is unknown or stands on both; what stands on neither is compared."""
    assert set(MAY_CHANGE) <= {*KEYS, "eval", "generation", "serve", "tracking", "logging"}
    assert not any(may_change(key) for key in BY_CONTENT)
    assert set(BY_CONTENT) <= set(KEYS)
    assert all(MAY_CHANGE.values())
    assert set(settings_fingerprint(BEFORE)) == set(COMPARED)
    assert {"run.seed", "adapter.r", "training.learning_rate", "safety.enabled", "data.split.seed"} <= set(COMPARED)


@pytest.mark.parametrize("key", COMPARED)
def test_fingerprint_any_other_key_changed_is_refused_with_both_values(key, tmp_path):
    """One changed value is enough; the message shows it as it was, as it is, and what may change."""
    changed, value, other = _with_other_value(key)
    with pytest.raises(CheckpointError) as caught:
        check_fingerprint(settings_fingerprint(BEFORE), settings_fingerprint(changed), tmp_path)
    shown, asked = settings_fingerprint(BEFORE)[key], settings_fingerprint(changed)[key]
    assert caught.value.why == f"{key}: {shown!r} there, {asked!r} now"
    assert value != other
    assert "training.max_steps" in caught.value.fix


@pytest.mark.parametrize("key", [key for key in KEYS if key not in COMPARED])
def test_fingerprint_key_that_may_change_is_not_compared_by_value(key, tmp_path):
    """Its value is free; where it names something, what it names is compared by digest."""
    changed, value, other = _with_other_value(key)
    assert value != other
    check_fingerprint(settings_fingerprint(BEFORE), settings_fingerprint(changed), tmp_path)


def test_changeable_keys_name_whole_sections_once():
    """A section of which everything may change is one entry of the message."""
    keys = changeable_keys()
    assert {"eval.*", "generation.*", "tracking.*", "logging.*", "training.max_steps"} <= set(keys)
    assert "eval.split" not in keys
    assert "training.*" not in keys
    assert len(keys) == len(set(keys))


def test_check_fingerprint_other_validation_data_matter_once_there_is_a_loss(tmp_path):
    """Losses on other records cannot be compared with the best so far; before the first there is nothing to compare."""
    saved, now = {"validation_data_digest": "one"}, {"validation_data_digest": "other"}
    check_fingerprint(saved, now, tmp_path, has_validated=False)
    with pytest.raises(CheckpointError, match="other settings or files"):
        check_fingerprint(saved, now, tmp_path)


def test_check_fingerprint_setting_unknown_to_an_older_checkpoint_is_its_default(tmp_path):
    """A checkpoint from before the option was computed with what is now its default: it can be resumed."""
    now = settings_fingerprint(BEFORE)
    saved = {key: value for key, value in now.items() if key != "training.deterministic"}
    check_fingerprint(saved, now, tmp_path)


def test_check_fingerprint_setting_unknown_to_an_older_checkpoint_and_set_says_so(tmp_path):
    """There is no value to put back: the message says that the checkpoint is older, and to leave the option out."""
    now = {**settings_fingerprint(BEFORE), "training.deterministic": True}
    saved = {key: value for key, value in now.items() if key != "training.deterministic"}
    with pytest.raises(CheckpointError) as caught:
        check_fingerprint(saved, now, tmp_path)
    assert "training.deterministic: True now, written by an older codex-ml" in caught.value.why
    assert "None there" not in caught.value.why
    assert caught.value.fix.startswith("leave training.deterministic out")
    assert "put the settings" not in caught.value.fix


def test_check_fingerprint_digest_unknown_to_an_older_checkpoint_names_the_only_way_out(tmp_path):
    """What was never recorded cannot be compared, and nothing in the configuration changes that."""
    with pytest.raises(CheckpointError) as caught:
        check_fingerprint({}, {"data_token_digest": "x"}, tmp_path)
    assert "data_token_digest: written by an older codex-ml that did not record it" in caught.value.why
    assert caught.value.fix.startswith("resume with the codex-ml that wrote the checkpoint")


def test_check_fingerprint_checkpoint_from_before_another_arithmetic_is_refused(tmp_path):
    """Its settings are all the same, and the next step would differ in its last bits: that is another run."""
    saved = settings_fingerprint(BEFORE)
    now = {**saved, "batch_layout": "ragged", "arithmetic": 2}
    with pytest.raises(CheckpointError) as caught:
        check_fingerprint(saved, now, tmp_path)
    assert "arithmetic" in caught.value.why
    assert "resume with the codex-ml that wrote the checkpoint" in caught.value.fix
    with pytest.raises(CheckpointError) as caught:
        check_fingerprint({**now, "arithmetic": 1}, now, tmp_path)
    assert "arithmetic: 1 there, 2 now" in caught.value.why
    assert caught.value.fix.startswith("resume with the codex-ml that wrote the checkpoint")
    with pytest.raises(CheckpointError) as caught:
        check_fingerprint({**now, "batch_layout": "padded"}, now, tmp_path)
    assert "model.batch_layout: 'padded' there, 'ragged' now" in caught.value.why
    assert caught.value.fix.startswith("put the settings")


def test_check_fingerprint_refusal_is_short_and_leads_to_the_whole_list(tmp_path, repository_root):
    """The line says in short what may change; the page it names has every entry with its reason."""
    with pytest.raises(CheckpointError) as caught:
        check_fingerprint({"run.seed": 1}, {"run.seed": 2}, tmp_path)
    assert len(caught.value.fix) < 320
    assert "docs/how-to/verify-and-reproduce-a-run.md" in caught.value.fix
    page = (repository_root / "docs" / "how-to" / "verify-and-reproduce-a-run.md").read_text("utf-8")
    keys = changeable_keys()
    reasons = list(MAY_CHANGE.values())
    assert [f"| `{key}` | {reason} |" for key, reason in zip(keys, reasons, strict=True)] == [
        line for line in page.splitlines() if any(line.startswith(f"| `{key}` |") for key in keys)
    ]
