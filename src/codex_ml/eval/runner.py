"""One evaluation: loss over the supervised tokens, generation, the safety policy, and the metrics asked for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import nn

from codex_ml.data.batches import AnyBatch
from codex_ml.data.batches import collate as collate_records
from codex_ml.data.storage.arrays import lengths_of, supervised_counts_of
from codex_ml.errors import NonFiniteError, UserError
from codex_ml.eval.metrics import LossTotals, Metric, MetricResult, chosen_metrics
from codex_ml.eval.results import EvaluationResult, Prediction
from codex_ml.eval.text_metrics import require_bleu_tokenizer
from codex_ml.generation.decoding import SamplingSettings
from codex_ml.generation.filters import TextFilter, allowed_text
from codex_ml.generation.generator import TextGenerator, maximum_positions, require_room
from codex_ml.generation.requests import Generation, GenerationRequest
from codex_ml.modeling.forward import supervised_loss
from codex_ml.modeling.modes import evaluation_mode
from codex_ml.registry import METRICS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_IDS_IN_MESSAGES = 5


class EvaluationRecord(Protocol):
    """The part of a tokenized record that an evaluation reads; records of `data` have this shape."""

    @property
    def record_id(self) -> str:
        """Name of the record in messages and results."""
        ...

    @property
    def input_ids(self) -> Sequence[int]:
        """Prompt and completion as trained, with the end-of-sequence token."""
        ...

    @property
    def supervised(self) -> Sequence[bool]:
        """For each token whether it carries loss."""
        ...

    @property
    def prompt_length(self) -> int:
        """How many of the tokens the model is given to generate from."""
        ...

    @property
    def reference(self) -> str | None:
        """The text to be generated; None in a text stream."""
        ...

    @property
    def prompt_redacted(self) -> bool:
        """Whether the safety policy changed the prompt when the record was read."""
        ...

    @property
    def reference_redacted(self) -> bool:
        """Whether the safety policy changed the reference when the record was read."""
        ...


Collate = Callable[[Sequence[Any], int], AnyBatch]
OnFindings = Callable[[str, str, Sequence[Any]], None]
OnProgress = Callable[[str, int, int], None]


def evaluate_model(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[EvaluationRecord],
    *,
    metrics: Sequence[str],
    batch_size: int = 32,
    max_new_tokens: int = 64,
    bleu_tokenize: str = "13a",
    stop_token_ids: Collection[int] | None = None,
    filter_text: TextFilter | None = None,
    on_findings: OnFindings | None = None,
    on_progress: OnProgress | None = None,
    collate: Collate = collate_records,
) -> EvaluationResult:
    """Score a model on records, each exactly once; the batch size changes no number (in float32).

    Parameters
    ----------
    model : nn.Module
        On its device; its mode is left as it was.
    records : sequence of EvaluationRecord
        The whole set, in the order the predictions shall have.
    metrics : sequence of str
        Names in `codex_ml.registry.METRICS`. Text metrics generate; the others need the loss only.
    batch_size : int
        Records in one forward pass.
    max_new_tokens : int
        Limit of a generated answer, in tokens.
    bleu_tokenize : str
        Tokenizer of BLEU.
    stop_token_ids : collection of int, optional
        Tokens that end an answer; by default end-of-sequence, and what the chat template ends turns with.
    filter_text : callable, optional
        Safety policy for prompts before generation, and for predictions and references before they are scored. A text
        that it lets not through at all is scored as an empty one.
    on_findings : callable, optional
        Called with record id, field (``prompt``, ``prediction``, ``reference``) and findings, for the audit.
    on_progress : callable, optional
        Called with ``"loss"`` or ``"generation"``, records done and records in all.
    collate : callable
        ``collate(records, pad_token_id)`` makes records into a batch: padded, or ragged where the model is laid out
        for it.

    Raises
    ------
    UserError
        If the set is empty, a metric is unknown, text metrics meet records without reference, no token is supervised,
        or a record does not fit into the model; all of it before the first forward pass.
    NonFiniteError
        If the loss of a batch is not finite.
    """
    chosen = chosen_metrics(metrics)
    on_model = {name: metric for name, metric in chosen.items() if not metric.needs_text}
    on_text = {name: metric for name, metric in chosen.items() if metric.needs_text}
    _require_records(records, list(on_text))
    supervised_tokens = int(supervised_counts_of(records).sum())
    if "bleu" in on_text:
        require_bleu_tokenizer(bleu_tokenize)
    if on_model:
        _require_loss(model, records, supervised_tokens)
    if on_text:
        require_room(model, [record.prompt_length for record in records], [max_new_tokens] * len(records))

    results: dict[str, MetricResult] = {}
    if on_model:
        pad_id = tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else 0
        totals = _loss_totals(model, records, collate, pad_id, batch_size, on_progress)
        if totals.supervised_tokens != supervised_tokens:
            raise AssertionError(f"{totals.supervised_tokens} tokens were scored, {supervised_tokens} are supervised")
        for name, metric in on_model.items():
            assert metric.score_totals is not None
            results[name] = metric.score_totals(totals)
    generations: list[Generation] = []
    references: list[tuple[str, bool]] = []
    if on_text:
        greedy = SamplingSettings(max_new_tokens)
        generator = TextGenerator(
            model, tokenizer, filter_prompt=filter_text, filter_output=filter_text, stop_token_ids=stop_token_ids
        )
        generations = generator.generate(
            [GenerationRequest(tuple(record.input_ids[: record.prompt_length]), greedy) for record in records],
            batch_size=batch_size,
            on_progress=None if on_progress is None else lambda done, total: on_progress("generation", done, total),
        )
        references = [_safe_reference(record, filter_text, on_findings) for record in records]
        _report_findings(records, generations, on_findings)
        texts = [generation.text for generation in generations]
        results |= _score_texts(on_text, texts, [[text] for text, _ in references], bleu_tokenize)
    return EvaluationResult(
        metrics={name: results[name] for name in chosen},
        records_scored=len(records),
        supervised_tokens=supervised_tokens,
        generated_tokens=sum(generation.token_count for generation in generations),
        predictions=tuple(
            Prediction(record.record_id, generation.text, reference, generation.finish_reason)
            for record, generation, (reference, _) in zip(records, generations, references, strict=True)
        )
        if on_text
        else (),
        redacted_predictions=sum(generation.redacted for generation in generations),
        redacted_references=sum(changed for _, changed in references),
        redacted_prompts=sum(
            record.prompt_redacted or generation.prompt_redacted
            for record, generation in zip(records, generations, strict=True)
        )
        if on_text
        else 0,
        finish_reasons=dict(sorted(Counter(generation.finish_reason for generation in generations).items())),
        settings={
            "metrics": list(chosen),
            "batch_size": batch_size,
            "max_new_tokens": max_new_tokens,
            "decoding": "greedy",
            "stop_token_ids": None if stop_token_ids is None else sorted(stop_token_ids),
            "bleu_tokenize": bleu_tokenize,
        },
    )


def _require_records(records: Sequence[EvaluationRecord], text_metrics: Sequence[str]) -> None:
    if not records:
        raise UserError(
            "the evaluation set is empty",
            why="a metric over no records is not a number",
            fix="choose another split (eval.split), or give the split records (data.split.ratios)",
            code="EVAL_SET_EMPTY",
        )
    without = sum(record.reference is None for record in records) if text_metrics else 0
    if without:
        others = [name for name in METRICS.names() if not METRICS.get(name).needs_text]
        raise UserError(
            f"eval.metrics: {', '.join(text_metrics)} cannot score {without} of {len(records)} records",
            why="they are text streams: there is no prompt to answer and no reference to compare with",
            fix=f"ask for metrics of the model instead: eval.metrics=[{','.join(others)}]",
            code="EVAL_REFERENCE_MISSING",
        )


def _require_loss(model: nn.Module, records: Sequence[EvaluationRecord], supervised_tokens: int) -> None:
    if supervised_tokens == 0:
        raise UserError(
            f"none of the {len(records)} evaluation records has a supervised token",
            why="the loss is a mean over supervised tokens",
            fix="look at the data account: were the completions cut off or empty?",
            code="EVAL_NO_SUPERVISED_TOKEN",
        )
    limit = maximum_positions(model)
    lengths = lengths_of(records)
    too_long = 0 if limit is None else int((lengths > limit).sum())
    if too_long:
        longest = records[int(lengths.argmax())]
        raise UserError(
            f"{too_long} evaluation records are longer than the {limit} positions of the model",
            why=f"the longest, {longest.record_id}, has {len(longest.input_ids)} tokens",
            fix=f"set data.max_length_tokens={limit} and say with data.on_overlong what happens to longer records",
            code="EVAL_RECORD_TOO_LONG",
        )


def _loss_totals(
    model: nn.Module,
    records: Sequence[EvaluationRecord],
    collate: Collate,
    pad_id: int,
    batch_size: int,
    on_progress: OnProgress | None,
) -> LossTotals:
    """Sum loss and correct tokens over all records, longest first: little padding, and lack of memory shows early."""
    device = next(model.parameters()).device
    # Positions, not records: the set may be larger than the memory.
    order = np.argsort(-lengths_of(records), kind="stable")
    loss_sum, correct, supervised = 0.0, 0, 0
    with evaluation_mode(model):
        for start in range(0, len(order), batch_size):
            rows = [records[int(position)] for position in order[start : start + batch_size]]
            scored = supervised_loss(model, collate(rows, pad_id).to(device))
            batch_sum = float(scored.loss_sum)
            if not math.isfinite(batch_sum):
                ids = ", ".join(record.record_id for record in rows[:_IDS_IN_MESSAGES])
                raise NonFiniteError(
                    f"the evaluation loss is {batch_sum} in a batch of {len(rows)} records ({ids}"
                    f"{', …' if len(rows) > _IDS_IN_MESSAGES else ''})",
                    why="a mean over it would not be a number",
                    fix="check the weights of the checkpoint; model.dtype=float32 shows whether precision is the cause",
                    code="EVAL_LOSS_NOT_FINITE",
                )
            # Python floats are 64 bit: the sum over a large set loses nothing that a batch still had.
            loss_sum += batch_sum
            correct += int(scored.correct)
            supervised += scored.supervised
            if on_progress is not None:
                on_progress("loss", min(start + batch_size, len(order)), len(order))
    return LossTotals(loss_sum, correct, supervised)


def _safe_reference(
    record: EvaluationRecord, filter_text: TextFilter | None, on_findings: OnFindings | None
) -> tuple[str, bool]:
    """Return the reference after the policy, and whether the policy changed it, here or when the record was read."""
    reference = record.reference or ""
    if filter_text is None:
        return reference, record.reference_redacted
    filtered = filter_text(reference)
    if filtered.findings and on_findings is not None:
        on_findings(record.record_id, "reference", filtered.findings)
    safe = allowed_text(filtered) or ""
    return safe, record.reference_redacted or safe != reference


def _report_findings(
    records: Sequence[EvaluationRecord], generations: Sequence[Generation], on_findings: OnFindings | None
) -> None:
    if on_findings is None:
        return
    for record, generation in zip(records, generations, strict=True):
        for field_name, findings in (
            ("prompt", generation.prompt_findings),
            ("prediction", generation.output_findings),
        ):
            if findings:
                on_findings(record.record_id, field_name, findings)


def _score_texts(
    metrics: Mapping[str, Metric],
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    bleu_tokenize: str,
) -> dict[str, MetricResult]:
    settings: dict[str, dict[str, Any]] = {"bleu": {"tokenize": bleu_tokenize}}
    results = {}
    for name, metric in metrics.items():
        assert metric.score_text is not None
        results[name] = metric.score_text(predictions, references, **settings.get(name, {}))
    return results
