"""What `runs verify` says of a run in which something was changed after it ended: each change is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codex_ml.errors import UserError
from codex_ml.io.atomic import bytes_digest, file_digest, json_bytes
from codex_ml.recipes.verify.inputs import Moved
from codex_ml.recipes.verify.run import VerifyDependencies, require_passed, verify_run
from codex_ml.runs.layout import RunLayout
from codex_ml.runs.lock import hold_lock
from codex_ml.runs.verification import Check, Verification
from codex_ml.tracking.provenance import ProvenanceDependencies

pytestmark = pytest.mark.slow
POLICY = """\
version: 1
rules:
  - {id: word, kind: regex, description: a word, patterns: ['zebra']}
"""


@pytest.fixture(scope="module")
def trained(trainer_in, tiny_llama_directory, small_records, tmp_path_factory) -> Path:
    """Return a workspace with base model, data, policy and one run of 4 steps; treat it as read-only."""
    workspace = tmp_path_factory.mktemp("verified")
    shutil.copytree(tiny_llama_directory, workspace / "base")
    shutil.copy(small_records, workspace / "records.jsonl")
    (workspace / "policy.yaml").write_text(POLICY)
    trainer = replace(trainer_in(workspace), model=workspace / "base", data=workspace / "records.jsonl")
    trainer(f"safety.policy={workspace / 'policy.yaml'}", "training.save_steps=2", "training.eval_steps=2")
    return workspace


@pytest.fixture
def workspace(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of the workspace, to be spoilt."""
    return Path(shutil.copytree(trained, tmp_path / "workspace"))


def run_in(workspace: Path) -> RunLayout:
    """Return the only run of a workspace."""
    return RunLayout(next((workspace / "runs").iterdir()))


def verify(workspace: Path, *allowed: str, **options: Any) -> Verification:
    """Verify the run of a workspace; the code may change while tests run, so it is excused."""
    return verify_run(run_in(workspace), allowed=["code", *allowed], **options).verification


def failing(verification: Verification) -> dict[str, Check]:
    """Return what stands against a run, by key."""
    return {check.key: check for check in verification.failing()}


