"""Data from the cache and data from scratch: nobody can tell which is which, and no change of anything goes unseen."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from codex_ml.config.schema.data import DataSection
from codex_ml.data.accounting import rejects_ndjson
from codex_ml.data.dataset import Dataset, build_dataset
from codex_ml.data.storage.cache import TokenCache
from codex_ml.data.storage.cached_dataset import CacheUse
from codex_ml.errors import DataError, SafetyError
from codex_ml.io.atomic import Storage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Write = Callable[..., Path]
MADE_BY = {"tokenizer": "t", "safety_policy": "p", "safety_enabled": True}


class _Start:
    """Starts of one run: builds, with what was found, what was said, and how often the filters were asked."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, filter_text: Callable[[str], Any], directory: Path) -> None:
        self.tokenizer = tokenizer
        self.filter_text = filter_text
        self.directory = directory
        self.findings: list[Any] = []
        self.said: list[str] = []
        self.filtered = 0

    def __call__(
        self,
        cached: bool = True,
        splits: tuple[str, ...] = ("train", "valid", "test"),
        storage: Storage | None = Storage(),  # noqa: B008 - it holds nothing
        **section: Any,
    ) -> Dataset:
        self.findings, self.said, self.filtered = [], [], 0
        cache = TokenCache(self.directory, storage)
        use = CacheUse(cache, MADE_BY, storage is not None, self.said.append) if cached else None
        data = DataSection(**{"cache_min_bytes": 0, **section})
        return build_dataset(
            data, self.tokenizer, self._filter, lambda *found: self.findings.append(found), splits, use
        )

    def _filter(self, text: str) -> Any:
        self.filtered += 1
        return self.filter_text(text)

    def entries(self) -> list[str]:
        return sorted(item.name for item in self.directory.iterdir()) if self.directory.is_dir() else []


@pytest.fixture
def start(
    make_tokenizer: Callable[..., PreTrainedTokenizerFast],
    chat_templates: dict[str, str],
    word_filter: Any,
    tmp_path: Path,
) -> _Start:
    """Return what starts runs whose cache lies in one directory."""
    tokenizer = make_tokenizer(chat_template="{{ strftime_now('%d %b %Y') }}" + chat_templates["plain"])
    return _Start(tokenizer, word_filter, tmp_path / "runs" / "cache")


def _pairs(count: int, prefix: str = "How many") -> list[dict[str, Any]]:
    return [{"prompt": f"{prefix} {number % 37}? ", "completion": f"{number} cups"} for number in range(count)]


def _awkward(write: Write) -> Path:
    """Return a file with findings, dropped, cut and faulty lines, duplicates, and keys that nobody reads."""
    rows = _pairs(200)
    rows[3] |= {"prompt": "a REDACTME b REDACTME"}
    rows[5] |= {"completion": "REDACTME é\u2028"}
    rows[7] |= {"completion": "DROPME"}
    rows[9] |= {"prompt": "long " * 50}
    rows[11] |= {"extra": 1}
    rows[12] = rows[13] = rows[14]
    lines = [json.dumps(row, ensure_ascii=False).encode() for row in rows]
    return write(b"\n\n".join([*lines, b'{"broken', b"\xff"]) + b"\n", "awkward.jsonl")


def _conversations(write: Write) -> Path:
    turns = [[("user", f"hi {n} REDACTME"), ("assistant", f"REDACTME {n}"), ("user", "x")] for n in range(60)]
    rows = [{"messages": [{"role": role, "content": text} for role, text in chat]} for chat in turns]
    return write(rows, "chat.jsonl")


def _texts(write: Write) -> Path:
    return write([{"text": f"REDACTME {number}"} for number in range(60)], "text.jsonl")


LENIENT = {"on_bad_record": "drop", "max_bad_share": 0.5, "max_length_tokens": 60}


def _assert_same(one: Dataset, other: Dataset) -> None:
    assert one.splits == other.splits
    assert [list(records) for records in one.splits.values()] == [list(records) for records in other.splits.values()]
    assert list(one.splits) == list(other.splits)
    assert one.account == other.account
    assert one.account.to_dict() == other.account.to_dict()
    assert one.account.lines() == other.account.lines()
    assert json.dumps(one.manifest) == json.dumps(other.manifest)
    assert one.warnings == other.warnings
    assert rejects_ndjson(one.rejects) == rejects_ndjson(other.rejects)


