"""Manifests of files: every record found by its offset, and no other file taken for the one that was described."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.data.inspect.offsets import (
    LoadedManifest,
    check_manifest,
    load_manifest,
    make_manifest,
    manifest_path,
    read_record,
)
from codex_ml.data.readers.jsonl import iter_jsonl
from codex_ml.errors import DataError
from codex_ml.io.atomic import Storage, file_digest

_LINES = st.lists(
    st.tuples(st.one_of(st.none(), st.text(max_size=20)), st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\n"])),
    min_size=1,
).filter(lambda lines: any(text is not None for text, _ in lines))


def _make(path: Path) -> LoadedManifest:
    return make_manifest(path, manifest_path(path), Storage())[0]


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Return a file of 20 records of different lengths."""
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"text": "é" * number + str(number)}) + "\n" for number in range(20)))
    return path


@given(lines=_LINES, with_mark=st.booleans(), last_end=st.booleans())
def test_read_record_any_file_gives_what_reading_it_gives(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[str | None, str]], with_mark: bool, last_end: bool
) -> None:
    """Line ends of both kinds, empty lines, a byte order mark, a last line without an end: the same records."""
    path = tmp_path_factory.mktemp("any") / "data.jsonl"
    content = "".join(
        ("" if text is None else json.dumps({"text": text}, ensure_ascii=False).replace("\ud800", "")) + end
        for text, end in lines
    )
    content = content if last_end else content.rstrip("\r\n \t")
    path.write_bytes((b"\xef\xbb\xbf" if with_mark else b"") + content.encode("utf-8", "replace"))
    manifest = _make(path)
    expected = [(line.offset, line.raw, line.value) for line in iter_jsonl(path)]
    assert manifest.content.records == len(expected)
    assert [tuple(read_record(path, manifest, index)) for index in range(len(expected))] == expected
    assert load_manifest(manifest_path(path)) == manifest


def test_make_manifest_says_what_the_file_is(tmp_path: Path) -> None:
    """Digest, size, counts, types of fields, shapes; offsets as 8 bytes a record; no content of any record."""
    path = tmp_path / "data.jsonl"
    rows = [
        {"prompt": "secret", "completion": "x", "n": 1},
        {"prompt": "p", "completion": "x", "n": 1.5, "tags": [], "meta": {}, "ok": True, "none": None},
        {"other": 1, "the secret stands in this key, which is no name at all, no": 1},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = _make(path)
    content = manifest.content
    assert (content.file, content.digest, content.bytes) == ("data.jsonl", file_digest(path), path.stat().st_size)
    assert content.shapes == {"none": 1, "prompt_completion": 2}
    assert content.fields["n"] == {"integer": 1, "number": 1}
    assert {name: set(types) for name, types in content.fields.items() if name in ("tags", "meta", "ok", "none")} == {
        "tags": {"array"},
        "meta": {"object"},
        "ok": {"boolean"},
        "none": {"null"},
    }
    offsets = np.fromfile(tmp_path / "data.jsonl.offsets", dtype="<u8")
    assert offsets.tolist() == [line.offset for line in iter_jsonl(path)]
    assert "secret" not in manifest_path(path).read_text()
    assert manifest_path(path).stat().st_mode & 0o777 == 0o600


def test_make_manifest_many_keys_stays_small(tmp_path: Path) -> None:
    """The manifest does not grow with the data: after 50 names the others are counted together."""
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({f"k{number}": 1}) + "\n" for number in range(500)))
    fields = _make(path).content.fields
    assert len(fields) == 51
    assert fields["(further keys)"] == {"integer": 450}


def test_make_manifest_again_writes_only_where_the_file_changed(records: Path) -> None:
    """Unchanged: nothing is read or written. Changed, offsets gone or damaged: made again."""
    target = manifest_path(records)
    storage = Storage()
    assert make_manifest(records, target, storage)[1]
    manifest, written = make_manifest(records, target, storage)
    assert not written
    manifest.offsets_path.unlink()
    assert make_manifest(records, target, storage)[1]
    manifest.offsets_path.write_bytes(bytes(20 * 8))
    assert make_manifest(records, target, storage)[1]
    with records.open("a") as handle:
        handle.write('{"text": "more"}\n')
    again, written = make_manifest(records, target, storage)
    assert written
    assert again.content.records == 21
    check_manifest(records, again)


