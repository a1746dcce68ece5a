"""Raw files into records, splits and a tokenizer, with collaborators passed in."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from codex_ml.data.prepare.config import PreparerConfig
from codex_ml.data.prepare.files import write_records
from codex_ml.data.prepare.registry import Preparer
from codex_ml.errors import CodexError, DataError, UserError
from codex_ml.io.atomic import Storage
from codex_ml.recipes.data.prepare import Prepared, PrepareDependencies, prepare_data

RAW = "".join(json.dumps({"q": f"question {n}", "a": {"text": f"answer {n}"}}) + "\n" for n in range(60))
COLUMNS = {"prompt": "q", "completion": "a.text"}


def _preparer(**settings: Any) -> Preparer:
    return Preparer(PreparerConfig.model_validate({"columns": COLUMNS, **settings}))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Return a raw file of 60 rows."""
    file = tmp_path / "raw.jsonl"
    file.write_text(RAW, encoding="utf-8")
    return file


def _bytes_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_prepare_data_again_writes_nothing_and_a_change_only_what_it_changes(raw: Path, tmp_path: Path) -> None:
    """The same sources prepared in the same way are skipped; another seed moves records and leaves them as they are."""
    out = tmp_path / "out"
    first = prepare_data("records", _preparer(), [raw], out)
    assert set(first.changes.values()) == {"created"}
    assert first.account == {"rows_read": 60, "records_written": 60, "dropped": {}, "numbers_as_text": 0}
    lines = (out / "records.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[7]) == {"prompt": "question 7", "completion": "answer 7"}
    parts = [(out / "splits" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines() for name in first.splits]
    assert sorted(line for part in parts for line in part) == sorted(lines)
    before, stamp = _bytes_of(out), (out / "records.jsonl").stat().st_mtime_ns
    again = prepare_data("records", _preparer(), [raw], out)
    assert set(again.changes.values()) == {"skipped"}
    assert dataclasses.replace(again, changes={}) == dataclasses.replace(first, changes={})
    assert _bytes_of(out) == before
    assert (out / "records.jsonl").stat().st_mtime_ns == stamp
    other = prepare_data("records", _preparer(split={"seed": 5}), [raw], out)
    assert other.changes["records.jsonl"] == "skipped"
    assert other.changes["splits/train.jsonl"] == "updated"


def test_prepare_data_same_inputs_elsewhere_give_the_same_bytes(raw: Path, tmp_path: Path) -> None:
    """Nothing of the place or the time gets into what is made, tokenizer included."""
    for name in ("one", "two"):
        prepare_data("records", _preparer(vocabulary_size=320), [raw], tmp_path / name)
    assert _bytes_of(tmp_path / "one") == _bytes_of(tmp_path / "two")
    assert "tokenizer/tokenizer.json" in _bytes_of(tmp_path / "one")


def test_prepare_data_bad_rows_are_all_named_and_nothing_is_left(tmp_path: Path) -> None:
    """Rows of every file are gathered; no directory is made."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(RAW + '{"q": "x"}\n{"q": 1, "a": {"text": ""}}\n', encoding="utf-8")
    with pytest.raises(DataError) as raised:
        prepare_data("records", _preparer(), [tmp_path / "a.jsonl", tmp_path / "b.jsonl"], tmp_path / "out")
    block = raised.value.block()
    for place in ("a.jsonl:61", "a.jsonl:62", "b.jsonl:61", "b.jsonl:62"):
        assert place in block
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl"]


def test_prepare_data_dropped_rows_are_counted_and_listed_without_content(raw: Path, tmp_path: Path) -> None:
    """What is left out is found again by file and line; too large a share stops it."""
    raw.write_text(RAW + '{"q": "a secret"}\n', encoding="utf-8")
    done = prepare_data("records", _preparer(on_bad_record="drop"), [raw], tmp_path / "out")
    assert done.account["rows_read"] == 61
    assert done.account["dropped"] == {"bad_shape": 1}
    (reject,) = (tmp_path / "out" / "rejects.ndjson").read_text(encoding="utf-8").splitlines()
    assert json.loads(reject) == {"file": "raw.jsonl", "line": 61, "offset": len(RAW), "reason": "bad_shape"}
    raw.write_text(RAW + '{"q": "a secret"}\n' * 9, encoding="utf-8")
    with pytest.raises(DataError, match="9 of 69 lines are no records"):
        prepare_data("records", _preparer(on_bad_record="drop"), [raw], tmp_path / "out")


def test_prepare_data_files_of_a_directory_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    """Several sources make one file of records."""
    (tmp_path / "raw").mkdir()
    for name, word in (("b.txt", "second"), ("a.txt", "first")):
        (tmp_path / "raw" / name).write_text("\n\n".join(f"{word} {n}" for n in range(20)), encoding="utf-8")
    preparer = Preparer(PreparerConfig(kind="text"))
    prepare_data("text", preparer, [tmp_path / "raw"], tmp_path / "out")
    texts = [json.loads(line)["text"] for line in (tmp_path / "out" / "records.jsonl").open(encoding="utf-8")]
    assert texts == [f"{word} {n}" for word in ("first", "second") for n in range(20)]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("link out", "a symbolic link that leads out of the directory"),
        ("dangling link", "a symbolic link that leads to no file"),
        ("pipe", "a named pipe"),
        ("device", "leads out of the directory"),
    ],
)
def test_prepare_data_entry_of_a_directory_that_is_no_file_of_it_is_refused(
    kind: str, words: str, raw: Path, tmp_path: Path
) -> None:
    """The error names the entry, and no output is created."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.jsonl").write_text(RAW, encoding="utf-8")
    entry = source / "b.jsonl"
    if kind == "pipe":
        os.mkfifo(entry)
    else:
        entry.symlink_to({"link out": raw, "dangling link": source / "nowhere", "device": Path("/dev/zero")}[kind])
    with pytest.raises(DataError, match=r"--source: .*source/b\.jsonl is not read") as caught:
        prepare_data("records", _preparer(), [source], tmp_path / "out")
    assert words in caught.value.block()
    assert not (tmp_path / "out").exists()


def test_prepare_data_links_within_a_directory_and_named_by_the_user_are_followed(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hidden files and directories are left out; a message counts and names them."""
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / ".hidden").write_text("x")
    (source / "a.jsonl").write_text(RAW, encoding="utf-8")
    (source / "b.jsonl").symlink_to("a.jsonl")
    assert prepare_data("records", _preparer(), [source], tmp_path / "out").account["rows_read"] == 120
    assert "2 entries of" in (said := capsys.readouterr().err)
    assert "'.hidden', 'deep/'" in said
    link, directory_link = tmp_path / "link.jsonl", tmp_path / "link"
    link.symlink_to(raw)
    directory_link.symlink_to(source)
    prepared = prepare_data("records", _preparer(), [link, directory_link], tmp_path / "other")
    assert prepared.account["rows_read"] == 180


def test_prepare_data_same_again_removes_what_a_killed_process_left(raw: Path, tmp_path: Path) -> None:
    """The cleanup also runs when the output is up to date."""
    out = tmp_path / "out"
    prepare_data("records", _preparer(), [raw], out)
    left = tmp_path / ".out.1.partial"
    left.mkdir()
    (left / "records.jsonl").write_text(RAW, encoding="utf-8")
    prepare_data("records", _preparer(), [raw], out)
    assert not left.exists()


def test_prepare_data_missing_file_is_fetched_once_through_what_was_passed_in(tmp_path: Path) -> None:
    """The fetcher gets URL, digest and place; what it brought is used again."""
    asked: list[tuple[str, str, Path]] = []

    def fetch(url: str, sha256: str, target: Path) -> None:
        asked.append((url, sha256, target))
        target.parent.mkdir()
        target.write_text(RAW, encoding="utf-8")

    digest = hashlib.sha256(RAW.encode()).hexdigest()
    preparer = _preparer(url="https://example.org/data/raw.jsonl?x=1", sha256=digest)
    dependencies = PrepareDependencies(fetch_fn=fetch)
    for _ in range(2):
        prepare_data("mine", preparer, [], tmp_path / "out", dependencies)
    assert asked == [("https://example.org/data/raw.jsonl?x=1", digest, tmp_path / "out.raw" / "raw.jsonl")]


def test_prepare_data_offline_without_a_file_says_which_to_bring(raw: Path, tmp_path: Path) -> None:
    """A supplied file always works; one with another digest is refused."""
    preparer = _preparer(url="https://example.org/raw.jsonl", sha256="0" * 64)
    with pytest.raises(UserError, match=r"raw.jsonl is not here"):
        prepare_data("mine", preparer, [], tmp_path / "out")
    with pytest.raises(DataError, match="this preparer is for the one file"):
        prepare_data("mine", preparer, [raw], tmp_path / "out")
    with pytest.raises(UserError, match="needs a raw file"):
        prepare_data("records", _preparer(), [], tmp_path / "out")
    with pytest.raises(DataError, match="does not exist"):
        prepare_data("records", _preparer(), [tmp_path / "no"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prepare_data_record_that_the_writer_loses_is_noticed(raw: Path, tmp_path: Path) -> None:
    """The count of what was written is held against what was made."""

    def lossy(records: Iterable[dict[str, Any]], file: BinaryIO) -> int:
        return write_records((record for record in records if "7" not in record["prompt"]), file)

    with pytest.raises(DataError, match="60 records were made and"):
        prepare_data("records", _preparer(), [raw], tmp_path / "out", PrepareDependencies(write_fn=lossy))
    assert not (tmp_path / "out").exists()


def test_prepare_data_tokenizer_learns_from_the_train_split_alone(raw: Path, tmp_path: Path) -> None:
    """No text of valid or test reaches the tokenizer."""
    seen: list[str] = []

    def factory(texts: Iterable[str], vocabulary_size: int, directory: Path) -> None:
        seen.extend(texts)
        (directory / "tokenizer.json").write_text(str(vocabulary_size), encoding="utf-8")

    dependencies = PrepareDependencies(tokenizer_factory=factory)
    prepare_data("records", _preparer(vocabulary_size=400), [raw], tmp_path / "out", dependencies)
    train = [json.loads(line) for line in (tmp_path / "out" / "splits" / "train.jsonl").open(encoding="utf-8")]
    assert seen == [text for record in train for text in record.values()]
    assert len(train) < 60
    assert (tmp_path / "out" / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8") == "400"


def test_prepare_data_tokenizer_learns_from_filtered_text_only(tmp_path: Path) -> None:
    """What a policy hides is in no vocabulary; the records stay as they are for the filters of each run."""
    raw = tmp_path / "raw.jsonl"
    rows = [{"q": f"write to anna{n}.schmidt@klinik.example", "a": {"text": f"done {n}"}} for n in range(60)]
    raw.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    seen: list[str] = []
    dependencies = PrepareDependencies(tokenizer_factory=lambda texts, _size, _directory: seen.extend(texts))
    prepare_data("records", _preparer(vocabulary_size=400), [raw], tmp_path / "out", dependencies)
    assert seen
    assert not any("schmidt" in text or "klinik" in text for text in seen)
    assert "schmidt" in (tmp_path / "out" / "records.jsonl").read_text(encoding="utf-8")


def test_prepare_data_refused_leaves_no_parent_behind(raw: Path, tmp_path: Path) -> None:
    """Directories that were made for an output that never came are taken away again."""
    with pytest.raises(DataError, match="does not exist"):
        prepare_data("records", _preparer(), [tmp_path / "no"], tmp_path / "a" / "b" / "c")
    assert [entry.name for entry in tmp_path.iterdir()] == [raw.name]


def test_prepare_data_source_that_changes_meanwhile_is_refused(raw: Path, tmp_path: Path) -> None:
    """What the manifest says of a source is what was read."""

    def grow(records: Iterable[dict[str, Any]], file: BinaryIO) -> int:
        with raw.open("a", encoding="utf-8") as handle:
            handle.write(RAW.splitlines()[0] + "\n")
        return write_records(records, file)

    with pytest.raises(CodexError, match="changed while it was"):
        prepare_data("records", _preparer(), [raw], tmp_path / "out", PrepareDependencies(write_fn=grow))
    assert not (tmp_path / "out").exists()


def test_prepare_data_killed_at_every_rename_is_whole_afterwards(raw: Path, tmp_path: Path) -> None:
    """Whatever moment the process ends at, the next preparation leaves one whole directory and nothing beside it."""

    class Dying(Storage):
        def __init__(self, left: int) -> None:
            self.left = left

        def replace(self, source: Path, target: Path) -> None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            super().replace(source, target)

    expected = prepare_data("records", _preparer(split={"seed": 2}), [raw], tmp_path / "expected")
    finished = False
    for number in range(20):
        out = tmp_path / f"out{number}"
        prepare_data("records", _preparer(), [raw], out)
        try:
            prepare_data(
                "records", _preparer(split={"seed": 2}), [raw], out, PrepareDependencies(storage=Dying(number))
            )
            finished = True
        except KeyboardInterrupt:
            pass
        done: Prepared = prepare_data("records", _preparer(split={"seed": 2}), [raw], out)
        assert done.splits == expected.splits
        assert _bytes_of(out) == _bytes_of(tmp_path / "expected")
        if finished:
            break
    assert finished
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]