def flip(file: Path, offset: int = -5) -> None:
    """Change one bit of a file and leave its size and times alone."""
    status = file.stat()
    content = bytearray(file.read_bytes())
    content[offset] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file in place."""
    value = json.loads(file.read_text("utf-8"))
    change(value)
    file.write_bytes(json_bytes(value))


def test_verify_untouched_run_passes_also_when_moved_as_a_whole(workspace) -> None:
    """Nothing fails; what cannot be held against anything is noted with its reason, and nothing is left unsaid."""
    verification = verify(workspace)
    assert failing(verification) == {}
    assert all(check.note for check in verification.checks if check.state in ("noted", "unchecked"))
    assert {"agrees", "noted"} >= {check.state for check in verification.checks if check.key != "code.source_digest"}
    assert verification.manifest_digest == file_digest(run_in(workspace).directory / "run_manifest.json")


def test_verify_changes_nothing_in_the_run(workspace) -> None:
    """Looking leaves no trace: the same files, bytes and times."""

    def state() -> dict[str, tuple[int, str]]:
        files = [path for path in workspace.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, file_digest(path)) for path in files}

    before = state()
    verify(workspace)
    assert state() == before


@pytest.mark.parametrize(
    ("name", "offset", "expected"),
    [
        ("base/model.safetensors", -5, "base_model.files.model.safetensors"),
        ("base/tokenizer.json", -5, "base_model.files.tokenizer.json"),
        ("base/generation_config.json", -5, "base_model.files.generation_config.json"),
        ("records.jsonl", 12, "data.splits.train.source.digest"),
        ("policy.yaml", -6, "safety.policy_digest"),
        ("RUN/config.yaml", -5, "config_digest"),
        ("RUN/metrics.ndjson", -3, "run_manifest.json.files.metrics.ndjson"),
        ("RUN/events.ndjson", 5, "run_manifest.json.files.events.ndjson"),
        ("RUN/checkpoints/step-00000004/adapter_model.safetensors", -5, "checkpoints/step-00000004"),
        ("RUN/checkpoints/step-00000002/trainer_state.json", -5, "checkpoints/step-00000002"),
        ("RUN/checkpoints/step-00000004/tokenizer.json", 40, "checkpoints/step-00000004"),
        ("RUN/data_splits.json", 5, "run_manifest.json.files.data_splits.json"),
        ("RUN/data_account.json", 3, "data_account.json"),
        ("RUN/provenance.json", 3, "provenance.json"),
    ],
)
def test_verify_one_bit_changed_is_named(workspace, name, offset, expected) -> None:
    """Base weights, tokenizer, data, policy, config, logs, checkpoints, records: one bit anywhere fails by name."""
    file = workspace / name.replace("RUN", str(run_in(workspace).directory.relative_to(workspace)))
    flip(file, offset)
    found = failing(verify(workspace))
    assert expected in found, found
    assert found[expected].state == "differs"


def test_verify_changed_record_names_membership_and_both_digests(workspace) -> None:
    """A record that became another falls into another split, or spoils the digest of its own."""
    flip(workspace / "records.jsonl", 80)
    found = failing(verify(workspace))
    assert {"data.splits.train.source.digest", "data.splits.test.source.digest"} <= set(found)
    assert any(key.endswith((".digest", ".membership")) and ".source." not in key for key in found)


def test_verify_appended_record_keeps_the_splits_but_not_the_file(workspace) -> None:
    """What was trained on is still there, each record at its place; that the file grew is said."""
    with (workspace / "records.jsonl").open("a") as handle:
        handle.write('{"prompt": "new ", "completion": "record"}\n')
    found = failing(verify(workspace))
    assert set(found) == {
        f"data.splits.{split}.source.{part}" for split in ("train", "valid", "test") for part in ("digest", "bytes")
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("base/generation_config.json", "base_model.files.generation_config.json"),
        ("RUN/run_manifest.json", "run_manifest.json"),
        ("RUN/data_account.json", "data_account.json"),
        ("RUN/events.ndjson", "events.ndjson"),
        ("RUN/config.yaml", "config_digest"),
        ("RUN/checkpoints/best", "checkpoints/best"),
        ("RUN/checkpoints/step-00000002", "run_manifest.json.files.checkpoints/step-00000002/manifest.json"),
        ("RUN/provenance.json", "provenance.json"),
    ],
)
def test_verify_removed_file_is_missing(workspace, name, expected) -> None:
    """What is gone is called missing, and nothing else of the run stops being looked at."""
    path = workspace / name.replace("RUN", str(run_in(workspace).directory.relative_to(workspace)))
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    verification = verify(workspace)
    assert failing(verification)[expected].state == "missing"
    assert any(check.key == "checkpoints/step-00000004" for check in verification.checks)


def test_verify_without_provenance_one_fault_and_no_false_difference(workspace) -> None:
    """The file is missing, each part that it spoke of is unchecked; nothing is said to be new or changed."""
    run_in(workspace).provenance.unlink()
    found = [check for check in verify_run(run_in(workspace)).verification.checks if check.fails]
    assert [check.key for check in found if check.state != "unchecked"] == ["provenance.json"]
    assert {"base_model", "versions", "data"} <= {check.key for check in found}
    assert len(found) < 15


def test_verify_added_file_in_checkpoint_and_in_base_is_named(workspace) -> None:
    """A stranger's file in a checkpoint or beside the base weights fails; a note beside the run is only noted."""
    run = run_in(workspace)
    (run.checkpoints / "step-00000004" / "extra.txt").write_text("x")
    (workspace / "base" / "added.json").write_text("{}")
    (run.directory / "notes.txt").write_text("mine")
    verification = verify(workspace)
    found = failing(verification)
    assert "extra.txt is not in the manifest" in found["checkpoints/step-00000004"].note
    assert found["base_model.files.added.json"].found == bytes_digest(b"{}")
    noted = {check.key: check.note for check in verification.checks if check.state == "noted"}
    assert "came later" in noted["run_manifest.json.files.notes.txt"]


