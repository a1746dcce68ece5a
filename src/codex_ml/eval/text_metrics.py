"""BLEU, chrF, ROUGE, token F1 and exact match: library or published definition, settings in the open, no network."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any, Literal

from codex_ml.errors import UserError
from codex_ml.eval.metrics import Metric, MetricResult, require_pairs

# sacrebleu knows more, but those download a model or need another package.
BLEU_TOKENIZERS = ("13a", "intl", "zh", "char", "none")
BLEU_SMOOTHINGS = ("exp", "floor", "add-k", "none")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)


def bleu(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenize: str = "13a",
    smooth_method: str = "exp",
    smooth_value: float | None = None,
    effective_order: bool = False,
    lowercase: bool = False,
    max_ngram_order: int = 4,
) -> MetricResult:
    """Return corpus BLEU on 0-100, computed by sacrebleu (Papineni et al. 2002; Post 2018).

    Parameters
    ----------
    tokenize : str
        One of `BLEU_TOKENIZERS`; ``"13a"`` cuts words as WMT does, ``"zh"`` and ``"char"`` suit texts without spaces.
    smooth_method : str
        One of `BLEU_SMOOTHINGS`.
    smooth_value : float, optional
        For ``"floor"`` (0.1 by default) and ``"add-k"`` (1 by default).
    effective_order : bool
        Leave out the orders that a short set does not reach; meant for single sentences.
    lowercase : bool
        Ignore case.
    max_ngram_order : int
        Longest n-gram.

    Raises
    ------
    UserError
        If a setting is unknown, the set is empty, or predictions and references do not pair up.
    """
    from sacrebleu.metrics.bleu import BLEU as SacreBLEU  # noqa: N811 - our registry entry has the short name

    require_pairs("bleu", predictions, references)
    require_bleu_tokenizer(tokenize)
    _require_one_of("bleu: smooth_method", smooth_method, BLEU_SMOOTHINGS)
    # force: only silences the guess that texts ending in " ." were tokenized; it changes no number.
    scorer = SacreBLEU(
        lowercase=lowercase,
        force=True,
        tokenize=tokenize,
        smooth_method=smooth_method,
        smooth_value=smooth_value,
        max_ngram_order=max_ngram_order,
        effective_order=effective_order,
    )
    value = scorer.corpus_score(list(predictions), _by_position(references)).score
    settings = {
        "tokenize": tokenize,
        "smooth_method": smooth_method,
        "smooth_value": smooth_value,
        "effective_order": effective_order,
        "lowercase": lowercase,
        "max_ngram_order": max_ngram_order,
    }
    signature = f"bleu|order:{max_ngram_order}|{scorer.get_signature().format()}"
    return MetricResult("bleu", float(value), "0-100", True, signature, settings)


def chrf(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    char_order: int = 6,
    word_order: int = 0,
    beta: int = 2,
    lowercase: bool = False,
    whitespace: bool = False,
    eps_smoothing: bool = False,
) -> MetricResult:
    """Return corpus chrF on 0-100, computed by sacrebleu (Popović 2015); ``word_order=2`` makes it chrF++.

    Raises
    ------
    UserError
        If the set is empty, or predictions and references do not pair up.
    """
    from sacrebleu.metrics.chrf import CHRF as SacreCHRF  # noqa: N811 - our registry entry has the short name

    require_pairs("chrf", predictions, references)
    settings: dict[str, Any] = {
        "char_order": char_order,
        "word_order": word_order,
        "beta": beta,
        "lowercase": lowercase,
        "whitespace": whitespace,
        "eps_smoothing": eps_smoothing,
    }
    scorer = SacreCHRF(**settings)
    value = scorer.corpus_score(list(predictions), _by_position(references)).score
    signature = f"chrf|beta:{beta}|{scorer.get_signature().format()}"
    return MetricResult("chrf", float(value), "0-100", True, signature, settings)


def rouge(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    name: Literal["rouge_1", "rouge_2", "rouge_l", "rouge_lsum"] = "rouge_l",
    use_stemmer: bool = False,
) -> MetricResult:
    """Return the mean ROUGE F-measure on 0-1, computed by rouge-score (Lin 2004); of several references the best.

    rouge-score lowers the text and drops every character outside ``a-z0-9``: accents cut words apart, and a text in
    another script has nothing left and scores 0. ``undefined`` counts the records where that took away everything
    that could have been scored: no reference has a word left, or a prediction that was not blank has none.

    Parameters
    ----------
    name : str
        1 and 2 for n-grams, ``l`` for the longest common subsequence of the whole text, ``lsum`` line by line.
    use_stemmer : bool
        Compare Porter stems, which only makes sense in English.

    Raises
    ------
    UserError
        If the set is empty, or predictions and references do not pair up.
    """
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    require_pairs(name, predictions, references)
    rouge_type = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL", "rouge_lsum": "rougeLsum"}[name]
    tokenizer = DefaultTokenizer(use_stemmer)
    scorer = RougeScorer([rouge_type], tokenizer=tokenizer)
    total, undefined = 0.0, 0
    for prediction, texts in zip(predictions, references, strict=True):
        total += max(float(scorer.score(text, prediction)[rouge_type].fmeasure) for text in texts)
        reference_left = any(tokenizer.tokenize(text) for text in texts)
        prediction_left = not prediction.strip() or tokenizer.tokenize(prediction)
        undefined += not (reference_left and prediction_left)
    signature = (
        f"{name}|stem:{'yes' if use_stemmer else 'no'}|chars:a-z0-9|refs:best|mean:records"
        f"|version:{version('rouge-score')}"
    )
    value = total / len(predictions)
    return MetricResult(name, value, "0-1", True, signature, {"use_stemmer": use_stemmer}, undefined)


def normalize_answer(text: str) -> str:
    """Lower, drop ASCII punctuation, drop the articles a, an and the, and join what is left by single spaces.

    The published evaluation of SQuAD v1.1 (Rajpurkar et al. 2016), in its order: a full stop between letters joins
    them ("U.S.A." is "usa").
    """
    bare = "".join(character for character in text.lower() if character not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def f1(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> MetricResult:
    """Return the mean token F1 on 0-1 after `normalize_answer`; of several references the best.

    As published for SQuAD v1.1, nothing shared is 0, so two empty answers have an F1 of 0 (and match exactly).
    ``undefined`` counts the records of which no reference has a token left.
    """
    return _mean_of_best("f1", predictions, references, _token_f1)


def exact_match(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> MetricResult:
    """Return the share of predictions on 0-1 that equal one of their references after `normalize_answer`.

    ``undefined`` counts the records of which no reference has a token left; only an empty answer matches those.
    """
    return _mean_of_best("exact_match", predictions, references, lambda prediction, text: float(prediction == text))


def require_bleu_tokenizer(name: str) -> None:
    """Raise a `UserError` unless sacrebleu has this tokenizer on board: checked before anything is generated."""
    _require_one_of("bleu: tokenize", name, BLEU_TOKENIZERS)


def _mean_of_best(
    name: str,
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    score: Callable[[str, str], float],
) -> MetricResult:
    require_pairs(name, predictions, references)
    total, undefined = 0.0, 0
    for prediction, texts in zip(predictions, references, strict=True):
        answer, targets = normalize_answer(prediction), [normalize_answer(text) for text in texts]
        total += max(score(answer, target) for target in targets)
        undefined += not any(targets)
    signature = f"{name}|normalize:squad-1.1|refs:best|mean:records"
    return MetricResult(name, total / len(predictions), "0-1", True, signature, {}, undefined)


def _token_f1(prediction: str, reference: str) -> float:
    predicted, wanted = prediction.split(), reference.split()
    shared = sum((Counter(predicted) & Counter(wanted)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _by_position(references: Sequence[Sequence[str]]) -> list[list[Any]]:
    """Turn references by record into sacrebleu's streams by position; None (untyped there) where a record has fewer."""
    most = max(len(texts) for texts in references)
    return [[texts[position] if position < len(texts) else None for texts in references] for position in range(most)]


def _require_one_of(where: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UserError(f"{where} is {value!r}", fix=f"choose from: {', '.join(known)}", code="EVAL_UNKNOWN_OPTION")


BLEU = Metric("bleu", score_text=bleu)
CHRF = Metric("chrf", score_text=chrf)
ROUGE_1 = Metric("rouge_1", score_text=partial(rouge, name="rouge_1"))
ROUGE_2 = Metric("rouge_2", score_text=partial(rouge, name="rouge_2"))
ROUGE_L = Metric("rouge_l", score_text=partial(rouge, name="rouge_l"))
ROUGE_LSUM = Metric("rouge_lsum", score_text=partial(rouge, name="rouge_lsum"))
F1 = Metric("f1", score_text=f1)
EXACT_MATCH = Metric("exact_match", score_text=exact_match)
