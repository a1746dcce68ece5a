"""Untrusted tokenizers and templates, through the command line and the service: one error, and the service stays up."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
HARD_PROMPT = "a" * 40 + "b"
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
LOOP = (
    "{%- for m in messages -%}{%- if 'LOOP' in m['content'] -%}{%- for i in range(99999) -%}{%- for j in range(99999) "
    "-%}{%- for k in range(99999) -%}{%- endfor -%}{%- endfor -%}{%- endfor -%}{%- endif -%}"
    "<{{ m['content'] }}>{%- endfor -%}"
)


def _split(expression: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]}}


def _replaced(pattern: str) -> dict[str, Any]:
    return {"normalizer": {"type": "Replace", "pattern": {"String": pattern}, "content": "x"}}


def _mapped(content: bytes) -> dict[str, Any]:
    return {"normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(content).decode()}}


@pytest.fixture
def model(tiny_llama_directory: Path, tmp_path: Path) -> Path:
    """Return a copy of a valid model that the test may damage."""
    return Path(shutil.copytree(tiny_llama_directory, tmp_path / "model"))


def _spoil(model: Path, parts: dict[str, Any]) -> None:
    file = model / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **parts}), encoding="utf-8")


@pytest.mark.parametrize(
    "parts",
    [_split(r"(a+)+$|\w+|."), _split(r"(a|aa)+$|."), _replaced(""), _mapped(b"garbage"), _mapped(b"\4\0\0\0abcdabcd")],
    ids=["nested", "alternatives", "empty", "garbage-map", "short-map"],
)
def test_generate_with_a_tokenizer_that_panics_is_one_error(
    command_line, model: Path, tmp_path: Path, parts: dict[str, Any]
) -> None:
    """Exit code 2 and one error block, without output of Rust or Python."""
    _spoil(model, parts)
    answer = command_line.run("generate", "--model", str(model), "--prompt", HARD_PROMPT, directory=tmp_path)
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.startswith("error: model.path: the ")
    assert "tokenizer.json is refused" in answer.stderr
    for word in ("panicked", "Traceback", "stack backtrace", "internal error", HARD_PROMPT):
        assert word not in answer.stderr


def test_train_record_with_millions_of_spaces_is_named_by_line(command_line, model: Path, tmp_path: Path) -> None:
    """The expression of Llama 3 panics on it; a JSON Lines line may be this long, so text has its own limit."""
    _spoil(model, _split(LLAMA_3))
    rows = [{"text": f"sentence {number}"} for number in range(20)]
    rows[3] = {"text": " " * 12_000_000 + "x"}
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer = command_line.run(
        "train",
        f"model.path={model}",
        "data.path=data.jsonl",
        "training.max_steps=1",
        "data.on_overlong=drop",
        directory=tmp_path,
    )
    assert answer.returncode == 2, answer.stderr
    assert "data.jsonl:4" in answer.stderr
    assert "run of white space that is too long for a tokenizer (got 12000000 characters" in answer.stderr
    for word in ("panicked", "Traceback", " " * 100):
        assert word not in answer.stderr


def _post(port: int, path: str, fields: dict[str, Any]) -> int:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(fields).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_serve_template_without_end_leaves_the_service_responsive(command_line, model: Path, tmp_path: Path) -> None:
    """Chats that start the loop are refused, others are answered, and SIGTERM ends the service in time."""
    (model / "chat_template.jinja").write_text(LOOP)
    process = subprocess.Popen(
        command_line.command("serve", "serve.port=0", "--model", str(model)),
        cwd=tmp_path,
        env=dict(os.environ),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        port = 0
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"serving on http://.*:(\d+)", line):
                port = int(found.group(1))
                break
        chat = {"model": "base", "messages": [{"role": "user", "content": "LOOP"}], "max_tokens": 2}
        assert _post(port, "/v1/chat/completions", chat) == 400
        assert _post(port, "/v1/completions", {"model": "base", "prompt": "a", "max_tokens": 2}) == 200
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60) as answer:
            assert answer.status == 200
        # One more request is running when the service is asked to stop.
        last = threading.Thread(target=_post, args=(port, "/v1/chat/completions", chat), daemon=True)
        last.start()
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        # The timeout only guards against a hang; the default grace period is 30 seconds.
        assert process.wait(120) in (0, 143)
        last.join(60)
    finally:
        process.kill()
        process.wait()
