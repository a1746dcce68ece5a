"""Properties of splits: nothing is lost, nothing moves, what belongs together stays together."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import assume, given
from hypothesis import strategies as st

from codex_ml.data.split_utils import assign_splits, split_jsonl
from codex_ml.data.splits.groups import record_key
from codex_ml.errors import DataError
from tiers import examples

common = examples(30)
seeds = st.integers(min_value=-(2**70), max_value=2**70)
keys = st.lists(st.binary(max_size=6), min_size=1, max_size=60)
ratios = st.tuples(st.integers(0, 10), st.integers(0, 10), st.integers(1, 10)).map(
    lambda parts: tuple(part / sum(parts) for part in parts)
)


@common
@given(keys, seeds, ratios, st.randoms(use_true_random=False))
def test_assign_splits_shuffled_records_do_not_move(
    keys: list[bytes], seed: int, ratios: tuple, random: object
) -> None:
    """A record's split does not depend on its place, by value or by rank."""
    order = list(range(len(keys)))
    random.shuffle(order)
    for exact_sizes in (False, True):
        before = assign_splits(keys, seed, ratios, exact_sizes)
        after = assign_splits([keys[index] for index in order], seed, ratios, exact_sizes)
        assert after == [before[index] for index in order]


@common
@given(keys, keys, seeds, ratios)
def test_assign_splits_appended_records_move_no_other(
    keys: list[bytes], more: list[bytes], seed: int, ratios: tuple
) -> None:
    """A grown file keeps its old records where they were."""
    assert assign_splits(keys + more, seed, ratios)[: len(keys)] == assign_splits(keys, seed, ratios)


@common
@given(keys, seeds, ratios, st.booleans())
def test_assign_splits_equal_keys_stay_together(keys: list[bytes], seed: int, ratios: tuple, exact_sizes: bool) -> None:
    """Duplicates never stand in two splits."""
    assignment = assign_splits(keys, seed, ratios, exact_sizes)
    where: dict[bytes, set[int]] = {}
    for key, split in zip(keys, assignment, strict=True):
        where.setdefault(key, set()).add(split)
    assert all(len(splits) == 1 for splits in where.values())


@common
@given(keys, seeds, ratios)
def test_assign_splits_exact_sizes_are_off_by_one_group_at_most(keys: list[bytes], seed: int, ratios: tuple) -> None:
    """Every border lies within the largest group of where it should."""
    assignment = assign_splits(keys, seed, ratios, exact_sizes=True)
    largest = max(Counter(keys).values())
    reached = wanted = 0.0
    for index in range(3):
        reached += assignment.count(index)
        wanted += ratios[index] * len(keys)
        assert abs(reached - wanted) <= largest


@common
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), min_size=6, max_size=40), seeds)
def test_split_jsonl_union_is_the_input(texts: list[str], seed: int) -> None:
    """The three files together hold every line exactly as often as the source."""
    lines = [json.dumps({"text": text}, ensure_ascii=False).encode("utf-8") for text in texts]
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "data.jsonl"
        source.write_bytes(b"\n".join(lines))
        try:
            paths = split_jsonl(source, Path(directory) / "out", (0.4, 0.3, 0.3), seed)
        except DataError:  # a split without a record, which is refused
            assume(False)
        written = [path.read_bytes().split(b"\n")[:-1] for path in (paths.train, paths.val, paths.test)]
    assert Counter(line for part in written for line in part) == Counter(lines)
    assignment = assign_splits([record_key(line) for line in lines], seed, (0.4, 0.3, 0.3))
    for index, part in enumerate(written):
        assert part == [line for line, split in zip(lines, assignment, strict=True) if split == index]
