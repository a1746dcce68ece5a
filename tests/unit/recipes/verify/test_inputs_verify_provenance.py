"""A run without its provenance: one fault, and one line for each part that it would have been held against."""

from __future__ import annotations

import pytest

from codex_ml.errors import UserError
from codex_ml.recipes.verify.inputs import without_provenance
from codex_ml.recipes.verify.run import require_passed
from codex_ml.runs.verification import Check, Verification


def test_without_provenance_each_part_is_unchecked_once() -> None:
    """What differs from nothing does not differ; what agrees without it stays."""
    checks = [
        Check("provenance.json", "missing"),
        Check("base_model.files.a.json", "differs", None, "x", "it was not there when the run was made"),
        Check("base_model.digest", "differs", None, "y"),
        Check("versions.torch", "noted", note="not recorded"),
        Check("safety.bypass_reason", "agrees"),
        Check("data", "differs", None, {}),
        Check("data.splits.train.digest", "agrees", "d", "d"),
        Check("run_manifest.json.files.provenance.json", "missing", "z"),
    ]
    found = without_provenance(checks)
    assert [(check.key, check.state) for check in found] == [
        ("provenance.json", "missing"),
        ("base_model", "unchecked"),
        ("versions", "unchecked"),
        ("safety", "unchecked"),
        ("data", "unchecked"),
        ("data.splits.train.digest", "agrees"),
    ]
    assert "nothing recorded" in found[1].line()


def test_require_passed_nothing_differs_but_unchecked_says_incomplete() -> None:
    """Nothing speaks against the run; exit code 2 all the same, with the keys that excuse what is not here."""
    verification = Verification("runs/a", "x", (Check("base_model.digest", "unchecked", note="moved"),))
    with pytest.raises(UserError, match="could not be checked completely") as caught:
        require_passed(verification)
    assert caught.value.exit_code == 2
    assert "--allow base_model" in caught.value.fix
    assert "restore" not in caught.value.fix


def test_require_passed_damaged_aside_names_the_key_to_allow() -> None:
    """Who needs it no longer is told the whole key, once for what stands below it."""
    key = "checkpoints/abandoned-A/step-00000004"
    checks = (Check(key, "differs", note="damaged"), Check(f"{key}/manifest.json.run_id", "differs", "a", "b"))
    with pytest.raises(UserError, match="fails its verification") as caught:
        require_passed(Verification("runs/a", "x", checks))
    assert caught.value.fix.endswith(f"--allow {key}")