@pytest.mark.parametrize(
    ("section", "key", "expected"),
    [
        ("base_model", "digest", "base_model.digest"),
        ("compute", "base_model_digest", "compute.base_model_digest"),
        ("compute", "tokenizer_digest", "compute.tokenizer_digest"),
        ("safety", "policy_digest", "safety.policy_digest"),
        ("safety", "bypass_reason", "safety.bypass_reason"),
        ("seeds", "run", "seeds.run"),
        ("versions", "torch", "versions.torch"),
        ("platform", "python", "platform.python"),
        (None, "config_digest", "config_digest"),
        (None, "run_id", "run_id"),
        (None, "started", "started"),
    ],
)
def test_verify_recorded_value_changed_in_provenance_is_named(workspace, section, key, expected) -> None:
    """A forged digest, seed or version in provenance.json disagrees with the world, and the file with its manifest."""
    forged = bytes_digest(b"forged")

    def forge(value: dict[str, Any]) -> None:
        (value if section is None else value[section])[key] = forged

    edit(run_in(workspace).provenance, forge)
    found = failing(verify(workspace))
    assert {expected, "run_manifest.json.files.provenance.json"} <= set(found)
    assert forged in (found[expected].recorded, found[expected].found)


def test_verify_changed_record_of_the_run_is_named(workspace) -> None:
    """A run that calls itself something else than it did disagrees with its manifest and its provenance."""
    edit(run_in(workspace).record, lambda value: value.update(started="2020-01-01T00:00:00Z", status="KILLED"))
    found = failing(verify(workspace))
    assert {"started", "run_manifest.json.status", "run_manifest.json.files.run.json"} <= set(found)


def test_verify_unknown_value_in_provenance_is_not_passed_over(workspace) -> None:
    """What a later version might record is said to be unchecked."""
    edit(run_in(workspace).provenance, lambda value: value.update(colour={"shade": "green"}))
    assert failing(verify(workspace))["colour.shade"].state == "unchecked"


def test_verify_everything_forged_alike_differs_from_the_digest_kept_elsewhere(workspace) -> None:
    """Who can write can make all files agree, but not with the digest of the run manifest that was kept apart."""
    run = run_in(workspace)
    kept = verify(workspace).manifest_digest
    run.metrics.write_bytes(run.metrics.read_bytes().replace(b'"step": 4', b'"step": 5'))
    entry = {"sha256": file_digest(run.metrics), "bytes": run.metrics.stat().st_size}
    edit(run.directory / "run_manifest.json", lambda value: value["files"].update({"metrics.ndjson": entry}))
    assert failing(verify(workspace)) == {}
    found = failing(verify(workspace, expected_digest=kept))
    assert set(found) == {"run manifest"}
    assert found["run manifest"].recorded == kept


def test_verify_moved_inputs_are_unchecked_until_named(workspace) -> None:
    """A base, data or policy that is nowhere is said, with the option that names it; named, all agrees again."""
    elsewhere = workspace / "elsewhere"
    elsewhere.mkdir()
    for name in ("base", "records.jsonl", "policy.yaml"):
        shutil.move(workspace / name, elsewhere / name)
    found = failing(verify(workspace))
    assert {check.state for check in found.values()} == {"unchecked"}
    options = {"base_model": "--model", "data.splits.train.source": "--data", "safety.policy_digest": "--policy"}
    for key, option in options.items():
        assert option in found[key].note
    moved = Moved(elsewhere / "base", None, elsewhere / "policy.yaml", {"path": elsewhere / "records.jsonl"})
    assert failing(verify(workspace, moved=moved)) == {}
    assert failing(verify(workspace, "base_model", "compute", "data", "safety")) == {}


@pytest.mark.parametrize("name", ["provenance.json", "data_splits.json", "data_account.json", "run_manifest.json"])
@pytest.mark.parametrize("content", [b"[" * 100_000, b"[]", b"{}", b'{"splits": 1, "files": 1}', b"\xff", b""])
def test_verify_damaged_file_of_the_run_is_said_and_no_internal_error(workspace, name, content) -> None:
    """Whatever stands where an object should: a line of the report, and the rest is still looked at."""
    (run_in(workspace).directory / name).write_bytes(content)
    verification = verify(workspace)
    assert not verification.passed
    assert any(check.key == "checkpoints/step-00000004" for check in verification.checks)


def test_verify_control_characters_of_a_stranger_are_written_out(workspace) -> None:
    """A value that would move the cursor or clear the screen is shown, not obeyed."""
    edit(run_in(workspace).provenance, lambda value: value["versions"].update(torch="\x1b[2J" + "9" * 10_000))
    (line,) = [check.line() for check in verify(workspace).failing() if check.key == "versions.torch"]
    assert "\x1b" not in line
    assert r"\x1b[2J9" in line
    assert len(line) < 500


