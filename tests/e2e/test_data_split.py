"""`codex-ml data split` as a user runs it: real sets without leaks, one result everywhere, whole or absent."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
NAMES = ("train", "valid", "test")


def _split(command_line, directory: Path, source: Path, out: str, *arguments: str, **environment: str) -> dict:
    answer = command_line.run(
        "data", "split", str(source), "--out", out, "--json", *arguments, directory=directory, **environment
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def _parts(directory: Path) -> list[list[bytes]]:
    return [(directory / f"{name}.jsonl").read_bytes().split(b"\n")[:-1] for name in NAMES]


def _assert_nothing_lost_nothing_shared(source: Path, parts: list[list[bytes]], field: str | None) -> None:
    content = source.read_bytes()
    assert Counter(line for part in parts for line in part) == Counter(line for line in content.split(b"\n") if line)
    seen = [{line if field is None else json.loads(line)[field] for line in part} for part in parts]
    assert sum(map(len, seen)) == len(set.union(*seen))


@pytest.mark.real_data
@pytest.mark.parametrize("exact_sizes", [False, True])
def test_data_split_wwdc25_duplicates_are_counted_and_stay_together(
    command_line, tmp_path: Path, real_data: Path, exact_sizes: bool
) -> None:
    """437 rows repeat another; split again, none of them stands in two files, and train and valid share no row."""
    folder = real_data / "wwdc25_prompt_completion"
    flags = ["--exact-sizes"] if exact_sizes else []
    report = _split(command_line, tmp_path, folder / "train.jsonl", "out", "--seed", "7", *flags)
    assert report["source"]["records"] == 1800
    assert report["duplicate_records"] == 437
    _assert_nothing_lost_nothing_shared(folder / "train.jsonl", _parts(tmp_path / "out"), None)
    both = tmp_path / "both.jsonl"
    given = [(folder / name).read_bytes() for name in ("train.jsonl", "valid.jsonl")]
    lines = [[line for line in content.split(b"\n") if line] for content in given]
    assert sum(line in set(lines[0]) for line in lines[1]) == 16
    both.write_bytes(b"".join(content if content.endswith(b"\n") else content + b"\n" for content in given))
    report = _split(command_line, tmp_path, both, "again", "--seed", "7", "--group-by", "prompt", *flags)
    assert report["source"]["records"] == 1944
    for field in (None, "prompt"):
        _assert_nothing_lost_nothing_shared(both, _parts(tmp_path / "again"), field)


@pytest.mark.real_data
def test_data_split_e2e_nlg_by_prompt_no_prompt_in_two_splits(command_line, tmp_path: Path, real_data: Path) -> None:
    """547 prompts in 4,672 rows: split by record nearly every prompt of test is in train too, by prompt none is."""
    source = real_data / "e2e_nlg" / "devset_prompt_completion.jsonl"
    report = _split(command_line, tmp_path, source, "by-prompt", "--seed", "7", "--group-by", "prompt")
    assert (report["source"]["records"], report["groups"], report["duplicate_records"]) == (4672, 547, 151)
    _assert_nothing_lost_nothing_shared(source, _parts(tmp_path / "by-prompt"), "prompt")
    _split(command_line, tmp_path, source, "by-record", "--seed", "7")
    train, _, test = _parts(tmp_path / "by-record")
    prompts = {json.loads(line)["prompt"] for line in train}
    assert sum(json.loads(line)["prompt"] in prompts for line in test) > 0.9 * len(test)


def test_data_split_anywhere_gives_the_same_bytes(isolated_command_line, tmp_path: Path) -> None:
    """Without a network, for any seed of Python's hashes, from another directory and under an awkward name."""
    source = tmp_path / "données (1), a=b.jsonl"
    rows = [{"messages": [{"role": "user", "content": f"é {number % 70}"}], "id": number} for number in range(300)]
    source.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    digests = []
    for hash_seed in ("0", "1"):
        directory = tmp_path / hash_seed
        directory.mkdir()
        report = _split(
            isolated_command_line, directory, source, "new/out", "--group-by", "prompt", PYTHONHASHSEED=hash_seed
        )
        digests.append([report["splits"][name]["digest"] for name in NAMES])
        assert [item.name for item in directory.iterdir()] == ["new"]
        assert [item.name for item in (directory / "new").iterdir()] == ["out"]
    assert digests[0] == digests[1]
    # Golden: another version of the program must not move records between train and test of its users.
    assert [report["splits"][name]["records"] for name in NAMES] == [252, 9, 39]


def test_data_split_killed_leaves_no_directory_and_runs_again(command_line, tmp_path: Path) -> None:
    """Killed while it works: no directory under the name; the next call makes the whole one and clears up."""
    source = tmp_path / "large.jsonl"
    line = json.dumps({"text": "word " * 200}).encode()[:-2]
    with source.open("wb") as handle:
        for number in range(120_000):
            handle.write(line + str(number).encode() + b'"}\n')
    process = command_line.start("data", "split", str(source), "--out", "out", directory=tmp_path)
    deadline = time.monotonic() + 240
    while not any(tmp_path.glob(".out.*.partial/made/train.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # The second process that checks lines ends with the first: nobody asks it any more.
    while any(Path("/proc", child).exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path("/proc", child).exists() for child in children)
    assert not (tmp_path / "out").exists()
    (left,) = tmp_path.glob(".out.*.partial")
    os.utime(left, (time.time() - 3600,) * 2)
    report = _split(command_line, tmp_path, source, "out")
    assert report["created"]
    assert sum(split["records"] for split in report["splits"].values()) == 120_000
    assert {item.name for item in tmp_path.iterdir()} == {"large.jsonl", "out"}


def test_data_split_interrupted_leaves_nothing(command_line, tmp_path: Path) -> None:
    """Ctrl-C: one line, exit code 130, no file that was not there before."""
    source = tmp_path / "large.jsonl"
    source.write_bytes(b"".join(b'{"text": "%0900d"}\n' % number for number in range(150_000)))
    process = command_line.start("data", "split", str(source), "--out", "new/out", directory=tmp_path)
    deadline = time.monotonic() + 240
    while not any(tmp_path.glob("new/.out.*.partial/made/train.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate()
    assert process.returncode == 130
    assert stdout == ""
    assert stderr.count("error:") == 1
    assert "Traceback" not in stderr
    assert [item.name for item in tmp_path.iterdir()] == ["large.jsonl"]
