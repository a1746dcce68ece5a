"""Runs recorded before the digest covered all tokenizer files: they still resume, evaluate and verify."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codex_ml.config.compose import compose
from codex_ml.config.validate import validate_evaluate
from codex_ml.errors import CheckpointError
from codex_ml.io.atomic import Storage, bytes_digest, file_digest, json_bytes
from codex_ml.recipes.evaluate import EvaluateDependencies, evaluate
from codex_ml.recipes.verify.run import verify_run
from codex_ml.runs.layout import RunLayout, read_record
from codex_ml.runs.listing import resolve_targets
from codex_ml.runs.manifest import read_manifest, write_manifest
from codex_ml.runs.run_manifest import write_run_manifest
from codex_ml.runs.tokenizer_files import EXTRA_TOKENIZER

pytestmark = pytest.mark.slow
SETTINGS = ("training.save_steps=2",)
EXTRA_FILES = ("tokenizer.model.v3", "tekken.json", "vocab.txt", "additional_chat_templates/tool_use.jinja")
# Values of the older codex-ml.
OLDER_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "merges.txt"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
)
OLDER_SUFFIXES = (".safetensors", ".json", ".model", ".jinja", ".txt")


def _edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(file.read_text("utf-8"))
    change(value)
    file.write_bytes(json_bytes(value))


def _older_digest(base: Path, eos_token_id: int) -> str:
    listed = [name for name in OLDER_TOKENIZER_FILES if (base / name).is_file()]
    return bytes_digest(
        json_bytes({**{name: file_digest(base / name) for name in listed}, "eos_token_id": eos_token_id})
    )


def _record_as_before(run: Path, base: Path) -> None:
    """Rewrite the records of a run as the older codex-ml wrote them, with its digest formulas."""

    def provenance(values: dict[str, Any]) -> None:
        compute, recorded = values["compute"], values["base_model"]
        compute.pop(EXTRA_TOKENIZER, None)
        digests.append(_older_digest(base, compute["eos_token_id"]))
        compute["tokenizer_digest"] = digests[0]
        names = [name for name in recorded["files"] if (base / name).parent == base]
        recorded["files"] = {name: recorded["files"][name] for name in names if Path(name).suffix in OLDER_SUFFIXES}
        lines = [f"{name} {entry['digest']}\n" for name, entry in recorded["files"].items()]
        recorded["digest"] = bytes_digest("".join(lines).encode("utf-8"))

    digests: list[str] = []
    _edit(run / "provenance.json", provenance)
    for checkpoint in (run / "checkpoints").glob("step-*"):
        _edit(checkpoint / "trainer_state.json", lambda values: _older_fingerprint(values, digests[0]))
        details = read_manifest(checkpoint)
        for name in ("files", "manifest_version", "manifest_digest", EXTRA_TOKENIZER):
            details.pop(name, None)
        write_manifest(checkpoint, {**details, "tokenizer_digest": digests[0]}, Storage())
    write_run_manifest(RunLayout(run), read_record(RunLayout(run)), Storage())


def _older_fingerprint(values: dict[str, Any], digest: str) -> None:
    fingerprint = values["fingerprint"]
    fingerprint.pop(EXTRA_TOKENIZER, None)
    fingerprint["tokenizer_digest"] = digest


@pytest.fixture
def trainer(trainer_in, tiny_llama_directory, tmp_path):
    """Return a trainer whose base model has further tokenizer files, as some repositories do."""
    base = Path(shutil.copytree(tiny_llama_directory, tmp_path / "base"))
    for name in EXTRA_FILES:
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text("{}")
    return replace(trainer_in(tmp_path), model=base)


def _evaluate(trainer, run: Path) -> None:
    composed = compose(
        "evaluate",
        overrides=[f"model.path={trainer.model}", f"data.path={trainer.data}", "eval.metrics=[loss]"],
        working_directory=trainer.working_directory,
        environment={},
    )
    targets = resolve_targets([str(run)], run.parent, None)
    evaluate(validate_evaluate(composed), targets, EvaluateDependencies(emit=[].append))


def _failing(run: Path) -> set[str]:
    return {check.key for check in verify_run(RunLayout(run), allowed=["code"]).verification.failing()}


def test_run_of_an_older_version_verifies_evaluates_and_resumes(trainer) -> None:
    """Changes to files outside its digest are accepted; changes to files in its digest are refused."""
    run = trainer(*SETTINGS).directory
    _record_as_before(run, trainer.model)
    assert _failing(run) == set()
    _evaluate(trainer, run)
    (trainer.model / "tekken.json").write_text("[]")
    assert _failing(run) == {"base_model.files.tekken.json", "base_model.digest"}
    (trainer.model / "tekken.json").write_text("{}")
    resumed = trainer(*SETTINGS, "training.max_steps=6", f"run.resume_from={run}")
    assert resumed.directory == run
    assert (run / "checkpoints" / "step-00000006").is_dir()
    # After the resume the digest covers all files; the earlier checkpoints are unchanged.
    assert _failing(run) == set()


def test_run_of_this_version_refuses_changed_extra_files(trainer) -> None:
    """A file that is added later is refused, too: an extra template may replace the template of training."""
    run = trainer(*SETTINGS).directory
    assert _failing(run) == set()
    (trainer.model / "additional_chat_templates" / "other.jinja").write_text("changed")
    name = "base_model.files.additional_chat_templates/other.jinja"
    assert _failing(run) == {name, "base_model.digest", f"compute.{EXTRA_TOKENIZER}"}
    with pytest.raises(CheckpointError, match="another tokenizer") as caught:
        _evaluate(trainer, run)
    assert "extra tokenizer files" in caught.value.block()
    with pytest.raises(CheckpointError) as caught:
        trainer(*SETTINGS, "training.max_steps=6", f"run.resume_from={run}")
    assert EXTRA_TOKENIZER in caught.value.block()


def test_checkpoint_with_other_extra_digest_than_its_run_is_named(trainer) -> None:
    """Provenance and manifest must contain the same value."""
    run = trainer(*SETTINGS).directory
    _edit(run / "provenance.json", lambda values: values["compute"].update({EXTRA_TOKENIZER: "sha256:0"}))
    assert "checkpoints/step-00000004/manifest.json.extra_tokenizer_digest" in _failing(run)
