"""Attacks through the command line, as a stranger's files reach it: exit code 2, one block, and nothing written."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from codex_ml.io.terminal import visible


class _Canary:
    """Makes a directory when it is unpickled."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (os.mkdir, (str(self._directory),))


def _laughing_config(place: Path, model: Path, records: Path) -> list[str]:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    (place / "evil.yaml").write_text("\n".join(lines))
    return ["--config-dir", str(place), "--config-name", "evil", f"model.path={model}", f"data.path={records}"]


def _code_in_config(place: Path, model: Path, records: Path) -> list[str]:
    (place / "evil.yaml").write_text(
        f"model: {{path: {model}}}\ndata: {{path: {records}}}\nrun: {{name: !!python/object/apply:os.mkdir [canary]}}\n"
    )
    return ["--config-dir", str(place), "--config-name", "evil"]


def _escape_in_config(place: Path, model: Path, records: Path) -> list[str]:
    (place / "evil.yaml").write_text(f'"\\e[2J\\u202eevil": 1\nmodel: {{path: {model}}}\ndata: {{path: {records}}}\n')
    return ["--config-dir", str(place), "--config-name", "evil"]


def _huge_policy(place: Path, model: Path, records: Path) -> list[str]:
    rule = "  - {id: huge, kind: regex, description: d, patterns: ['x(?:(?:a{1,99}){1,99}){1,99}y']}\n"
    (place / "policy.yaml").write_text("version: 1\nrules:\n" + rule)
    return [f"model.path={model}", f"data.path={records}", f"safety.policy={place / 'policy.yaml'}"]


def _piped_data(place: Path, model: Path, _records: Path) -> list[str]:
    os.mkfifo(place / "data.jsonl")
    return [f"model.path={model}", f"data.path={place / 'data.jsonl'}"]


def _pickled_model(place: Path, model: Path, records: Path) -> list[str]:
    shutil.copytree(model, place / "model")
    (place / "model" / "pytorch_model.bin").write_bytes(pickle.dumps(_Canary(Path("canary"))))
    return [f"model.path={place / 'model'}", f"data.path={records}"]


def _model_with_code(place: Path, model: Path, records: Path) -> list[str]:
    shutil.copytree(model, place / "model")
    (place / "model" / "evil.py").write_text("import os\nos.mkdir('canary')\n")
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"}
    (place / "model" / "config.json").write_text(json.dumps(config))
    return [f"model.path={place / 'model'}", f"data.path={records}"]


def _absurd_model(place: Path, model: Path, records: Path) -> list[str]:
    shutil.copytree(model, place / "model")
    config = json.loads((model / "config.json").read_text())
    (place / "model" / "config.json").write_text(json.dumps({**config, "vocab_size": 2**31 - 1}))
    return [f"model.path={place / 'model'}", f"data.path={records}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (_laughing_config, "more than 10000 values"),
        (_code_in_config, "not valid YAML"),
        (_escape_in_config, "\\x1b[2J\\u202eevil"),
        (_huge_policy, "rule 'huge': pattern 1 is not a regular expression"),
        (_piped_data, "named pipe"),
        (_pickled_model, "pytorch_model.bin"),
        (_model_with_code, "never runs code"),
        (_absurd_model, "do not belong together"),
    ],
)
def test_attack_is_refused_with_one_block(command_line, tmp_path, tiny_llama_directory, small_records, prepare, words):
    """Exit code 2, one block that says what is wrong, no traceback, and nothing left behind."""
    place, working = tmp_path / "stranger", tmp_path / "here"
    place.mkdir()
    working.mkdir()
    arguments = prepare(place, tiny_llama_directory, small_records)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = command_line.run("train", *arguments, directory=working)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.count("error:") == 1
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr
    assert "\x1b" not in answer.stderr
    assert answer.stdout == ""
    assert list(working.iterdir()) == []
    assert after.ru_utime - before.ru_utime < 120.0
    assert after.ru_maxrss < 3 << 20  # KiB: what torch and transformers take, and no more than that


def test_visible_writes_out_what_a_terminal_would_obey():
    """Escape sequences, backspaces and marks that turn the direction of text; letters of all scripts stay."""
    assert visible("a\x1b[31mb\x08\u202ec\r\n\td\u2028é漢🙂") == "a\\x1b[31mb\\x08\\u202ec\\r\n\td\\u2028é漢🙂"
