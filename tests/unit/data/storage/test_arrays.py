"""Records as flat arrays: what goes in comes out, and what is asked of all at once agrees with what each says."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.data.storage.arrays import (
    PARTS,
    MemorySink,
    RecordLocation,
    StoredRecords,
    TokenArrays,
    TokenArraysWriter,
    lengths_of,
    supervised_counts_of,
)
from codex_ml.data.tokenization.tokenizer import TokenizedRecord

texts = st.text(st.characters(), max_size=20)


@st.composite
def tokenized(draw: st.DrawFn) -> TokenizedRecord:
    """Return a record of any tokens, texts and marks."""
    pairs = draw(st.lists(st.tuples(st.integers(0, 2**31 - 1), st.booleans()), min_size=1, max_size=12))
    return TokenizedRecord(
        record_id="",
        input_ids=tuple(token for token, _ in pairs),
        supervised=tuple(mask for _, mask in pairs),
        prompt_length=draw(st.integers(0, len(pairs))),
        prompt=draw(texts),
        reference=draw(st.none() | texts),
        prompt_redacted=draw(st.booleans()),
        reference_redacted=draw(st.booleans()),
    )


def _stored(pairs: list[tuple[TokenizedRecord, RecordLocation]]) -> tuple[StoredRecords, dict[str, MemorySink]]:
    sinks = {part: MemorySink() for part in PARTS}
    writer = TokenArraysWriter(sinks)
    for record, place in pairs:
        writer.add(record, place)
    writer.flush()
    buffers = {part: sink.data for part, sink in sinks.items()}
    return StoredRecords(TokenArrays.of_buffers(buffers, writer.file_names)), sinks


def _place(number: int, name: str = "a.jsonl", digest: bytes = b"", prompt_key: bytes = b"") -> RecordLocation:
    return RecordLocation(name, number, 10 * number, digest or number.to_bytes(16, "little"), prompt_key)


def _record(number: int, record_id: str = "") -> TokenizedRecord:
    mask = (False,) + (True,) * number
    return TokenizedRecord(record_id, tuple(range(number + 1)), mask, 1, f"p{number}", f"r{number}")


def _with_ids(records: list[TokenizedRecord]) -> list[TokenizedRecord]:
    values = [{field.name: getattr(record, field.name) for field in fields(record)} for record in records]
    return [
        TokenizedRecord(**{**value, "record_id": f"a.jsonl:{number}"}) for number, value in enumerate(values, start=1)
    ]


@given(st.lists(tokenized(), max_size=6), st.slices(6))
def test_stored_records_any_records_come_back_as_they_were(records: list[TokenizedRecord], part: slice) -> None:
    """One by one, as a sequence, and in slices of any step."""
    stored, _ = _stored([(record, _place(number)) for number, record in enumerate(records, start=1)])
    expected = _with_ids(records)
    assert stored == expected
    assert list(stored) == [stored[index] for index in range(len(stored))] == expected
    assert stored[part] == expected[part]
    assert [stored[part][index] for index in range(len(expected[part]))] == expected[part]
    assert lengths_of(stored[part]).tolist() == lengths_of(expected[part]).tolist()
    counts = [sum(record.supervised) for record in expected[part]]
    assert supervised_counts_of(stored[part]).tolist() == counts


def test_stored_records_every_field_of_a_record_is_kept() -> None:
    """A field that is added to the record must be added to the arrays, or it would be lost in silence."""
    assert {field.name for field in fields(TokenizedRecord)} == {
        "record_id",
        "input_ids",
        "supervised",
        "prompt_length",
        "prompt",
        "reference",
        "prompt_redacted",
        "reference_redacted",
    }


def test_stored_records_know_their_place() -> None:
    """Offsets and names of files, also where a split comes from several."""
    places = [_place(1), _place(2), _place(7, "b.jsonl")]
    stored, _ = _stored([(_record(number), place) for number, place in enumerate(places, start=1)])
    assert [record.record_id for record in stored] == ["a.jsonl:1", "a.jsonl:2", "b.jsonl:7"]
    assert stored.offsets == [10, 20, 70]
    with pytest.raises(IndexError):
        stored[3]
    assert stored[-1].record_id == "b.jsonl:7"
    assert stored != [_record(1)]
    assert stored != 1


def test_stored_records_shared_ones_are_counted_by_bytes_and_by_prompt() -> None:
    """Digests that differ in their last byte only are two; a record without a prompt shares none."""
    zeros = bytes(16)
    train, _ = _stored(
        [
            (_record(1), _place(1, digest=zeros, prompt_key=b"p" * 16)),
            (_record(2), _place(2, digest=b"b" * 16, prompt_key=b"q" * 16)),
            (_record(3), _place(3, digest=b"c" * 16)),
        ]
    )
    test, _ = _stored(
        [
            (_record(1), _place(1, digest=zeros, prompt_key=b"p" * 16)),
            (_record(2), _place(2, digest=zeros[:-1] + b"\1", prompt_key=b"p" * 16)),
            (_record(2), _place(3, digest=b"d" * 16)),
        ]
    )
    assert test.shared_bytes(train) == 1
    assert test.shared_prompts(train) == 2
    assert test[1:].shared_bytes(train) == 0
    assert test[:0].shared_prompts(train) == 0


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("tokens", lambda data: data[:-4]),
        ("tokens", lambda data: data + bytes(4)),
        ("texts", lambda data: data[:-1]),
        ("texts", lambda data: data + b"x"),
        ("records", lambda data: data[: len(data) // 2]),
        ("records", lambda data: data[len(data) // 2 :] + data[: len(data) // 2]),
        ("records", lambda data: data[:-1]),
        ("records", lambda data: data[:16] + b"\xff" + data[17:]),
        ("records", lambda data: data[:40] + b"\xff" + data[41:]),
        ("records", lambda data: data[:44] + b"\xff" + data[45:]),
        ("records", lambda data: data[:48] + b"\xff" + data[49:]),
    ],
)
def test_token_arrays_parts_that_do_not_fit_are_refused(part: str, change: Any) -> None:
    """Whatever a file holds, no record reaches beyond its arrays."""
    _, sinks = _stored([(_record(number), _place(number)) for number in (1, 2)])
    buffers = {name: bytes(sink.data) for name, sink in sinks.items()}
    TokenArrays.of_buffers(buffers, ["a.jsonl"])
    with pytest.raises(ValueError, match=r"fit|beyond|multiple"):
        TokenArrays.of_buffers({**buffers, part: change(buffers[part])}, ["a.jsonl"])