def test_verify_links_and_names_that_lead_out_are_refused(workspace) -> None:
    """A manifest from a stranger reads nothing outside the run, and a link stands for no file."""
    run = run_in(workspace)
    secret = workspace / "secret.txt"
    secret.write_text("secret")
    entry = {"sha256": file_digest(secret), "bytes": 6}
    edit(
        run.directory / "run_manifest.json",
        lambda value: value["files"].update({"../../secret.txt": entry, str(secret): entry}),
    )
    run.metrics.rename(workspace / "metrics.ndjson")
    run.metrics.symlink_to(workspace / "metrics.ndjson")
    found = failing(verify(workspace))
    for name in ("../../secret.txt", str(secret)):
        assert found[f"run_manifest.json.files.{name}"].note == "the name leads out of the run"
    assert found["run_manifest.json.files.metrics.ndjson"].state == "missing"


def test_verify_other_code_and_libraries_differ_and_can_be_allowed(workspace, tmp_path) -> None:
    """An upgrade is a difference like any other; who knows of it excuses it by name."""
    (tmp_path / "package").mkdir()
    other = ProvenanceDependencies(
        version=lambda name: "9.9" if name == "torch" else None,
        git=lambda *_: None,
        package_directory=tmp_path / "package",
    )
    dependencies = VerifyDependencies(environment=other)
    verification = verify_run(run_in(workspace), dependencies=dependencies).verification
    found = failing(verification)
    assert found["versions.torch"].found == "9.9"
    assert "code.source_digest" in found
    with pytest.raises(UserError, match="fails its verification") as caught:
        require_passed(verification)
    assert "--allow versions,code" in caught.value.fix
    allowed = verify_run(run_in(workspace), allowed=["versions", "code"], dependencies=dependencies).verification
    assert allowed.passed
    assert any(line.startswith("≠ versions.torch") and line.endswith("(allowed)") for line in allowed.lines())
    with pytest.raises(UserError, match="nothing of that name"):
        verify_run(run_in(workspace), allowed=["version"], dependencies=dependencies)


def test_verify_run_at_work_or_no_training_run_is_refused(workspace) -> None:
    """What still changes is not verified, and a directory of an evaluation has nothing to hold against."""
    run = run_in(workspace)
    with hold_lock(run.lock), pytest.raises(UserError, match="in progress"):
        verify_run(run)
    run.provenance.unlink()
    run.config.unlink()
    with pytest.raises(UserError, match="not a training run"):
        verify_run(run)


def test_verify_command_line_exit_codes_json_and_no_torch(workspace, command_line) -> None:
    """Exit 0 with the report on stdout; 2 with the report and one error block when something differs."""
    good = command_line.run("runs", "verify", "latest", "--allow", "code", "--json", directory=workspace)
    assert good.returncode == 0, good.stderr
    report = json.loads(good.stdout)
    assert report["passed"]
    assert report["counts"]["missing"] == report["counts"]["unchecked"] == 0
    flip(workspace / "base" / "model.safetensors")
    name = run_in(workspace).directory.name
    bad = command_line.run("runs", "verify", name, "--allow", "code", directory=workspace)
    assert bad.returncode == 2
    assert "✗ base_model.files.model.safetensors: recorded sha256:" in bad.stdout
    assert bad.stderr.startswith("error: the run ")
    assert "Traceback" not in bad.stderr


def test_verify_extra_chat_template_added_after_the_run_is_named(workspace) -> None:
    """It would replace the template of the model: both digests and the file list differ."""
    templates = workspace / "base" / "additional_chat_templates"
    templates.mkdir()
    (templates / "default.jinja").write_text("changed")
    keys = set(failing(verify(workspace)))
    name = "additional_chat_templates/default.jinja"
    assert {f"base_model.files.{name}", "base_model.digest", "compute.extra_tokenizer_digest"} <= keys


def test_verify_base_model_with_a_link_that_leads_out_is_not_read(workspace) -> None:
    """Verification does not digest files that it cannot read safely, and reports them as unchecked."""
    (workspace / "base" / "tokenizer.model").symlink_to("/proc/self/environ")
    check = failing(verify(workspace))["base_model"]
    assert check.state == "unchecked"
    assert "leads out" in check.note