@pytest.mark.parametrize("exact_sizes", [False, True])
@pytest.mark.parametrize("make", [_awkward, _conversations, _texts])
def test_through_cache_second_start_is_the_first_in_everything(
    start: _Start, write_jsonl: Write, make: Callable[[Write], Path], exact_sizes: bool
) -> None:
    """Records, account, manifest, warnings, findings in order, rejected lines; the filters are not asked again."""
    section = {
        "path": make(write_jsonl),
        "split": {"ratios": [0.6, 0.2, 0.2], "exact_sizes": exact_sizes},
        "on_overlong": "truncate_prompt_left",
        **LENIENT,
    }
    scratch = start(cached=False, **section)
    expected = start.findings
    assert start.said == []
    first = start(**section)
    assert start.findings == expected != []
    assert "kept for the next start" in start.said[-1]
    assert start.filtered >= 60
    second = start(**section)
    assert start.findings == expected
    assert ["taken from the cache" in line for line in start.said] == [True]
    assert start.filtered == 0
    for dataset in (first, second):
        _assert_same(dataset, scratch)
    assert len(start.entries()) == 1


def test_through_cache_files_of_their_own_and_shared_records(start: _Start, write_jsonl: Write) -> None:
    """Overlap with train is the same number from the cache, by bytes and by prompt."""
    section = {
        "train": write_jsonl(_pairs(40), "a.jsonl"),
        "valid": write_jsonl([*_pairs(5), {"prompt": "How many 7? ", "completion": "new"}], "b.jsonl"),
        "test": write_jsonl(_pairs(3, "Who has"), "c.jsonl"),
        "max_overlap_share": 0.9,
    }
    scratch = start(cached=False, **section)
    for _ in range(2):
        _assert_same(start(**section), scratch)
    splits = scratch.manifest["splits"]
    assert [splits[name]["overlap_with_train"] for name in ("valid", "test")] == [5, 0]
    assert [splits[name]["prompts_shared_with_train"] for name in ("valid", "test")] == [6, 0]
    assert "overlap_with_train" not in splits["train"]


def test_through_cache_several_files_with_weights_are_the_same(start: _Start, write_jsonl: Write) -> None:
    """Parts, repetitions and what was left out come from the cache as from scratch; another weight is another entry."""
    section = {
        "files": {"a": _awkward(write_jsonl), "b": _conversations(write_jsonl)},
        "weights": {"a": 1.5, "b": 0.5},
        "on_overlong": "drop",
        **LENIENT,
    }
    scratch = start(cached=False, **section)
    for _ in range(2):
        _assert_same(start(**section), scratch)
    assert start.filtered == 0
    start(**{**section, "weights": {"a": 2.0}})
    assert start.filtered > 0


def test_through_cache_entry_of_all_splits_serves_one(start: _Start, write_jsonl: Write) -> None:
    """An evaluation takes what training left, and sees what it would have built."""
    section = {"path": _awkward(write_jsonl), "on_overlong": "drop", **LENIENT}
    start(**section)
    scratch = start(cached=False, splits=("test",), **section)
    expected = start.findings
    _assert_same(start(splits=("test",), **section), scratch)
    assert start.findings == expected
    assert start.filtered == 0
    assert len(start.entries()) == 1
    # The other way round nothing can be taken.
    shutil.rmtree(start.directory)
    _assert_same(start(splits=("test",), **section), scratch)
    assert len(start(**section).splits) == 3
    assert start.filtered > 0


def test_through_cache_small_files_are_not_cached(start: _Start, write_jsonl: Write) -> None:
    """Below `data.cache_min_bytes` nothing is written and nothing said; all files count together."""
    one, two = write_jsonl(_pairs(30), "a.jsonl"), write_jsonl(_pairs(10, "Who"), "b.jsonl")
    size = one.stat().st_size + two.stat().st_size
    start(train=one, test=two, cache_min_bytes=size + 1)
    assert (start.said, start.entries()) == ([], [])
    start(train=one, test=two, cache_min_bytes=size)
    assert len(start.entries()) == 1


def test_through_cache_dry_run_uses_what_is_there_and_writes_nothing(start: _Start, write_jsonl: Write) -> None:
    """No directory, no entry, no mark of use; and a damaged entry stays for the next run."""
    section = {"train": write_jsonl(_pairs(30))}
    start(storage=None, **section)
    assert not start.directory.parent.exists()
    start(**section)
    (mark,) = start.directory.glob("*/entry.json")
    os.utime(mark, (1, 1))
    before = _tree(start.directory)
    start(storage=None, **section)
    assert start.filtered == 0
    assert _tree(start.directory) == before
    start(**section)
    assert mark.stat().st_mtime > 1
    tokens = next(start.directory.glob("*/train.tokens"))
    tokens.write_bytes(b"\0" + tokens.read_bytes()[1:])
    damaged = _tree(start.directory)
    assert damaged != before
    start(storage=None, **section)
    assert start.filtered > 0
    assert _tree(start.directory) == damaged


def _tree(directory: Path) -> dict[str, Any]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in [directory, *sorted(directory.rglob("*"))]
    }


