"""The labelled set is well made, and the packaged policy does on it what the benchmark publishes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from safety_quality import look_at_prose, score, score_formats
from safety_set.check_digits import account, card, segwit_address
from safety_set.format_named import named_positives
from safety_set.format_negatives import format_negatives
from safety_set.format_types import format_positives
from safety_set.labelled import Labelled
from safety_set.negatives import hard_negatives, ordinary_texts
from safety_set.phrase_cases import PHRASE_CASES
from safety_set.positives import TYPES, further, positives

from codex_ml.safety.filters import SafetyFilters
from codex_ml.safety.policy import load_policy

pytestmark = pytest.mark.safety

# What is published, and may not fall; the bars of issue 6 are 0.97, 0.95 and 0.97.
RECALL_COMMON, RECALL_MEAN_OVER_TYPES, HARD_NEGATIVES_UNTOUCHED = 0.99, 0.98, 0.99


def test_set_is_as_large_as_it_says() -> None:
    """Six hundred positives of forty types and six hundred negatives at least, each text once."""
    texts = positives()
    assert len(texts) >= 1900
    assert len({span.type for item in texts for span in item.spans}) == len(TYPES) >= 180
    assert len({item.context for item in texts}) >= 18
    assert len(hard_negatives()) >= 700
    assert len(ordinary_texts()) >= 400
    assert len(PHRASE_CASES) >= 60
    assert len(further()) >= 480
    everything = [item.text for item in (*texts, *further(), *hard_negatives(), *ordinary_texts())]
    doubled = {text: count for text, count in Counter(everything).items() if count > 1}
    assert doubled == {}


def test_set_spans_lie_apart_inside_their_texts() -> None:
    """A label stands around something, in order, and negatives have none."""
    for item in (*positives(), *further()):
        position = 0
        for span in item.spans:
            assert position <= span.start < span.end <= len(item.text)
            position = span.end
    assert not any(item.spans for item in (*hard_negatives(), *ordinary_texts()))


def test_set_each_type_stands_in_many_contexts() -> None:
    """Where a value stands is half of how hard it is to see."""
    contexts: dict[str, set[str]] = {}
    for item in positives():
        for span in item.spans:
            contexts.setdefault(span.type, set()).add(item.context)
    assert min(len(found) for found in contexts.values()) >= 5
    assert sum(len(found) >= 8 for found in contexts.values()) > 170


def test_set_check_digits_are_right_by_another_computation() -> None:
    """Cards by Luhn as in python-stdnum, accounts by their remainder, addresses by python-stdnum's bech32."""
    import random

    from stdnum import bitcoin, iban, luhn

    generator = random.Random(1)
    assert all(luhn.is_valid(card(generator, "4", 16)) for _ in range(50))
    assert all(iban.is_valid(account(generator, "DE", "n" * 18)) for _ in range(20))
    assert all(bitcoin.is_valid(segwit_address(generator)) for _ in range(20))


@pytest.mark.slow
def test_set_is_the_same_whatever_the_hash_seed(repository_root: Path) -> None:
    """Two processes with other hashes make the same texts."""
    code = (
        "import hashlib; from safety_set.positives import further, positives; from safety_set.negatives import *;"
        "print(hashlib.sha256(repr((positives(), further(), hard_negatives(), ordinary_texts())).encode()).hexdigest())"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(repository_root / "benchmarks")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(answers) == 1


def test_score_packaged_policy_keeps_what_is_published() -> None:
    """A rule that is changed for the worse shows here."""
    lines: list[str] = []
    figures = score(SafetyFilters(load_policy("default")), lines)
    assert figures["recall_common"] >= RECALL_COMMON, lines
    assert figures["recall_mean_over_types"] >= RECALL_MEAN_OVER_TYPES, lines
    assert figures["hard_negatives_untouched"] >= HARD_NEGATIVES_UNTOUCHED, lines
    assert figures["ordinary_untouched"] == 1.0, lines
    assert figures["phrase_cases_right"] == figures["phrase_cases"], lines


def test_score_policy_that_finds_nothing_scores_nothing() -> None:
    """The figures measure: without rules for it nothing is found, and with a rule for everything little is left."""
    off = SafetyFilters(load_policy("default"), enabled=False, bypass_reason="to be measured")
    lines: list[str] = []
    figures = score(off, lines)
    assert figures["recall"] == 0.0
    assert figures["precision"] == 0.0
    assert figures["hard_negatives_untouched"] == 1.0
    assert sum(line.startswith("missed") for line in lines) == figures["positives"]


def test_look_at_prose_counts_and_shows_each_finding(tmp_path: Path) -> None:
    """A finding is shown with its surroundings, for a person to judge."""
    (tmp_path / "a.jsonl").write_text('{"text": "write to jane@example.com soon", "n": [{"x": "nothing"}]}\n')
    (tmp_path / "b.txt").write_text("nothing here\n\nand nothing there")
    lines: list[str] = []
    figures = look_at_prose(SafetyFilters(load_policy("default")), tmp_path, 100, lines)
    assert (figures["records"], figures["findings"]) == (3, 1)
    assert "write to ⟦jane@example.com⟧ soon" in lines[0]


def test_labelled_texts_hold_what_is_labelled() -> None:
    """A value that stands twice in what is shown would be labelled at the wrong place."""
    sample = [item for item in positives() if item.context == "bare"]
    assert all(isinstance(item, Labelled) and item.spans for item in sample)


def test_set_of_formats_has_its_published_size() -> None:
    """Every text occurs once, every label has a nonempty span, and the negatives cover three fields."""
    positives_of_formats = [*format_positives(), *named_positives()]
    assert len(positives_of_formats) >= 1000
    assert len({item.context for item in positives_of_formats}) >= 150
    assert all(0 <= span.start < span.end <= len(item.text) for item in positives_of_formats for span in item.spans)
    texts = [item.text for item in (*positives_of_formats, *format_negatives())]
    assert len(set(texts)) == len(texts)
    assert {item.context for item in format_negatives()} == {"medical", "bank", "technical"}
    assert len(format_negatives()) >= 222


def test_score_formats_reaches_the_published_figures() -> None:
    """A worse fold or rule lowers the recall of its class of formats."""
    lines: list[str] = []
    figures = score_formats(SafetyFilters(load_policy("default")), lines)
    assert figures["recall_formats"] >= 0.985, lines
    assert min(value for name, value in figures["recall_formats_by_class"].items() if name != "spaced") >= 0.94, lines
    assert figures["format_negatives_untouched"] == 1.0, lines
