"""From files to tokenised records: read, split, filter, tokenise, shorten, and account for every row and token."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from codex_ml.config.schema.data import DataSection
from codex_ml.data.account import NO_SUPERVISED_TOKENS, OVERLONG, SAFETY_DROP, DataAccount, SplitAccount
from codex_ml.data.manifest import build_manifest, warnings_of
from codex_ml.data.messages import MessagesRecord, redacted_sides
from codex_ml.data.overlong import shorten
from codex_ml.data.problems import Problems
from codex_ml.data.records import Record, TextRecord, map_strings
from codex_ml.data.rejects import Rejects
from codex_ml.data.sources import SourceRecord, read_sources
from codex_ml.data.split_utils import SPLIT_NAMES
from codex_ml.data.tokenize import RecordTokenizer, TokenizedRecord
from codex_ml.errors import DataError, SafetyError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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
OnFindings = Callable[[str, str, Sequence[FindingLike], str], None]


@dataclass(frozen=True)
class Dataset:
    """Tokenised records by split, their account, the manifest for ``data_splits.json``, and the lines left out."""

    splits: dict[str, list[TokenizedRecord]]
    account: DataAccount
    manifest: dict[str, Any]
    rejects: tuple[Rejects, ...] = ()

    def require(self, split: str) -> list[TokenizedRecord]:
        """Return the records of a split that a job cannot do without.

        Raises
        ------
        DataError
            If the split was not asked for, or no record fell into it.
        """
        records = self.splits.get(split)
        if records:
            return records
        dropped = self.account.splits[split].records_dropped if split in self.account.splits else 0
        if dropped:
            raise DataError(
                f"data: no record of the split {split!r} is left: all {dropped} were dropped",
                fix="see data_account for the reasons; most often data.max_length_tokens is too small",
            )
        position = SPLIT_NAMES.index(split) if split in SPLIT_NAMES else 0
        raise DataError(
            f"data: the split {split!r} has no record",
            why="no file or share above 0 is given for it" if records is None else "no record fell into its share",
            fix=f"set data.{split}=FILE.jsonl, or with data.path raise data.split.ratios[{position}], add records, "
            "use data.split.exact_sizes=true, or take another data.split.seed",
        )

    def digest(self, split: str) -> str:
        """Return the SHA-256 over the kept records of a split as they stand in the file, for provenance."""
        return str(self.manifest["splits"][split]["digest"])

    def content_digest(self, split: str) -> str:
        """Return the SHA-256 over what the model sees of a split: token ids and supervision of every kept record.

        It differs where tokenizer, template, filters or cuts differ, though the bytes of the file are the same.
        """
        return str(self.manifest["splits"][split]["content_digest"])

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user is to be told of this data, one line each."""
        return warnings_of(self.manifest)


def build_dataset(
    data: DataSection,
    tokenizer: PreTrainedTokenizerBase,
    filter_text: FilterText,
    on_findings: OnFindings,
    splits: Collection[str] = SPLIT_NAMES,
) -> Dataset:
    """Build the records of a run.

    Parameters
    ----------
    data : DataSection
        Where the records lie and how they are read, split and cut.
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.
    filter_text : callable
        The safety filter: every string of a record passes it before anything else is done with the text.
    on_findings : callable
        Takes ``(record_id, field, findings, action)`` for each field in which something was found.
    splits : collection of str
        Which splits are built; the others are divided off and left alone.

    Raises
    ------
    DataError
        If a file or line is faulty, a record is too long (``data.on_overlong=error``), valid or test is the file of
        train, or in any one split more than ``data.max_bad_share`` of the records were dropped, no token is supervised,
        or end-of-sequence never is.
    SafetyError
        If the policy blocks a record; the message names the line and the rule.
    """
    sources = read_sources(data, splits)
    record_tokenizer = RecordTokenizer(tokenizer, data.supervise, data.trust_control_tokens_in_text)
    builder = _Builder(data, record_tokenizer, filter_text, on_findings)
    built: dict[str, list[tuple[SourceRecord, TokenizedRecord]]] = {}
    account = DataAccount()
    for name, records in sources.records.items():
        counts = account.splits[name] = SplitAccount()
        built[name] = [pair for record in records if (pair := builder.build(record, name, counts)) is not None]
    builder.problems.raise_if_any()
    files = {id(file): file.account for file in sources.files.values()}  # one file may stand behind several splits
    account.files = list(files.values())
    rejects = {id(file.rejects): file.rejects for file in sources.files.values() if file.rejects}
    account.check()
    # Split by split: a large sound one would hide that another is of no use.
    for name, counts in account.splits.items():
        builder.refuse_unlearnable(name, counts)
        _refuse_bad_share(f"the split {name!r}", counts, data.max_bad_share)
    # Lines that are no records have no split. Where some splits only are built, they belong to all records of a file.
    total = replace(account.total(), records_read=sum(file.records_read for file in account.files))
    _refuse_bad_share("all splits, with lines that are no records,", total, data.max_bad_share)
    renders = any(isinstance(item.record, MessagesRecord) for items in sources.records.values() for item in items)
    return Dataset(
        splits={name: [tokenized for _, tokenized in pairs] for name, pairs in built.items()},
        account=account,
        manifest=build_manifest(
            data, sources, built, record_tokenizer.template_date if renders else None, record_tokenizer.left_out
        ),
        rejects=tuple(rejects.values()),
    )