def test_read_record_changed_file_is_an_error(records: Path) -> None:
    """Another size, or the same size and other bytes; a copy with another time is still the file."""
    manifest = _make(records)
    original, status = records.read_bytes(), records.stat()
    os.utime(records, ns=(0, 0))
    assert read_record(records, manifest, 19).value == {"text": "é" * 19 + "19"}
    records.write_bytes(original.replace(b"19", b"20"))
    with pytest.raises(DataError, match="is not the file that"):
        read_record(records, manifest, 0)
    records.write_bytes(original + b"\n")
    with pytest.raises(DataError, match="is not the file that"):
        read_record(records, manifest, 0)
    records.unlink()
    with pytest.raises(DataError, match="does not exist"):
        read_record(records, manifest, 0)
    # Size and time as they were: only the digest knows, which `check_manifest` reads.
    records.write_bytes(original.replace(b"19", b"20"))
    os.utime(records, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert read_record(records, manifest, 0).value == {"text": "0"}
    with pytest.raises(DataError, match="is not the file that"):
        check_manifest(records, manifest)
    records.write_bytes(original.replace(b"\n", b" "))
    os.utime(records, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError, match="is not the file that") as caught:
        read_record(records, manifest, 0)
    assert "no record begins at byte 0" in caught.value.why


@pytest.mark.parametrize("damage", ["gone", "short", "other"])
def test_read_record_damaged_offsets_are_an_error(records: Path, damage: str) -> None:
    """A wrong offset would give another record: each kind of damage is noticed before one is used."""
    manifest = _make(records)
    offsets = manifest.offsets_path.read_bytes()
    manifest.offsets_path.unlink()
    if damage != "gone":
        manifest.offsets_path.write_bytes(offsets[:-8] if damage == "short" else offsets[8:] + offsets[:8])
    for look in (lambda: read_record(records, manifest, 3), lambda: check_manifest(records, manifest)):
        with pytest.raises(DataError) as caught:
            look()
        assert "make the manifest again" in caught.value.fix


@pytest.mark.parametrize(
    "name",
    ["../x.offsets", "", ".", "..", "/x.offsets", "a/b.offsets", "a\x00.offsets", "data.jsonl", "x" * 300 + ".offsets"],
)
def test_read_record_manifest_that_leads_elsewhere_is_refused(records: Path, name: str) -> None:
    """A forged manifest is one error, and no file beside those it may name is looked at."""
    _make(records)
    target = manifest_path(records)
    target.write_text(json.dumps(json.loads(target.read_text()) | {"offsets": name}))
    with pytest.raises(DataError, match=r"is no manifest of a file|cannot be read"):
        read_record(records, load_manifest(target), 0)


@pytest.mark.parametrize("index", [-1, 20, 10**30])
def test_read_record_beyond_the_file_is_an_error(records: Path, index: int) -> None:
    """There is no record before the first and none behind the last."""
    with pytest.raises(DataError, match="has 20 records"):
        read_record(records, _make(records), index)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"schema_version": 1}', '{"text": "a record"}\n', "\x00"])
def test_make_manifest_foreign_file_in_the_way_is_not_written_over(records: Path, content: str) -> None:
    """What is no manifest of ours stays, whatever it is called; so do offsets that belong to no manifest."""
    target = manifest_path(records)
    target.write_text(content)
    with pytest.raises(DataError, match="is no manifest of a file"):
        make_manifest(records, target, Storage())
    assert target.read_text() == content
    target.unlink()
    beside = records.with_name(records.name + ".offsets")
    beside.write_text("mine")
    with pytest.raises(DataError, match="is there already"):
        make_manifest(records, target, Storage())
    assert beside.read_text() == "mine"
    assert not target.exists()


def test_make_manifest_into_no_directory_is_an_error_before_the_file_is_read(records: Path) -> None:
    """Not after the minutes that a large file takes: here the file is faulty, and that is not what is said."""
    records.write_text("{")
    with pytest.raises(DataError, match="nowhere is no directory"):
        make_manifest(records, records.parent / "nowhere" / "m.json", Storage())


def test_make_manifest_faulty_file_leaves_nothing(records: Path) -> None:
    """Every bad line is named, and no file appears."""
    records.write_text('{"text": "a"}\n{"text"\n{"a": 1, "a": 2}\n')
    with pytest.raises(DataError, match=r"data\.jsonl:2") as caught:
        _make(records)
    assert "data.jsonl:3" in caught.value.block()
    assert [path.name for path in records.parent.iterdir()] == ["data.jsonl"]


class _Stopping(Storage):
    """Writes so many files, and then fails as a full disk does."""

    def __init__(self, writes: int) -> None:
        self._left = writes

    def write_atomic(self, path: Path, data: bytes) -> None:
        """Write, or fail."""
        if not self._left:
            raise OSError(28, "No space left on device", str(path))
        self._left -= 1
        super().write_atomic(path, data)


@pytest.mark.parametrize("writes", [0, 1])
@pytest.mark.parametrize("was_there", [False, True])
def test_make_manifest_stopped_between_two_files_never_gives_a_wrong_record(
    records: Path, writes: int, was_there: bool
) -> None:
    """Whatever is left over is refused or still true, and the next call puts it right."""
    target = manifest_path(records)
    if was_there:
        _make(records)
        records.write_text("".join(f'{{"text": "{number}"}}\n' for number in range(100, 120)))
    with pytest.raises(OSError, match="No space left"):
        make_manifest(records, target, _Stopping(writes))
    if target.exists():
        with pytest.raises(DataError):
            read_record(records, load_manifest(target), 5)
    expected = [line.value for line in iter_jsonl(records)]
    manifest, written = make_manifest(records, target, Storage())
    assert written
    assert [read_record(records, manifest, index).value for index in range(20)] == expected


def test_read_record_huge_offsets_are_refused_unread(records: Path) -> None:
    """The check reads the size of the sparse file, not its content."""
    manifest = _make(records)
    with manifest.offsets_path.open("r+b") as handle:
        handle.truncate(1 << 40)
    with pytest.raises(DataError, match="1,099,511,627,776 bytes instead of 160"):
        read_record(records, manifest, 0)


def test_make_manifest_outside_names_the_offsets_after_itself(records: Path, tmp_path: Path) -> None:
    """Both files lie where they are wanted, and belong together wherever they are moved to."""
    (tmp_path / "out").mkdir()
    manifest, _ = make_manifest(records, tmp_path / "out" / "m.json", Storage())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["m.json", "m.offsets"]
    (tmp_path / "out").rename(tmp_path / "moved")
    moved = load_manifest(tmp_path / "moved" / "m.json")
    assert moved.content == manifest.content
    assert read_record(records, moved, 7).value == {"text": "é" * 7 + "7"}
