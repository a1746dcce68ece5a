"""The edges of the metrics: empty, identical, disjoint, other scripts, and sets that cannot be scored."""

from __future__ import annotations

import math
from typing import Any

import pytest

from codex_ml.errors import NonFiniteError, UserError
from codex_ml.eval.metrics import LossTotals, Metric, MetricResult, chosen_metrics
from codex_ml.eval.text_metrics import normalize_answer
from codex_ml.registry import METRICS
from error_checks import has_code

TEXT_METRICS = ("bleu", "chrf", "rouge_1", "rouge_2", "rouge_l", "rouge_lsum", "f1", "exact_match")
MODEL_METRICS = ("loss", "perplexity", "token_accuracy")


def score(name: str, predictions: list[str], references: list[list[str]], **settings: Any) -> MetricResult:
    """Score with a text metric of the registry."""
    metric = METRICS.get(name).score_text
    assert metric is not None
    return metric(predictions, references, **settings)


def test_metrics_registry_names_are_those_documented() -> None:
    """The registry holds the text and the model metrics, and knows which are which."""
    assert METRICS.names() == sorted((*TEXT_METRICS, *MODEL_METRICS))
    assert [name for name in METRICS.names() if METRICS.get(name).needs_text] == sorted(TEXT_METRICS)
    assert all(METRICS.get(name).name == name for name in METRICS.names())


def test_metrics_unknown_name_suggests_the_nearest() -> None:
    """A misspelt metric is refused with what was probably meant."""
    with pytest.raises(UserError, match="unknown metric 'rouge_L'") as caught:
        chosen_metrics(["bleu", "rouge_L"])
    assert "did you mean 'rouge_l'" in caught.value.fix


@pytest.mark.parametrize(("names", "message"), [([], "empty"), (["f1", "bleu", "f1"], "f1 more than once")])
def test_metrics_choice_empty_or_repeated_is_refused(names: list[str], message: str) -> None:
    """Asking for nothing, or for one metric twice, is an error."""
    with pytest.raises(UserError, match=message):
        chosen_metrics(names)


@pytest.mark.parametrize("name", TEXT_METRICS)
def test_text_metric_identical_texts_reach_the_top(name: str) -> None:
    """A prediction that equals its reference has the best value of the scale."""
    text = "the quick brown fox jumps over the lazy dog"
    result = score(name, [text, text], [[text], ["nothing alike here", text]])
    assert result.value == pytest.approx(100.0 if result.scale == "0-100" else 1.0)
    assert (result.name, result.higher_is_better, result.undefined) == (name, True, 0)
    assert result.signature.startswith(f"{name}|")


@pytest.mark.parametrize("name", TEXT_METRICS)
@pytest.mark.parametrize("prediction", ["", "zzz qqq"])
def test_text_metric_disjoint_or_empty_prediction_is_zero(name: str, prediction: str) -> None:
    """Nothing shared is 0, and so is no answer; neither is undefined."""
    result = score(name, [prediction], [["one two three four five"]])
    assert result.value == pytest.approx(0.0, abs=1e-12)
    assert result.undefined == 0


@pytest.mark.parametrize("name", TEXT_METRICS)
def test_text_metric_several_references_takes_the_best_of_them(name: str) -> None:
    """Records may have different numbers of references, and a further one never hurts a matching prediction."""
    predictions = ["a cat sat on my mat", "two red birds fly home"]
    one = score(name, predictions, [["something else entirely"], ["two red birds fly home"]])
    more = score(name, predictions, [["something else entirely", "a cat sat on my mat"], ["two red birds fly home"]])
    assert more.value > one.value


@pytest.mark.parametrize("name", TEXT_METRICS)
def test_text_metric_empty_set_is_an_error(name: str) -> None:
    """No record gives no number."""
    with pytest.raises(UserError, check=lambda error: has_code(error, "EVAL_SET_EMPTY")):
        score(name, [], [])


@pytest.mark.parametrize("name", TEXT_METRICS)
def test_text_metric_lengths_that_differ_are_an_error(name: str) -> None:
    """A prediction without its record is never scored against another's, nor dropped by zip."""
    with pytest.raises(UserError, match="2 predictions for 1 records"):
        score(name, ["a", "b"], [["a"]])


@pytest.mark.parametrize("name", TEXT_METRICS)
def test_text_metric_record_without_reference_is_an_error(name: str) -> None:
    """An empty list of references is named by its number."""
    with pytest.raises(UserError, match="1 records have no reference, first number 2"):
        score(name, ["a", "b"], [["a"], []])


