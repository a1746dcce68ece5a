"""What holds for the text metrics whatever the texts are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.eval.metrics import MetricResult
from codex_ml.eval.text_metrics import normalize_answer
from codex_ml.registry import METRICS
from tiers import examples

FAST = examples(25)
# Words that meet often, beside any text at all.
TEXTS = st.one_of(
    st.lists(st.sampled_from(["red", "bird", "the", "a", "7", "é", "!", "."]), max_size=6).map(" ".join),
    st.text(max_size=12),
)
PAIRS = st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)), min_size=1, max_size=4)
NAMES = ("bleu", "chrf", "rouge_1", "rouge_2", "rouge_l", "rouge_lsum", "f1", "exact_match")


def score(name: str, pairs: list[tuple[str, list[str]]]) -> MetricResult:
    """Score pairs of a prediction and its references."""
    metric = METRICS.get(name).score_text
    assert metric is not None
    return metric([prediction for prediction, _ in pairs], [references for _, references in pairs])


@pytest.mark.parametrize("name", NAMES)
@FAST
@given(pairs=PAIRS)
def test_text_metric_any_texts_stay_on_the_scale_in_any_order(name: str, pairs: list[tuple[str, list[str]]]) -> None:
    """Values lie on the scale, the order of the records does not matter, undefined counts records."""
    result = score(name, pairs)
    top = 100.0 if result.scale == "0-100" else 1.0
    assert -1e-9 <= result.value <= top + 1e-9
    assert 0 <= result.undefined <= len(pairs)
    assert score(name, pairs[::-1]).value == pytest.approx(result.value, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("bleu", "chrf")])
@FAST
@given(pairs=PAIRS, further=TEXTS)
def test_record_metric_one_more_reference_never_lowers_it(
    name: str, pairs: list[tuple[str, list[str]]], further: str
) -> None:
    """The best reference counts, so another can only help."""
    more = [(prediction, [*references, further]) for prediction, references in pairs]
    assert score(name, more).value >= score(name, pairs).value


@FAST
@given(text=TEXTS)
def test_normalize_answer_exact_match_and_f1_agree_on_equal_texts(text: str) -> None:
    """A text matches itself exactly; its F1 is 1 as soon as a token of it is left."""
    assert score("exact_match", [(text, [text])]).value == 1.0
    assert score("f1", [(text, [text])]).value == float(bool(normalize_answer(text)))
