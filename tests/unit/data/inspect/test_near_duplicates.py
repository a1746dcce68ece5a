"""Near duplicates: estimates close to the truth, samples that depend on the records alone, bounded work."""

from __future__ import annotations

import random

import numpy as np
import pytest

from codex_ml.data.contamination import record_digest
from codex_ml.data.inspect.near_duplicates import (
    PERMUTATIONS,
    NearIndex,
    NearSample,
    bands_for,
    shingles,
    signature_of,
    similarity,
)


def _text(seed: int, words: int = 120) -> list[str]:
    generator = random.Random(seed)
    return [f"w{generator.randrange(5000)}" for _ in range(words)]


def _sample(texts: list[str], limit: int = 1000) -> NearSample:
    sample = NearSample(limit)
    for position, text in enumerate(texts):
        sample.add(record_digest(text.encode()), position, [text])
    return sample


@pytest.mark.parametrize("changed_words", [0, 1, 4, 12, 40, 120])
def test_similarity_texts_that_differ_is_close_to_jaccard(changed_words: int) -> None:
    """Four standard deviations of the estimate at most, and 1 for equal texts."""
    for seed in range(20):
        words = _text(seed)
        other = [*words[:-changed_words], *_text(seed + 1000, changed_words)] if changed_words else words
        one, two = shingles(" ".join(words)), shingles(" ".join(other))
        truth = len(one & two) / len(one | two)
        estimate = similarity(signature_of(" ".join(words)), signature_of(" ".join(other))[None])[0]
        assert abs(estimate - truth) <= 4 * (truth * (1 - truth) / PERMUTATIONS) ** 0.5 + 1e-9


def test_signature_of_a_text_is_the_same_in_every_version() -> None:
    """Golden: figures must come out the same on every machine and after every update."""
    signature = signature_of("The quick brown fox jumps over the lazy dog")
    assert signature.dtype == np.uint32
    assert signature[:4].tolist() == [1360992111, 616130781, 234196829, 862247899]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 1),
        ("one", 1),
        ("one two", 1),
        ("ONE  two\nthree", 1),
        ("one two three four", 2),
        ("今日は天気がいい", 6),
        ("{}", 1),
        ("\ud800 a", 1),
    ],
)
def test_shingles_of_any_text_are_runs_of_three_words(text: str, count: int) -> None:
    """Case and spacing do not count; scripts without spaces have a word for each character."""
    assert len(shingles(text)) == count
    assert shingles(text) == shingles(f" {text.upper()}\n")


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, (42, 3)), (0.8, (18, 7)), (0.95, (7, 18)), (1.0, (2, 64))])
def test_bands_for_a_threshold_find_nearly_every_pair(threshold: float, expected: tuple[int, int]) -> None:
    """At least 95 of 100 pairs at the threshold share a band; one row more would find fewer."""

    def recall(rows: int) -> float:
        return 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows)

    bands, rows = bands_for(threshold)
    assert (bands, rows) == expected
    assert bands * rows <= PERMUTATIONS
    assert recall(rows) >= 0.95
    assert rows == PERMUTATIONS // 2 or recall(rows + 1) < 0.95


def test_near_index_rewritten_records_are_found_and_others_not() -> None:
    """Of 200 texts with three words changed each is found (0.9 and more alike); of 200 others none."""
    originals = [" ".join(_text(seed)) for seed in range(200)]
    rewritten = [" ".join(["new", *_text(seed)[1:-2], "other", "words"]) for seed in range(200)]
    strangers = [" ".join(_text(seed + 5000)) for seed in range(200)]
    assert NearIndex(_sample(originals + strangers), 0.8).repeats == []
    within = NearIndex(_sample([*originals, *rewritten]), 0.8).repeats
    assert [(pair.position, pair.other) for pair in within] == [(200 + number, number) for number in range(200)]
    assert all(pair.similarity >= 0.8 for pair in within)
    across = NearIndex(_sample(originals), 0.8).find_all(_sample([*strangers, *rewritten]), range(300))
    assert [(pair.position, pair.other) for pair in across] == [(200 + number, number) for number in range(100)]


def test_near_index_record_like_a_repetition_only_is_none() -> None:
    """What repeats an earlier record stands for nothing new: so thousands that are alike cost no square of them."""
    first = _text(0)
    second = [*first[:-6], *_text(1, 6)]
    third = [*_text(2, 10), *second[10:]]
    texts = [" ".join(words) for words in (first, second, third)]
    assert [pair.position for pair in NearIndex(_sample(texts[1:]), 0.8).repeats] == [1]
    assert [(pair.position, pair.other) for pair in NearIndex(_sample(texts), 0.8).repeats] == [(1, 0)]


def test_near_index_threshold_of_one_takes_equal_texts_only() -> None:
    """Spacing and case aside, every word counts then."""
    texts = [" ".join(_text(0)), "  ".join(_text(0)).upper(), " ".join([*_text(0)[:-1], "other"])]
    pairs = NearIndex(_sample(texts), 1.0).repeats
    assert [(pair.position, pair.other, pair.similarity) for pair in pairs] == [(1, 0, 1.0)]


def test_near_sample_many_records_takes_the_same_in_any_order() -> None:
    """At most the limit, at least half of it, no repetition; which ones depends on the records alone."""
    texts = [f"record number {number} of some" for number in range(3000)]
    taken = []
    for seed in range(3):
        shuffled = [*texts, *texts[:50]]
        random.Random(seed).shuffle(shuffled)
        sample = _sample(shuffled, limit=200)
        assert sample.positions == sorted(sample.positions)
        assert len(sample.signatures) == len(sample.positions)
        taken.append({shuffled[position] for position in sample.positions})
        assert 50 <= len(taken[-1]) <= 200
        assert sample.share == 1 / 16
    assert taken[0] == taken[1] == taken[2]
    assert len(taken[0]) == len(sample.positions)


def test_near_sample_of_nothing_takes_nothing() -> None:
    """A limit of 0 looks at no record and computes no signature of those that follow."""
    sample = _sample(["a b c d", "e f g h"], limit=0)
    assert sample.positions == []
    assert NearIndex(sample, 0.8).repeats == []