@dataclass
class _EndWatch:
    """Whether the records of one split owe an end-of-sequence token that is learned, and an example for the message."""

    is_owed: bool = False
    is_supervised: bool = False
    example: TokenizedRecord | None = None


class _Builder:
    """Takes each record through the filters and the tokenizer, and remembers what the hard stops need."""

    def __init__(
        self, data: DataSection, tokenizer: RecordTokenizer, filter_text: FilterText, on_findings: OnFindings
    ) -> None:
        self._data = data
        self._tokenizer = tokenizer
        self._filter_text = filter_text
        self._on_findings = on_findings
        self.problems = Problems()
        self._ends: dict[str, _EndWatch] = {}

    def build(
        self, source: SourceRecord, split: str, account: SplitAccount
    ) -> tuple[SourceRecord, TokenizedRecord] | None:
        """Return the tokenised record, or None where it was dropped or is faulty; either way it is counted."""
        account.records_read += 1
        record, action, redacted_fields = self._filter(source)
        account.records_redacted += action == "redact"
        if action == "drop":
            account.drop(SAFETY_DROP)
            return None
        try:
            whole = self._tokenizer.tokenize(source.record_id, record)
        except ValueError as error:
            self.problems.add(source.record_id, str(error), _FIX_TEXT)
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
        return source, replace(kept, prompt_redacted=in_prompt, reference_redacted=in_reference)

    def refuse_unlearnable(self, split: str, account: SplitAccount) -> None:
        """Stop when a split has records but none of them teaches the model to answer, or to end its answer."""
        end = self._ends.get(split, _EndWatch())
        if account.dropped[NO_SUPERVISED_TOKENS] and not account.records_kept:
            self._refuse(f"no token of the split {split!r} is supervised", "there is nothing to learn from it", end)
        if end.is_owed and not end.is_supervised:
            self._refuse(
                f"in the split {split!r} the end-of-sequence token is never supervised",
                "a model trained on this would not learn to stop, and one measured on it is not asked whether it does",
                end,
            )

    def _filter(self, source: SourceRecord) -> tuple[Record, str, frozenset[str]]:
        """Pass every string through the safety filters.

        Return the record as it may be used, the severest action, and the fields whose text is another now.
        """
        actions: list[str] = []
        redacted: set[str] = set()

        def change(field: str, text: str) -> str:
            filtered = self._filter_text(text)
            if filtered.findings:
                self._on_findings(source.record_id, field, filtered.findings, filtered.action)
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
        watch = self._ends.setdefault(split, _EndWatch())
        watch.is_owed = True
        if not watch.is_supervised:
            ends = self._tokenizer.end_ids(source)
            pairs = zip(record.input_ids, record.supervised, strict=True)
            watch.is_supervised = any(token in ends and learned for token, learned in pairs)
            watch.example = watch.example or record

    def _refuse(self, what: str, why: str, end: _EndWatch) -> None:
        shown = ""
        if (example := end.example) is not None:
            shown = (
                f"; an example, with what is supervised in ⟦ ⟧, is {example.record_id}:\n       {self._show(example)}"
            )
        raise DataError(
            f"data: {what}",
            why=why + shown,
            fix="look at the chat template ({% generation %} around content and end-of-sequence), data.format, "
            "data.max_length_tokens and data.on_overlong",
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


def _refuse_bad_share(which: str, account: SplitAccount, max_bad_share: float) -> None:
    share = account.records_dropped / account.records_read if account.records_read else 0.0
    if share > max_bad_share:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(account.dropped.items()))
        raise DataError(
            f"data: {account.records_dropped} of {account.records_read} records of {which} were dropped ({share:.1%})",
            why=f"data.max_bad_share allows {max_bad_share:.1%}; reasons: {reasons}",
            fix="raise data.max_length_tokens, choose another data.on_overlong, or raise data.max_bad_share knowingly",
        )
