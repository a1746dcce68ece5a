"""Each record through the filters and the tokenizer, counted either way, with what the hard stops need to know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from codex_ml.config.schema.data import DataSection
from codex_ml.data.accounting import NO_SUPERVISED_TOKENS, OVERLONG, SAFETY_DROP, SplitAccount
from codex_ml.data.problems import Problems
from codex_ml.data.records.chat import MessagesRecord, redacted_sides
from codex_ml.data.records.formats import Record, TextRecord, map_strings
from codex_ml.data.sources import SourceRecord
from codex_ml.data.tokenization.tokenizer import RecordTokenizer, TokenizedRecord
from codex_ml.data.tokenization.truncation import shorten
from codex_ml.errors import DataError, SafetyError

_EXAMPLE_CHARACTERS = 300


class FindingLike(Protocol):
    """What the pipeline needs to know of a finding."""

    @property
    def rule_id(self) -> str:
        """Id of the rule that matched."""
        ...

    @property
    def start(self) -> int:
        """Offset of the span in the field, in characters."""
        ...

    @property
    def length(self) -> int:
        """Length of the span in characters."""
        ...


class FilteredLike(Protocol):
    """A text after the safety filters."""

    @property
    def text(self) -> str:
        """The text as it may be used."""
        ...

    @property
    def action(self) -> str:
        """``keep``, ``redact``, ``drop`` or ``block``."""
        ...

    @property
    def findings(self) -> Sequence[FindingLike]:
        """What was found."""
        ...


FilterText = Callable[[str], FilteredLike]


class FoundSpan(NamedTuple):
    """A finding, without what was found."""

    rule_id: str
    start: int
    length: int


class FoundIn(NamedTuple):
    """What was found in one field of one record, and what was done about it."""

    record_id: str
    field: str
    action: str
    spans: tuple[FoundSpan, ...]


@dataclass
class _EosTracker:
    """Whether the records of one split owe an end-of-sequence token that is learned, and an example for the message."""

    is_owed: bool = False
    is_supervised: bool = False
    example: TokenizedRecord | None = None


class RecordBuilder:
    """Takes each record through the filters and the tokenizer.

    Attributes
    ----------
    problems : Problems
        What is wrong with records, for the caller to raise.
    findings : dict
        What the filters found, by split, in the order of the records.
    left_out : dict
        In how many conversations of a split the chat template has no place for something.
    """

    def __init__(self, data: DataSection, tokenizer: RecordTokenizer, filter_text: FilterText) -> None:
        self._data = data
        self._tokenizer = tokenizer
        self._filter_text = filter_text
        self.problems = Problems()
        self.findings: dict[str, list[FoundIn]] = {}
        self.left_out: dict[str, Counter[str]] = {}
        self._ends: dict[str, _EosTracker] = {}

    def build(self, source: SourceRecord, split: str, account: SplitAccount) -> TokenizedRecord | None:
        """Return the tokenised record, or None where it was dropped or is faulty; either way it is counted.

        Raises
        ------
        SafetyError
            If the policy blocks the record.
        """
        account.records_read += 1
        record, action, redacted_fields = self._filter(source, split)
        account.records_redacted += action == "redact"
        if action == "drop":
            account.drop(SAFETY_DROP)
            return None
        whole = self._tokenized(source, split, record)
        if whole is None:
            return None
        try:
            kept = shorten(
                whole, self._data.max_length_tokens, self._data.on_overlong, self._tokenizer.leading_tokens(whole)
            )
        except ValueError as error:
            self.problems.add(source.record_id, str(error), _FIX_LENGTH)
            return None
        tokenised = len(whole.input_ids)
        if kept is None:
            account.drop(OVERLONG, tokenised)
            return None
        self._note_end(split, kept, record)
        supervised = kept.supervised_count
        if not supervised:
            account.drop(NO_SUPERVISED_TOKENS, tokenised)
            return None
        account.keep(tokenised, supervised, len(kept.input_ids) - supervised)
        in_prompt, in_reference = _redacted_parts(record, redacted_fields)
        return replace(kept, prompt_redacted=in_prompt, reference_redacted=in_reference)

    def _tokenized(self, source: SourceRecord, split: str, record: Record) -> TokenizedRecord | None:
        before = self._tokenizer.left_out.copy()
        try:
            return self._tokenizer.tokenize(source.record_id, record)
        except ValueError as error:
            self.problems.add(source.record_id, str(error), _FIX_TEXT)
            return None
        finally:
            if self._tokenizer.left_out != before:
                self.left_out.setdefault(split, Counter()).update(self._tokenizer.left_out - before)

    def refuse_unlearnable(self, split: str, account: SplitAccount) -> None:
        """Stop when a split has records but none of them teaches the model to answer, or to end its answer."""
        end = self._ends.get(split, _EosTracker())
        if account.dropped[NO_SUPERVISED_TOKENS] and not account.records_kept:
            self._refuse(f"no token of the split {split!r} is supervised", "there is nothing to learn from it", end)
        if end.is_owed and not end.is_supervised:
            self._refuse(
                f"in the split {split!r} the end-of-sequence token is never supervised",
                "a model trained on this would not learn to stop, and one measured on it is not asked whether it does",
                end,
            )

    def _filter(self, source: SourceRecord, split: str) -> tuple[Record, str, frozenset[str]]:
        """Pass every string through the safety filters.

        Return the record as it may be used, the severest action, and the fields whose text is another now.
        """
        actions: list[str] = []
        redacted: set[str] = set()

        def change(field: str, text: str) -> str:
            filtered = self._filter_text(text)
            if filtered.findings:
                spans = tuple(FoundSpan(found.rule_id, found.start, found.length) for found in filtered.findings)
                self.findings.setdefault(split, []).append(FoundIn(source.record_id, field, filtered.action, spans))
            if filtered.action == "block":
                rules = ", ".join(sorted({finding.rule_id for finding in filtered.findings})) or "unknown"
                raise SafetyError(
                    f"{source.record_id}: the safety policy blocks {field} (rule {rules})",
                    why="the rule's action is block, or the rule failed on this text and nothing is known about it",
                    fix="remove the record, or change the rule in a policy of your own (safety.policy=FILE)",
                )
            actions.append(filtered.action)
            if filtered.text != text:
                redacted.add(field)
            return filtered.text

        record = map_strings(source.record, change)
        severest = next((action for action in ("drop", "redact") if action in actions), "keep")
        return record, severest, frozenset(redacted)

    def _note_end(self, split: str, record: TokenizedRecord, source: Record) -> None:
        if isinstance(source, TextRecord):
            return
        watch = self._ends.setdefault(split, _EosTracker())
        watch.is_owed = True
        if not watch.is_supervised:
            ends = self._tokenizer.end_ids(source)
            pairs = zip(record.input_ids, record.supervised, strict=True)
            watch.is_supervised = any(token in ends and learned for token, learned in pairs)
            watch.example = watch.example or record

    def _refuse(self, what: str, why: str, end: _EosTracker) -> None:
        shown = ""
        if (example := end.example) is not None:
            shown = (
                f"; an example, with what is supervised in ⟦ ⟧, is {example.record_id}:\n       {self._show(example)}"
            )
        raise DataError(
            f"data: {what}",
            why=why + shown,
            fix="look at the chat template ({% generation %} around content and end-of-sequence), data.format, "
            "data.max_length_tokens, data.on_overlong, and the weight of turns (0: not learned)",
        )

    def _show(self, record: TokenizedRecord) -> str:
        """Return a record decoded with its mask, as far as the safety filters let it be shown."""
        parts: list[str] = []
        start = 0
        mask = record.supervised
        for end in range(1, len(mask) + 1):
            if end == len(mask) or mask[end] != mask[start]:
                text = self._tokenizer.decode(record.input_ids[start:end])
                parts.append(f"⟦{text}⟧" if mask[start] else text)
                start = end
        filtered = self._filter_text("".join(parts))
        if filtered.action in {"drop", "block"}:
            return "(not shown: the safety policy refuses it)"
        text = filtered.text
        if len(text) > 2 * _EXAMPLE_CHARACTERS:
            text = f"{text[:_EXAMPLE_CHARACTERS]} … {text[-_EXAMPLE_CHARACTERS:]}"
        return text.replace("\n", "\\n")


_FIX_TEXT = (
    "correct these records or leave them out; text that answers no prompt is trained on in a file of its own, as "
    '{"text": "…"}'
)
_FIX_LENGTH = (
    "raise data.max_length_tokens, or set data.on_overlong to drop, truncate_prompt_left or truncate_completion (what "
    "is cut is counted)"
)


def _redacted_parts(record: Record, redacted_fields: frozenset[str]) -> tuple[bool, bool]:
    """Tell whether something was redacted in what a model is given of a record, and in what it is to answer."""
    if isinstance(record, TextRecord):
        return False, False
    if not isinstance(record, MessagesRecord):
        return "prompt" in redacted_fields, "completion" in redacted_fields
    return redacted_sides(record, redacted_fields)
