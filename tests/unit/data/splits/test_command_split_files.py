"""Files divided into files: names, counts, digests, memory, disk, and the same membership as in training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from codex_ml.config.schema.data import DataSection
from codex_ml.data.readers.jsonl import JsonlFile, RawLine
from codex_ml.data.splits.command import SplitOptions, split_file
from codex_ml.errors import DataError, DiskSpaceError
from codex_ml.io.atomic import Storage

Write = Callable[..., Path]
Read = Callable[..., Any]
NAMES = ("train", "valid", "test")


def _options(**changed: Any) -> SplitOptions:
    return SplitOptions(**{"ratios": (0.6, 0.2, 0.2), "names": NAMES, **changed})


def _lines_of(directory: Path, names: Sequence[str] = NAMES) -> dict[str, list[bytes]]:
    return {name: (directory / f"{name}.jsonl").read_bytes().split(b"\n")[:-1] for name in names}


@pytest.mark.parametrize("exact_sizes", [False, True])
def test_split_file_report_and_manifest_count_what_is_there(
    write_jsonl: Write, tmp_path: Path, exact_sizes: bool
) -> None:
    """Counts, bytes and digests are those of the files; duplicates, groups and empty lines are counted."""
    rows = [json.dumps({"prompt": f"p{number % 30}", "completion": str(number % 150)}) for number in range(200)]
    path = write_jsonl(("\n\n".join(rows) + "\r\n  \n").encode())
    report = split_file(path, tmp_path / "out", _options(group_by="prompt", exact_sizes=exact_sizes, seed=3))
    manifest = json.loads((tmp_path / "out" / "split.json").read_bytes())
    assert manifest == report.manifest()
    assert report.created
    assert manifest["duplicate_records"] == 50
    assert manifest["groups"] == 30
    assert manifest["source"]["empty_lines"] == 200
    assert manifest["source"]["digest"] == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert sum(split["records"] for split in manifest["splits"].values()) == manifest["source"]["records"] == 200
    for name, split in manifest["splits"].items():
        content = (tmp_path / "out" / split["file"]).read_bytes()
        assert split["file"] == f"{name}.jsonl"
        assert split["bytes"] == len(content)
        assert split["records"] == content.count(b"\n")
        assert split["share"] == split["records"] / 200
        assert split["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.parametrize(
    ("ratios", "names"),
    [((0.5, 0.5), ("a", "b")), ((0.2,) * 5, ("v", "w", "x", "y-1", "z.2")), ((1, 0), ("all", "no"))],
)
def test_split_file_any_number_of_splits(
    write_jsonl: Write, tmp_path: Path, ratios: Sequence[float], names: Sequence[str]
) -> None:
    """Two or more splits of any name; a share of 0 gives an empty file."""
    path = write_jsonl([{"text": str(number)} for number in range(300)])
    for exact_sizes in (False, True):
        out = tmp_path / f"out{exact_sizes}"
        report = split_file(path, out, SplitOptions(ratios, names, exact_sizes=exact_sizes))
        assert sorted(item.name for item in out.iterdir()) == sorted(
            [*(f"{name}.jsonl" for name in names), "split.json"]
        )
        assert sum(len(lines) for lines in _lines_of(out, names).values()) == 300
        if exact_sizes:
            assert [part.records for part in report.parts] == [round(300 * ratio) for ratio in ratios]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("train", "train"), "named twice"),
        (("train", "Train"), "named twice"),
        (("train", "../test"), "cannot name a split"),
        (("train", ""), "cannot name a split"),
        (("train", ".hidden"), "cannot name a split"),
        (("train",), "two splits or more"),
        (("a", "b", "c"), "2 shares instead of 3"),
    ],
)
def test_split_options_wrong_names_are_refused(names: Sequence[str], reason: str) -> None:
    """A name becomes a file beside the others, whatever the filesystem thinks of capitals."""
    with pytest.raises(DataError, match=reason):
        SplitOptions((0.5, 0.5), names).check()


@pytest.mark.parametrize("exact_sizes", [False, True])
@pytest.mark.parametrize("group_by", [None, "prompt", "question", "meta.topic"])
def test_split_file_membership_is_that_of_training(
    read_sources: Read, write_jsonl: Write, tmp_path: Path, group_by: str | None, exact_sizes: bool
) -> None:
    """`codex-ml data split` and `data.split` in a config put every record into the same split."""
    rows = [
        {"question": f"q{number % 40}", "answer": str(number), "meta": {"topic": number % 25}} for number in range(200)
    ]
    path = write_jsonl(rows)
    columns = {"prompt": "question", "completion": "answer"}
    split = {"ratios": (0.6, 0.2, 0.2), "seed": 11, "group_by": group_by, "exact_sizes": exact_sizes}
    sources = read_sources(DataSection.model_validate({"path": path, "columns": columns, "split": split}))
    options = _options(seed=11, group_by=group_by, exact_sizes=exact_sizes, columns=columns)
    split_file(path, tmp_path / "out", options)
    trained = {name: [record.raw for record in records] for name, records in sources.records.items()}
    assert trained == _lines_of(tmp_path / "out")


def test_split_file_messages_grouped_by_prompt_membership_is_that_of_training(
    read_sources: Read, write_jsonl: Write, tmp_path: Path
) -> None:
    """Conversations too, where the prompt is all but the last answer; none stands in two splits."""
    rows = [
        {"messages": [{"role": "user", "content": f"u{n % 30}"}, {"role": "assistant", "content": f"a{n}"}]}
        for n in range(150)
    ]
    path = write_jsonl(rows)
    split = {"ratios": (0.6, 0.2, 0.2), "seed": 1, "group_by": "prompt"}
    sources = read_sources(DataSection.model_validate({"path": path, "split": split}))
    report = split_file(path, tmp_path / "out", _options(seed=1, group_by="prompt"))
    assert report.groups == 30
    written = _lines_of(tmp_path / "out")
    assert {name: [record.raw for record in records] for name, records in sources.records.items()} == written
    asked = [{json.loads(line)["messages"][0]["content"] for line in lines} for lines in written.values()]
    assert sum(map(len, asked)) == len(set.union(*asked)) == 30


class _SmallDisk(Storage):
    """A disk with a given number of free bytes."""

    def __init__(self, free: int) -> None:
        self._free = free

    def free_bytes(self, path: Path) -> int:
        return self._free if path.exists() else 0


def test_split_file_disk_too_small_is_refused_before_writing(write_jsonl: Write, tmp_path: Path) -> None:
    """The file once, with exact sizes twice, and a little to spare."""
    path = write_jsonl([{"text": str(number) * 1000} for number in range(1000)])
    size = path.stat().st_size
    for exact_sizes, needed in ((False, size), (True, 2 * size)):
        options = _options(exact_sizes=exact_sizes)
        with pytest.raises(DiskSpaceError, match="too small"):
            split_file(path, tmp_path / "out", options, _SmallDisk(needed))
        assert [item.name for item in tmp_path.iterdir()] == ["data.jsonl"]
        split_file(path, tmp_path / f"out{exact_sizes}", options, _SmallDisk(needed + (1 << 20)))
        (tmp_path / f"out{exact_sizes}").rename(tmp_path.parent / f"{tmp_path.name}-{exact_sizes}")


class _ChangedMeanwhile(JsonlFile):
    """A file that another program writes to while it is read; the reader itself sees the old content."""

    def raw_lines(self) -> Iterator[RawLine]:
        yield from super().raw_lines()
        with self.path.open("ab") as handle:
            handle.write(b'{"text": "late"}\n')


@pytest.mark.parametrize("exact_sizes", [False, True])
def test_split_file_source_that_changes_meanwhile_is_refused(
    write_jsonl: Write, tmp_path: Path, exact_sizes: bool
) -> None:
    """The digest in the manifest is that of a file that exists."""
    path = write_jsonl([{"text": str(number)} for number in range(100)])
    with pytest.raises(DataError, match="changed while it was split"):
        split_file(path, tmp_path / "out", _options(exact_sizes=exact_sizes), open_lines=_ChangedMeanwhile)
    assert [item.name for item in tmp_path.iterdir()] == ["data.jsonl"]


def test_split_file_other_reader_gives_the_lines(write_jsonl: Write, tmp_path: Path) -> None:
    """A reader of another kind of file needs to be named only; the lines come out as it gives them."""

    class Repeated(JsonlFile):
        """Gives every record of the file ten times."""

        def raw_lines(self) -> Iterator[RawLine]:
            for number, offset, raw, _ in super().raw_lines():
                assert isinstance(raw, bytes)
                for spaces in range(10):
                    yield number, offset, raw + b" " * spaces, b""

    path = write_jsonl([{"text": str(number)} for number in range(20)])
    report = split_file(path, tmp_path / "out", _options(), open_lines=Repeated)
    assert report.source["records"] == 200


def test_split_file_many_faults_are_all_counted_and_nothing_is_left(write_jsonl: Write, tmp_path: Path) -> None:
    """Missing groups are counted to the end of the file, the first of them named."""
    path = write_jsonl([{"text": str(number)} for number in range(500)] + [{"topic": "a"}])
    with pytest.raises(DataError, match=r"data.jsonl:1: the group key 'topic' is missing") as caught:
        split_file(path, tmp_path / "out", _options(group_by="topic"))
    assert "the first of 500 problems" in caught.value.why
    assert [item.name for item in tmp_path.iterdir()] == ["data.jsonl"]


def test_split_file_group_key_in_no_record_is_one_error(write_jsonl: Write, tmp_path: Path) -> None:
    """The option is wrong, not the lines: said once, with the keys that exist."""
    path = write_jsonl([{"text": str(number), "label": 1} for number in range(500)])
    with pytest.raises(DataError, match=r"data.jsonl: the group key 'topic' is missing in every record") as caught:
        split_file(path, tmp_path / "out", _options(group_by="topic"))
    assert caught.value.why == "the first record has 'text', 'label'"
    assert "--group-by" in caught.value.fix
    assert [item.name for item in tmp_path.iterdir()] == ["data.jsonl"]


def test_split_file_source_absent_leaves_nothing(tmp_path: Path) -> None:
    """The reader's own message, and no directory that was made for the result."""
    with pytest.raises(DataError, match="does not exist"):
        split_file(tmp_path / "absent.jsonl", tmp_path / "new" / "out", _options())
    assert list(tmp_path.iterdir()) == []
