"""`codex-ml data redact` as a user runs it: real data, no network, packed files, large files in constant memory."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from codex_ml.data.readers.registry import open_records
from codex_ml.safety.filters import SafetyFilters
from codex_ml.safety.policy import load_policy

pytestmark = [pytest.mark.slow, pytest.mark.safety]
ADDRESS = "somebody@corp-mail.org"


def _redact(command_line, directory: Path, source: Path | str, output: str, *arguments: str) -> dict[str, Any]:
    answer = command_line.run(
        "data", "redact", "--input", str(source), "--output", output, "--json", *arguments, directory=directory
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    return json.loads(answer.stdout)


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1]


def _changed_strings(before: Any, after: Any, path: str = "") -> list[tuple[str, str, str]]:
    """Return the strings in which two JSON values differ; nothing else may differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        assert list(before) == list(after)
        return [item for key in before for item in _changed_strings(before[key], after[key], f"{path}.{key}")]
    if isinstance(before, list) and isinstance(after, list):
        assert len(before) == len(after)
        pairs = zip(before, after, strict=True)
        return [item for one, other in pairs for item in _changed_strings(one, other, f"{path}[]")]
    if before == after:
        return []
    assert isinstance(before, str)
    return [(path.removeprefix("."), before, after)]


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name",
    [
        "chat_toolcall/messages.jsonl",
        "gsm8k/test.jsonl",
        "wwdc25_prompt_completion/valid.jsonl",
        "self_instruct/seed_tasks.jsonl",
    ],
)
def test_data_redact_real_set_keeps_every_row_and_changes_strings_with_findings_alone(
    isolated_command_line, tmp_path: Path, real_data: Path, name: str
) -> None:
    """Rows and order stay; a row without a finding is the same bytes, another differs in what was found alone."""
    source = real_data / name
    filters = SafetyFilters(load_policy("default"))
    report = _redact(isolated_command_line, tmp_path, source, "out/y.jsonl", "--report", "out/r.json")
    before, after = _lines(source), _lines(tmp_path / "out" / "y.jsonl")
    assert len(before) == len(after) == report["rows"]["read"] == report["rows"]["kept"]
    changed = 0
    for old, new in zip(before, after, strict=True):
        differences = _changed_strings(json.loads(old), json.loads(new))
        assert (old == new) == (not differences)
        changed += bool(differences)
        for path, text, redacted in differences:
            assert redacted == filters.redact(text)
            assert path in report["findings_by_field"]
    assert changed == report["rows"]["changed"]
    assert report["input"]["digest"] == f"sha256:{hashlib.sha256(source.read_bytes()).hexdigest()}"
    written = (tmp_path / "out" / "y.jsonl").read_bytes()
    assert report["output"] == {
        "name": "y.jsonl",
        "digest": f"sha256:{hashlib.sha256(written).hexdigest()}",
        "bytes": len(written),
    }
    stored = json.loads((tmp_path / "out" / "r.json").read_bytes())
    assert {key: report[key] for key in stored} == stored
    assert sorted(item.name for item in (tmp_path / "out").iterdir()) == ["r.json", "y.jsonl"]
    again = _redact(isolated_command_line, tmp_path, "out/y.jsonl", "again.jsonl")
    assert again["rows"]["changed"] == 0
    assert (tmp_path / "again.jsonl").read_bytes() == written


