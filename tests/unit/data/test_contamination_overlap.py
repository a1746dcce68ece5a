"""Repetitions and overlap counted over digests, compared with sets of the bytes themselves."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.data.contamination import as_digests, first_positions, positions_in, prompt_digest, record_digest
from codex_ml.data.splits.groups import group_key, record_key

_FEW = st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), max_size=30)


def _digests(records: list[bytes]) -> np.ndarray:
    return as_digests(b"".join(record_digest(record) for record in records))


@given(_FEW)
def test_first_positions_any_records_are_those_of_a_dictionary(records: list[bytes]) -> None:
    """The position of the first equal record, for every record."""
    assert first_positions(_digests(records)).tolist() == [records.index(record) for record in records]


@given(_FEW, _FEW)
def test_positions_in_any_two_files_are_those_of_a_search(records: list[bytes], others: list[bytes]) -> None:
    """The first place among the others, and -1 where there is none; repetitions on either side change nothing."""
    expected = [others.index(record) if record in others else -1 for record in records]
    assert positions_in(_digests(records), _digests(others)).tolist() == expected


def test_first_positions_digests_equal_in_one_half_are_apart() -> None:
    """Both halves of a digest count."""
    digests = np.array([[1, 2], [1, 3], [2, 2], [1, 2]], dtype=np.uint64)
    assert first_positions(digests).tolist() == [0, 1, 2, 0]
    assert positions_in(digests[1:3], digests[:1]).tolist() == [-1, -1]


def test_record_digest_a_record_is_the_head_of_its_split_key() -> None:
    """Pinned: digests that were stored must be comparable with those of a later version."""
    assert record_digest(b"{}") == record_key(b"{}")[:16] == hashlib.blake2b(b"{}", digest_size=32).digest()[:16]
    value = {"question": "q", "answer": "a"}
    assert prompt_digest(value, {"prompt": "question"}) == group_key(value, "prompt", {"prompt": "question"})[:16]
    assert prompt_digest({"prompt": "q"}) == prompt_digest(value, {"prompt": "question"})
