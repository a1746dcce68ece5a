"""The main job as a user runs it, in an empty network namespace, and all that is left on disk."""

from __future__ import annotations

import json
import re
import shutil
import stat
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(isolated_command_line, tmp_path_factory, tiny_llama_directory, small_records):
    """Return (working directory, run directory) after one training and one evaluation of base and best."""
    directory = tmp_path_factory.mktemp("user")
    answer = isolated_command_line.run(
        "train",
        f"model.path={tiny_llama_directory}",
        f"data.path={small_records}",
        "run.name=first",
        "training.max_steps=12",
        "training.learning_rate=1e-2",
        "training.eval_steps=4",
        "training.save_steps=3",
        "logging.max_bytes=4096",
        directory=directory,
    )
    assert answer.returncode == 0, answer.stderr
    (run,) = (directory / "runs").iterdir()
    assert answer.stdout.rstrip().split("\n")[-1] == f"outputs: {run}"
    return directory, run


@pytest.fixture(scope="module")
def evaluated(isolated_command_line, trained):
    """Return what evaluate printed for base and best in one process, with the run's own config."""
    directory, run = trained
    answer = isolated_command_line.run(
        "evaluate", "--checkpoint", "base", "--checkpoint", "best", "eval.max_new_tokens=8", directory=directory
    )
    assert answer.returncode == 0, answer.stderr
    return answer, run


def test_train_leaves_every_file_of_the_design(trained):
    """The run directory holds the files of DESIGN.md, section 5, private to the user."""
    _, run = trained
    for name in ("run.json", "config.yaml", "provenance.json", "data_account.json", "data_splits.json", "debug.log"):
        assert (run / name).is_file(), name
    assert json.loads((run / "run.json").read_text())["status"] == "FINISHED"
    for path in [run, *run.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_train_retention_keeps_last_and_best(trained):
    """Two newest checkpoints and the best stay; both pointers name one that is there."""
    _, run = trained
    checkpoints = run / "checkpoints"
    kept = sorted(entry.name for entry in checkpoints.iterdir() if entry.is_dir())
    assert "step-00000012" in kept
    assert 2 <= len(kept) <= 3
    for pointer in ("latest", "best"):
        assert (checkpoints / (checkpoints / pointer).read_text().strip()).is_dir()


def test_train_ndjson_is_rotated_and_whole(trained):
    """With a tiny threshold metrics rotate; every line of every file parses and carries the schema's keys."""
    _, run = trained
    files = list(run.glob("metrics.ndjson*"))
    events = list(run.glob("events.ndjson*"))
    assert len(events) > 1
    for file in files + events:
        for line in file.read_bytes().split(b"\n")[:-1]:
            assert {"schema_version", "time", "run_id"} <= json.loads(line).keys()


def test_train_data_account_adds_up(trained):
    """Rows read are kept or dropped, positions computed are trained, masked or padding."""
    _, run = trained
    account = json.loads((run / "data_account.json").read_text())
    positions = account["run"]
    assert positions["positions_computed"] == positions["trained"] + positions["masked"] + positions["padding"]
    assert positions["trained"] > 0


def test_run_files_hold_no_absolute_path_of_the_machine(trained, tmp_path_factory):
    """Config, provenance and checkpoint name nothing by where this machine keeps it."""
    _, run = trained
    root = str(tmp_path_factory.getbasetemp())
    for file in run.rglob("*"):
        if file.is_file() and file.suffix != ".lock":
            assert root.encode() not in file.read_bytes(), file


def test_evaluate_prints_one_table_of_base_and_best(evaluated):
    """One process scores both, prints base beside tuned, and writes equal numbers to JSON and CSV."""
    answer, run = evaluated
    header = answer.stdout.split("\n")[0]
    assert re.search(r"metric\s*\|\s*base\s*\|\s*tuned \(step-\d{8}\)", header)
    for metric in ("bleu", "rouge_l", "f1", "exact_match", "loss", "perplexity"):
        assert metric in answer.stdout
    results = sorted(run.glob("eval/*/results.json"))
    assert len(results) == 2
    for file in results:
        values = json.loads(file.read_text())["metrics"]
        rows = (file.parent / "metrics.csv").read_text().split("\n")[1:-1]
        assert {row.split(",")[0]: float(row.split(",")[1]) for row in rows} == {
            name: metric["value"] for name, metric in values.items()
        }
        assert "BLEU" in values["bleu"]["signature"] or "nrefs" in values["bleu"]["signature"]
        assert (file.parent / "predictions.ndjson").is_file()
    debug_log = (run / "eval" / "debug.log").read_text()
    assert re.search(r"Z INFO codex_ml: evaluating \S+-\w+/step-\d{8} on \d+ records of test\n", debug_log)


def test_evaluate_changed_byte_in_checkpoint_is_refused(command_line, trained, tmp_path):
    """A checkpoint that fails its checksum is not evaluated; exit code 2."""
    directory, run = trained
    source = run / "checkpoints" / (run / "checkpoints" / "latest").read_text().strip()
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    weights = copy / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    answer = command_line.run("evaluate", "--checkpoint", str(copy), directory=directory)
    assert answer.returncode == 2
    assert "adapter_model.safetensors" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_checkpoint_moved_elsewhere_loads_with_plain_peft(trained, tmp_path, tiny_llama_directory):
    """`peft.PeftModel.from_pretrained` reads a moved checkpoint and gives the logits our own loader gives."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from codex_ml.peft.adapter_files import load_adapter

    _, run = trained
    source = run / "checkpoints" / (run / "checkpoints" / "latest").read_text().strip()
    moved = tmp_path / "elsewhere" / "adapter"
    shutil.copytree(source, moved)
    ids = torch.tensor([[5, 6, 7, 8, 9]])

    def base():
        return AutoModelForCausalLM.from_pretrained(tiny_llama_directory, local_files_only=True)

    with torch.no_grad():
        plain = PeftModel.from_pretrained(base(), str(moved)).eval()(input_ids=ids).logits
        ours = load_adapter(base(), source).eval()(input_ids=ids).logits
        untrained = base().eval()(input_ids=ids).logits
    assert torch.equal(plain, ours)
    assert not torch.allclose(plain, untrained)


def test_run_config_is_loadable_again(command_line, trained):
    """The run's own config.yaml composes again through --config-dir and --config-name."""
    directory, run = trained
    answer = command_line.run(
        "train", "--config-dir", str(run), "--config-name", "config", "--dry-run", directory=directory
    )
    assert answer.returncode == 0, answer.stderr
    assert "max_steps: 12" in answer.stdout
    assert Path(directory / "runs").is_dir()