@pytest.mark.real_data
def test_data_redact_chats_lose_their_addresses_and_the_report_shows_none(
    command_line, tmp_path: Path, real_data: Path
) -> None:
    """The addresses in the tool calls of 300 chats: found in the content of turns, gone from output and report."""
    source = real_data / "chat_toolcall" / "messages.jsonl"
    report = _redact(command_line, tmp_path, source, "y.jsonl", "--report", "r.json")
    assert report["rows"] | {"changed": None} == {"read": 300, "kept": 300, "changed": None, "dropped": 0}
    assert report["findings_by_rule"]["email"] >= 20
    assert set(report["findings_by_field"]) == {"messages[].content"}
    # Example domains stay where a policy says so; whatever else has the shape of an address is gone.
    content = (tmp_path / "y.jsonl").read_bytes()
    assert content.count(b"[REDACTED:email]") == report["findings_by_rule"]["email"]
    for place in report["findings"]:
        turns = json.loads(_lines(source)[place["line"] - 1])["messages"]
        text = turns[int(place["field"].partition("[")[2].partition("]")[0])]["content"]
        found = text[place["offset"] : place["offset"] + place["length"]]
        if place["rule"] == "email":
            assert "@" in found
            assert found not in (tmp_path / "r.json").read_text("utf-8")


@pytest.mark.parametrize("ending", [".jsonl", ".ndjson", ".jsonl.gz", ".jsonl.zst"])
def test_data_redact_any_packing_to_any_other_holds_the_same(command_line, tmp_path: Path, ending: str) -> None:
    """What comes out is decided by the name of the output; the content is that of a plain file."""
    content = b'\xef\xbb\xbf{"a" : "%s", "b":1.50}\r\n\r\n{"a":"\\u00e9"}' % ADDRESS.encode()
    pack: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}
    source = tmp_path / f"x{ending}"
    source.write_bytes(pack.get(source.suffix, bytes)(content))
    wanted = content.replace(ADDRESS.encode(), b"[REDACTED:email]")
    for output in ("plain.jsonl", "packed.jsonl.gz", "packed.jsonl.zst"):
        report = _redact(command_line, tmp_path, source.name, output)
        assert report["rows"] == {"read": 2, "kept": 2, "changed": 1, "dropped": 0}
        assert report["output"]["bytes"] == (tmp_path / output).stat().st_size
        assert [raw for _, _, raw, _ in open_records(tmp_path / output).raw_lines()] == [
            b'{"a" : "[REDACTED:email]", "b":1.50}',
            b'{"a":"\\u00e9"}',
        ]
    assert (tmp_path / "plain.jsonl").read_bytes() == wanted
    assert gzip.decompress((tmp_path / "packed.jsonl.gz").read_bytes()) == wanted


def test_data_redact_table_becomes_lines_of_json(command_line, tmp_path: Path) -> None:
    """One line a row, every cell a string, redacted; the table itself is only read."""
    (tmp_path / "x.csv").write_text(f"prompt,completion\nwrite to {ADDRESS},007\n", encoding="utf-8")
    _redact(command_line, tmp_path, "x.csv", "y.jsonl")
    assert json.loads((tmp_path / "y.jsonl").read_bytes()) == {
        "prompt": "write to [REDACTED:email]",
        "completion": "007",
    }


def test_data_redact_large_file_takes_no_more_memory_than_a_small_one(command_line, tmp_path: Path) -> None:
    """A hundred times the rows, and blank lines by the million: the same peak within a few megabytes."""
    row = json.dumps({"text": "word " * 100 + ADDRESS, "id": "%07d"}).encode() + b"\n"
    peaks = []
    for name, count in (("small", 600), ("large", 60_000)):
        with (tmp_path / f"{name}.jsonl").open("wb") as handle:
            for number in range(count):
                handle.write(row % number)
                if number % 1000 == 0:
                    handle.write(b"\n" * (count // 2))
        command = command_line.command("data", "redact", "--input", f"{name}.jsonl", "--output", f"{name}-out.jsonl")
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        said = process.stderr.read()
        # The kernel's own figure for this one process, taken when it has ended.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stderr.close()
        assert process.returncode == 0, said
        peaks.append(usage.ru_maxrss)  # KiB
    assert (tmp_path / "large-out.jsonl").read_bytes().count(b"[REDACTED:email]") == 60_000
    assert (tmp_path / "large.jsonl").stat().st_size > 30 << 20
    assert peaks[1] - peaks[0] < 24 << 10