def test_through_cache_damaged_entry_is_said_and_built_again(start: _Start, write_jsonl: Write) -> None:
    """A byte that changed in any file is no reason to stop, and never trained on."""
    section = {"path": _awkward(write_jsonl), "on_overlong": "drop", **LENIENT}
    scratch = start(**section)
    for file in sorted(start.directory.glob("*/*")):
        content = bytearray(file.read_bytes())
        if not content:
            continue
        content[len(content) // 2] ^= 4
        file.write_bytes(content)
        _assert_same(start(**section), scratch)
        assert "are damaged and not used" in start.said[0], file.name
        assert "kept for the next start" in start.said[1]
        _assert_same(start(**section), scratch)
        assert start.filtered == 0


def test_through_cache_directory_of_others_is_not_used(start: _Start, write_jsonl: Write) -> None:
    """The run goes on in memory and says why."""
    section = {"train": write_jsonl(_pairs(30))}
    scratch = start(**section)
    start.directory.chmod(0o777)
    _assert_same(start(**section), scratch)
    assert "another user" in start.said[0]
    assert start.filtered > 0


class _FailingDisk(Storage):
    """A disk that is full from an operation on."""

    def __init__(self, operation: int) -> None:
        self.left = operation

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def open_file(self, path: Path, flags: int) -> int:
        self._count()
        return super().open_file(path, flags)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        self._count()
        return super().write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        self._count()
        super().fsync(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        self._count()
        super().replace(source, target)

    def make_one_directory(self, path: Path) -> None:
        self._count()
        super().make_one_directory(path)


def test_through_cache_disk_that_is_full_at_any_operation_ends_no_run(start: _Start, write_jsonl: Write) -> None:
    """The records are those of a run without a cache, findings come once, and it is said."""
    section = {"path": _awkward(write_jsonl), "on_overlong": "drop", **LENIENT}
    scratch = start(cached=False, **section)
    expected = start.findings
    for operation in range(200):
        shutil.rmtree(start.directory, ignore_errors=True)
        _assert_same(start(storage=_FailingDisk(operation), **section), scratch)
        assert start.findings == expected
        if "kept for the next start" in start.said[0]:
            break
        assert "not cached" in start.said[0]
        assert "No space left on device" in start.said[0]
        assert "continues without" in start.said[0]
    assert operation > 40


class _SmallDisk(Storage):
    """A disk with a given number of free bytes."""

    def __init__(self, free: int) -> None:
        self._free = free

    def free_bytes(self, path: Path) -> int:
        return self._free if path.exists() else 0


def test_through_cache_room_is_left_for_the_checkpoints(start: _Start, write_jsonl: Write) -> None:
    """Eight times the files and a gigabyte must be free; one byte less, and nothing is written."""
    path = write_jsonl(_pairs(30))
    needed = 8 * path.stat().st_size + 2**30
    start(storage=_SmallDisk(needed - 1), train=path)
    assert f"it is kept only where {needed:,} are" in start.said[0]
    assert not start.directory.parent.exists()
    start(storage=_SmallDisk(needed), train=path)
    assert len(start.entries()) == 1


def test_through_cache_data_that_are_refused_leave_nothing(start: _Start, write_jsonl: Write) -> None:
    """Every hard stop comes again at the second start, in the same words, and no directory is made."""
    bad = [{"prompt": "x", "completion": "DROPME"}] * 10
    cases: list[tuple[type[Exception], dict[str, Any]]] = [
        (DataError, {"train": write_jsonl([*_pairs(30), {"prompt": "x"}], "a.jsonl")}),
        (DataError, {"train": write_jsonl([*_pairs(30), *bad], "b.jsonl")}),
        (DataError, {"train": write_jsonl(_pairs(30), "c.jsonl"), "max_length_tokens": 4}),
        (DataError, {"train": Path("absent.jsonl")}),
        (SafetyError, {"train": write_jsonl([*_pairs(3), {"prompt": "BLOCKME", "completion": "x"}], "d.jsonl")}),
    ]
    for kind, section in cases:
        words = set()
        for cached in (False, True, True):
            with pytest.raises(kind) as caught:
                start(cached=cached, **section)
            words.add(caught.value.block())  # type: ignore[attr-defined]
            assert start.findings == []
        assert len(words) == 1
        assert not start.directory.parent.exists()


def test_through_cache_file_replaced_meanwhile_is_not_kept(start: _Start, write_jsonl: Write) -> None:
    """What was digested and what was read must be the same file."""
    path = write_jsonl(_pairs(30))
    plain = start.filter_text

    def replace(text: str) -> Any:
        if start.filtered == 1:
            shutil.copy2(path, path.with_name("copy"))
            os.replace(path.with_name("copy"), path)
        return plain(text)

    start.filter_text = replace
    assert len(start(train=path).splits["train"]) == 30
    assert start.entries() == []
