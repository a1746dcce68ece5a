"""`codex-ml data cache`: shown, checked, and cleared of what it knows."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from codex_ml.data.storage.arrays import TokenArraysWriter
from codex_ml.data.storage.cache import ENTRY_NAME, TokenCache
from codex_ml.data.storage.listing import look_into

DAY_SECONDS = 86400
KEYS = ("a" * 64, "b" * 64)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return a cache with two entries, one of which was used ten days ago, beside a file of somebody's own."""
    directory = tmp_path / "runs" / ".token-cache"
    for key in KEYS:
        with TokenCache(directory).building(key) as builder:
            TokenArraysWriter(builder.sinks("train")).flush()
            builder.arrays("train", [])
            counts = {"records_kept": 12, "tokens_supervised": 1000, "tokens_masked": 234}
            body = {
                "file_names": {"train": []},
                "splits": {"train": {"account": counts}},
                "files": [{"name": f"{key[0]}.jsonl"}],
            }
            builder.publish(body, b"")
    ago = time.time() - 10 * DAY_SECONDS
    os.utime(directory / KEYS[1] / ENTRY_NAME, (ago, ago))
    (directory / "notes.txt").write_text("mine", "utf-8")
    return directory


def test_data_cache_list_says_size_age_and_source(cache: Path, command_line: Any) -> None:
    """For people and for machines; newest use first; what is not known is named."""
    answer = command_line.run("data", "cache", "list", directory=cache.parents[1])
    assert answer.returncode == 0
    first, second = answer.stdout.splitlines()
    assert first.startswith("aaaaaaaaaaaa")
    assert "0.0 days" in first
    assert "12 records, 1,234 tokens of a.jsonl" in first
    assert "10.0 days" in second
    assert "2 entries" in answer.stderr
    assert "never touched: notes.txt" in answer.stderr
    answer = command_line.run("data", "cache", "list", "--json", "--cache-dir", str(cache), directory=cache.parents[1])
    items = json.loads(answer.stdout)
    assert [(item["key"], item["state"], item["sources"], item["tokens"]) for item in items] == [
        (KEYS[0], "whole", ["a.jsonl"], 1234),
        (KEYS[1], "whole", ["b.jsonl"], 1234),
    ]
    size = sum(file.stat().st_size for file in (cache / KEYS[0]).iterdir())
    assert items[0]["bytes"] == size


def test_data_cache_verify_names_the_damaged_entry(cache: Path, command_line: Any) -> None:
    """Exit 2, which entry, which file; and a whole cache passes."""
    answer = command_line.run("data", "cache", "verify", directory=cache.parents[1])
    assert (answer.returncode, answer.stdout) == (0, "2 entries are what was written\n")
    (cache / KEYS[1] / "notes.ndjson").write_bytes(b"x")
    answer = command_line.run("data", "cache", "verify", directory=cache.parents[1])
    assert answer.returncode == 2
    assert "1 of 2 entries are damaged" in answer.stderr
    assert f"{KEYS[1]}: notes.ndjson: it has 1 bytes instead of 0" in answer.stderr


def test_data_cache_verify_counts_only_what_it_read(tmp_path: Path, command_line: Any) -> None:
    """What is unfinished is not read, so nothing is said of its bytes but that it is there."""
    (tmp_path / "runs" / ".token-cache" / f".{KEYS[0]}.00000000.partial").mkdir(parents=True)
    answer = command_line.run("data", "cache", "verify", directory=tmp_path)
    assert (answer.returncode, answer.stdout) == (0, "0 entries are what was written\n")
    assert "1 unfinished, not read" in answer.stderr


def test_data_cache_clear_deletes_entries_and_nothing_else(cache: Path, command_line: Any) -> None:
    """The old one first, then all; a file, a directory and a link that it does not know stay."""
    foreign = cache / ("c" * 64)
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine", "utf-8")
    (cache / ("d" * 64)).symlink_to(foreign)
    answer = command_line.run("data", "cache", "clear", "--older-than", "5", directory=cache.parents[1])
    assert answer.returncode == 0
    assert answer.stdout.startswith("deleted 1 entries")
    assert "1 stay" in answer.stderr
    assert [item.path.name for item in look_into(cache).items] == [KEYS[0]]
    answer = command_line.run("data", "cache", "clear", directory=cache.parents[1])
    assert answer.stdout.startswith("deleted 1 entries")
    assert sorted(item.name for item in cache.iterdir()) == ["c" * 64, "d" * 64, "notes.txt"]
    assert (foreign / "thesis.txt").is_file()


def test_data_cache_clear_directory_that_is_no_cache_is_refused(tmp_path: Path, command_line: Any) -> None:
    """A slip of the tongue deletes nothing; an absent cache is an empty one."""
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "one.txt").write_text("dear", "utf-8")
    for name in ("clear", "list", "verify"):
        answer = command_line.run("data", "cache", name, "--cache-dir", "letters", directory=tmp_path)
        assert answer.returncode == 2
        assert "is no token cache" in answer.stderr
        assert answer.stderr.count("error:") == 1
    assert (tmp_path / "letters" / "one.txt").is_file()
    answer = command_line.run("data", "cache", "clear", directory=tmp_path)
    assert (answer.returncode, answer.stdout) == (0, "deleted 0 entries, 0 bytes\n")
