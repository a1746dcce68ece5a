"""From files to tokenised records: read, split, filter, tokenise, shorten, and account for every row and token."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from codex_ml.config.schema.data import DataSection
from codex_ml.data.account import NO_SUPERVISED_TOKENS, OVERLONG, SAFETY_DROP, DataAccount, SplitAccount
from codex_ml.data.overlong import shorten
from codex_ml.data.problems import Problems
from codex_ml.data.records import Record, TextRecord, map_strings
from codex_ml.data.sources import SourceRecord, Sources, read_sources
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
    """Tokenised records by split, their account, and the manifest for ``data_splits.json``."""

    splits: dict[str, list[TokenizedRecord]]
    account: DataAccount
    manifest: dict[str, Any]

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
        """Return the SHA-256 over the kept records of a split, for provenance."""
        return str(self.manifest["splits"][split]["digest"])


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
        If a file or line is faulty, a record is too long (``data.on_overlong=error``), more than
        ``data.max_bad_share`` of the records were dropped, no token is supervised, or end-of-sequence never is.
    SafetyError
        If the policy blocks a record; the message names the line and the rule.
    """
    sources = read_sources(data, splits)
    builder = _Builder(data, RecordTokenizer(tokenizer), filter_text, on_findings)
    built: dict[str, list[tuple[SourceRecord, TokenizedRecord]]] = {}
    account = DataAccount()
    for name, records in sources.records.items():
        account.splits[name] = SplitAccount()
        built[name] = [pair for record in records if (pair := builder.build(record, account.splits[name])) is not None]
    builder.problems.raise_if_any()
    files = {id(file): file.account for file in sources.files.values()}  # one file may stand behind several splits
    account.files = list(files.values())
    account.check()
    builder.refuse_unlearnable(account.total())
    _refuse_bad_share(account.total(), data.max_bad_share)
    return Dataset(
        splits={name: [tokenized for _, tokenized in pairs] for name, pairs in built.items()},
        account=account,
        manifest=_manifest(data, sources, built),
    )


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
        self._example: TokenizedRecord | None = None
        self._end_is_owed = False
        self._end_is_supervised = False

    def build(self, source: SourceRecord, account: SplitAccount) -> tuple[SourceRecord, TokenizedRecord] | None:
        """Return the tokenised record, or None where it was dropped or is faulty; either way it is counted."""
        if self.problems.full:
            return None
        account.records_read += 1
        record, action = self._filter(source)
        account.records_redacted += action == "redact"
        if action == "drop":
            account.drop(SAFETY_DROP)
            return None
        try:
            whole = self._tokenizer.tokenize(source.record_id, record)
            kept = shorten(
                whole, self._data.max_length_tokens, self._data.on_overlong, self._tokenizer.leading_tokens(whole)
            )
        except ValueError as error:
            self.problems.add(source.record_id, str(error), _FIX_RECORD)
            return None
        tokenised = len(whole.input_ids)
        if kept is None:
            account.drop(OVERLONG, tokenised)
            return None
        self._note_end(kept, record)
        supervised = kept.supervised_count
        if not supervised:
            account.drop(NO_SUPERVISED_TOKENS, tokenised)
            return None
        account.keep(tokenised, supervised, len(kept.input_ids) - supervised)
        return source, kept

    def refuse_unlearnable(self, total: SplitAccount) -> None:
        """Stop when there are records but none of them teaches the model to answer, or to end its answer."""
        if total.dropped[NO_SUPERVISED_TOKENS] and not total.records_kept:
            self._refuse("no token of the data set is supervised", "there is nothing to learn from it")
        if self._end_is_owed and not self._end_is_supervised:
            self._refuse(
                "the end-of-sequence token is never supervised", "a model trained on this would not learn to stop"
            )

    def _filter(self, source: SourceRecord) -> tuple[Record, str]:
        """Pass every string through the safety filters; return the record as it may be used and the severest action."""
        actions: list[str] = []

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
            return filtered.text

        record = map_strings(source.record, change)
        return record, next((action for action in ("drop", "redact") if action in actions), "keep")

    def _note_end(self, record: TokenizedRecord, source: Record) -> None:
        if isinstance(source, TextRecord):
            return
        self._end_is_owed = True
        if not self._end_is_supervised:
            end = self._tokenizer.eos_token_id
            pairs = zip(record.input_ids, record.supervised, strict=True)
            self._end_is_supervised = any(token == end and learned for token, learned in pairs)
            self._example = self._example or record

    def _refuse(self, what: str, why: str) -> None:
        shown = ""
        if (example := self._example) is not None:
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


_FIX_RECORD = (
    "correct the record; where it is too long, raise data.max_length_tokens or set data.on_overlong to drop, "
    "truncate_prompt_left or truncate_completion (what is cut is counted)"
)


def _refuse_bad_share(total: SplitAccount, max_bad_share: float) -> None:
    share = total.records_dropped / total.records_read if total.records_read else 0.0
    if share > max_bad_share:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(total.dropped.items()))
        raise DataError(
            f"data: {total.records_dropped} of {total.records_read} records were dropped ({share:.1%})",
            why=f"data.max_bad_share allows {max_bad_share:.1%}; reasons: {reasons}",
            fix="raise data.max_length_tokens, choose another data.on_overlong, or raise data.max_bad_share knowingly",
        )


def _manifest(
    data: DataSection, sources: Sources, built: dict[str, list[tuple[SourceRecord, TokenizedRecord]]]
) -> dict[str, Any]:
    """Return what identifies the data of each split: files, digests, and the byte offset of every kept record."""
    splits: dict[str, Any] = {}
    train = {source.raw for source, _ in built.get("train", [])}
    for name, pairs in built.items():
        hasher = hashlib.sha256()
        for source, _ in pairs:
            hasher.update(source.raw + b"\n")
        splits[name] = {
            "source": sources.files[name].to_dict(),
            "records": len(pairs),
            "digest": f"sha256:{hasher.hexdigest()}",
            "offsets": [source.offset for source, _ in pairs],
        }
        if name != "train" and "train" in built:
            splits[name]["overlap_with_train"] = sum(source.raw in train for source, _ in pairs)
    manifest: dict[str, Any] = {"schema_version": 1, "splits": splits}
    if data.path is not None:
        manifest["split"] = {
            "seed": data.split.seed,
            "ratios": list(data.split.ratios),
            "group_by": data.split.group_by,
            "exact_sizes": data.split.exact_sizes,
        }
    return manifest