@pytest.mark.parametrize("name", ["rouge_1", "rouge_2", "rouge_l", "rouge_lsum"])
def test_rouge_chinese_is_counted_as_undefined(name: str) -> None:
    """A text of which rouge-score leaves nothing scores 0, and the result says how often."""
    result = score(name, ["你好 世界", "red bird", "你好"], [["你好 世界"], ["red bird"], ["red bird"]])
    assert result.undefined == 2
    assert result.value == pytest.approx(1 / 3)


def test_bleu_chinese_needs_its_tokenizer() -> None:
    """Cut into characters, a shared sentence counts; cut at spaces, the changed sentence is one other word."""
    predictions, references = ["我们今天去公园散步吧"], [["我们今天去公园跑步吧"]]
    assert score("bleu", predictions, references, tokenize="zh").value > 40
    assert score("bleu", predictions, references).value == 0


@pytest.mark.parametrize("tokenize", ["flores200", "spm", "13A"])
def test_bleu_tokenizer_that_is_unknown_or_downloads_is_refused(tokenize: str) -> None:
    """Tokenizers that fetch a model are refused before they try, with those that work."""
    with pytest.raises(UserError, match="bleu: tokenize") as caught:
        score("bleu", ["a"], [["a"]], tokenize=tokenize)
    assert "13a, intl, zh, char, none" in caught.value.fix


def test_bleu_signature_names_every_setting_that_changes_the_number() -> None:
    """The signature is sacrebleu's, with the order added, and follows the settings."""
    plain = score("bleu", ["a b"], [["a b"]]).signature
    other = score("bleu", ["a b"], [["a b"]], lowercase=True, smooth_method="add-k", max_ngram_order=2).signature
    assert plain.startswith("bleu|order:4|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert other.startswith("bleu|order:2|nrefs:1|case:lc|eff:no|tok:13a|smooth:add-k[1.00]|version:")


def test_rouge_stemmer_matches_other_forms_and_says_so() -> None:
    """With stems, running meets runs; the signature tells the two apart."""
    plain = score("rouge_l", ["running home"], [["runs home"]])
    stemmed = score("rouge_l", ["running home"], [["runs home"]], use_stemmer=True)
    assert (plain.value, stemmed.value) == (0.5, 1.0)
    assert "stem:no" in plain.signature
    assert "stem:yes" in stemmed.signature


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Cat,\n sat!", "cat sat"),
        ("U.S.A.", "usa"),
        ("an apple a day", "apple day"),
        ("theater", "theater"),
        ("Ünïcode «ok»", "ünïcode «ok»"),
        ("the", ""),
        ("don't", "dont"),
    ],
)
def test_normalize_answer_squad_rules_are_applied_in_their_order(text: str, expected: str) -> None:
    """Case, ASCII punctuation, articles and white space go, and nothing else."""
    assert normalize_answer(text) == expected


def test_f1_both_empty_after_normalisation_is_zero_and_undefined() -> None:
    """SQuAD v1.1 gives two empty answers an exact match of 1 and an F1 of 0; both are counted as undefined."""
    assert (score("f1", ["a"], [["the"]]).value, score("exact_match", ["a"], [["the"]]).value) == (0.0, 1.0)
    assert score("f1", ["a"], [["the"]]).undefined == score("exact_match", ["a"], [["the"]]).undefined == 1


def test_f1_repeated_tokens_count_as_often_as_both_hold_them() -> None:
    """Tokens are counted, not only looked up: precision 2/3, recall 2/4."""
    assert score("f1", ["red red red"], [["red red blue green"]]).value == pytest.approx(4 / 7)


def test_model_metrics_totals_give_mean_exponential_and_share() -> None:
    """Loss is per supervised token, perplexity its exponential, accuracy a share."""
    totals = LossTotals(loss_sum=6.0, correct=1, supervised_tokens=4)
    results = {}
    for name in MODEL_METRICS:
        metric = METRICS.get(name).score_totals
        assert metric is not None
        results[name] = metric(totals)
    assert results["loss"].value == 1.5
    assert results["perplexity"].value == pytest.approx(math.exp(1.5))
    assert results["token_accuracy"].value == 0.25
    assert [results[name].higher_is_better for name in MODEL_METRICS] == [False, False, True]


def test_perplexity_beyond_a_float_is_an_error() -> None:
    """An exponential that does not fit is refused, not written as infinity."""
    metric = METRICS.get("perplexity").score_totals
    assert metric is not None
    with pytest.raises(NonFiniteError, match="metric perplexity is inf"):
        metric(LossTotals(loss_sum=4000.0, correct=0, supervised_tokens=4))


def test_metric_entry_that_scores_nothing_is_refused() -> None:
    """A plugin has to bring exactly one way to score."""
    with pytest.raises(ValueError, match="either text or totals"):
        Metric("empty")
