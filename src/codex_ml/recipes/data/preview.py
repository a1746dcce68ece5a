"""Records as the model will see them: filtered, tokenised and cut as in training, token by token with supervision."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from codex_ml.config.schema.data import DataSection
from codex_ml.config.schema.root import TrainConfig
from codex_ml.data.inspect.near_duplicates import CheckedRecords
from codex_ml.data.inspect.offsets import load_manifest, manifest_path, read_record
from codex_ml.data.readers.registry import open_records
from codex_ml.data.records.formats import Record, RecordReader, map_strings
from codex_ml.data.tokenization.encoding import decode
from codex_ml.data.tokenization.tokenizer import RecordTokenizer, TokenizedRecord
from codex_ml.data.tokenization.truncation import shorten
from codex_ml.errors import DataError
from codex_ml.models.registry import load_tokenizer
from codex_ml.recipes.inputs import bypass_warnings, open_filters
from codex_ml.recipes.inputs import emit as emit_on_stderr
from codex_ml.safety.filters import SafetyFilters

_MOST_SHOWN = 600
_TAIL = 150
_CONTEXT_TOKENS = 16
# A character of UTF-8 has 4 bytes at most, and a token 1 at least.
_MOST_TOKENS_BEHIND_THE_FIRST = 3


@dataclass(frozen=True)
class ShownToken:
    """One token: its id, its text, whether it is supervised, and whether it is a special one."""

    token_id: int
    text: str
    supervised: bool
    special: bool


@dataclass(frozen=True)
class PreviewedRecord:
    """What becomes of one record.

    Attributes
    ----------
    name : str
        ``file:line``, or the number of the record.
    outcome : str
        What training does with it, in words.
    tokens : sequence of ShownToken
        What the model sees; empty where it sees nothing, and where the safety policy does not let it be shown so.
    head : int
        How many of them stand before those that are left out.
    left_out : int
        How many tokens in the middle are not shown.
    plain : str
        The text as the policy lets it be shown, where `tokens` would show more.
    """

    name: str
    outcome: str
    tokens: Sequence[ShownToken] = field(default=())
    head: int = 0
    left_out: int = 0
    plain: str = ""


def preview_records(
    config: TrainConfig,
    path: Path,
    count: int,
    number: int | None = None,
    *,
    whole: bool = False,
    emit: Callable[[str], None] = emit_on_stderr,
) -> Iterator[PreviewedRecord]:
    """Yield some records of a file as a run of this configuration would see them.

    Parameters
    ----------
    config : TrainConfig
        Model, data and safety as in training.
    path : Path
        The file.
    count : int
        How many records from the first on.
    number : int, optional
        This record alone, counted from 1. With a manifest beside the file nothing before it is read.
    whole : bool
        Show all tokens of a long record.
    emit : callable
        Takes the warning that the filters are off.

    Raises
    ------
    DataError, ModelError, SafetyError
        If file, tokenizer or policy cannot be used, a line that comes first is faulty, or there is no such record.
    """
    filters = open_filters(config.safety)
    for line in bypass_warnings(filters):
        emit(line)
    # What is shown passes the policy even where the data does not: a bypass is for the data.
    shown_through = SafetyFilters(filters.policy)
    data = config.data
    tokenizer = RecordTokenizer(load_tokenizer(config.model), data.supervise, data.trust_control_tokens_in_text)
    viewer = _Viewer(data, tokenizer, filters, shown_through, whole)
    named = _first(path, data, count) if number is None else [_numbered(path, data, number)]
    for name, record in named:
        yield viewer.view(name, record)


def _first(path: Path, data: DataSection, count: int) -> Iterator[tuple[str, Record]]:
    records = CheckedRecords(open_records(path, data.max_line_bytes), data.format, data.columns)
    for line, record in islice(records, count):
        records.raise_if_faulty()
        yield f"{path.name}:{line.line_number}", record
    records.raise_if_faulty()


def _numbered(path: Path, data: DataSection, number: int) -> tuple[str, Record]:
    target = manifest_path(path)
    if target.exists():
        manifest = load_manifest(target)
        wanted = read_record(path, manifest, number - 1)
        reader = RecordReader(data.format, data.columns)
        name = f"{path.name}, record {number:,} at byte {wanted.offset:,}"
        try:
            # The first record says which shape the file has.
            reader.read(read_record(path, manifest, 0).value)
            return name, reader.read(wanted.value)
        except ValueError as error:
            raise DataError(f"{name}: {error}") from error
    records = CheckedRecords(open_records(path, data.max_line_bytes), data.format, data.columns)
    for line, record in islice(records, number - 1, number):
        records.raise_if_faulty()
        return f"{path.name}:{line.line_number}", record
    records.raise_if_faulty()
    raise DataError(f"{path.name} has fewer than {number:,} records", fix="name another with --record")


class _Viewer:
    """Takes one record after the other the way that training takes them."""

    def __init__(
        self,
        data: DataSection,
        tokenizer: RecordTokenizer,
        filters: SafetyFilters,
        shown_through: SafetyFilters,
        whole: bool,
    ) -> None:
        self._data = data
        self._tokenizer = tokenizer
        self._filters = filters
        self._shown_through = shown_through
        self._most_shown = sys.maxsize if whole else _MOST_SHOWN
        added = tokenizer.tokenizer.added_tokens_decoder.items()
        declared = tokenizer.tokenizer.all_special_ids
        self._special_ids = frozenset([*declared, *(token_id for token_id, token in added if token.special)])

    def view(self, name: str, record: Record) -> PreviewedRecord:
        findings: list[tuple[str, str]] = []

        def change(_field: str, text: str) -> str:
            filtered = self._filters.apply(text)
            findings.extend((filtered.action, finding.rule_id) for finding in filtered.findings)
            return filtered.text

        filtered = map_strings(record, change)
        rules = ", ".join(sorted({rule for _, rule in findings}))
        actions = {action for action, _ in findings}
        if "block" in actions:
            return PreviewedRecord(name, f"the safety policy blocks it and stops the run (rules: {rules})")
        if "drop" in actions:
            return PreviewedRecord(name, f"dropped by the safety policy (rules: {rules})")
        try:
            tokenized = self._tokenizer.tokenize(name, filtered)
        except ValueError as error:
            return PreviewedRecord(name, f"stops the run: {error}")
        kept, outcome = self._shorten(tokenized)
        redacted = f"; redacted by the safety policy (rules: {rules})" if rules else ""
        return self._shown(name, outcome + redacted, kept)

    def _shorten(self, tokenized: TokenizedRecord) -> tuple[TokenizedRecord, str]:
        length, limit = len(tokenized.input_ids), self._data.max_length_tokens
        try:
            kept = shorten(tokenized, limit, self._data.on_overlong, self._tokenizer.leading_tokens(tokenized))
        except ValueError as error:
            return tokenized, f"stops the run: {error} (data.on_overlong=error)"
        if kept is None:
            return tokenized, f"dropped: {length:,} tokens (data.on_overlong={self._data.on_overlong})"
        counts = f"{len(kept.input_ids):,} tokens, {kept.supervised_count:,} supervised"
        if not kept.supervised_count:
            counts = f"dropped: no token is supervised ({counts})"
        cut = length - len(kept.input_ids)
        return kept, counts + (f"; {cut:,} cut off (data.on_overlong={self._data.on_overlong})" if cut else "")

    def _shown(self, name: str, outcome: str, record: TokenizedRecord) -> PreviewedRecord:
        tokens = list(self._tokens(record))
        text = "".join(token.text for token in tokens)
        # Two fields that are harmless each may hold together what none may show.
        passed = self._shown_through.apply(text)
        if passed.action in {"drop", "block"}:
            return PreviewedRecord(name, f"{outcome}; not shown: the safety policy refuses it")
        if passed.text != text:
            return PreviewedRecord(name, f"{outcome}; shown without supervision, redacted", plain=passed.text)
        left_out = max(0, len(tokens) - self._most_shown)
        head = self._most_shown - _TAIL if left_out else len(tokens)
        return PreviewedRecord(name, outcome, [*tokens[:head], *tokens[head + left_out :]], head, left_out)

    def _tokens(self, record: TokenizedRecord) -> Iterator[ShownToken]:
        """Yield the tokens with the text that each adds; one that only begins a character adds it with the next."""
        texts = texts_of(record.input_ids, self._special_ids, self._decode)
        for token_id, text, supervised in zip(record.input_ids, texts, record.supervised, strict=True):
            yield ShownToken(token_id, text, supervised, token_id in self._special_ids)

    def _decode(self, ids: Sequence[int]) -> str:
        return decode(self._tokenizer.tokenizer, ids)


def texts_of(ids: Sequence[int], special_ids: frozenset[int], decode: Callable[[Sequence[int]], str]) -> Iterator[str]:
    """Yield the text that each token adds to those before it; of the tokens of one character the last one has it all.

    Parameters
    ----------
    ids : sequence of int
        Token ids.
    special_ids : frozenset of int
        Ids that stand for themselves, whatever is before them.
    decode : callable
        Ids -> text, with the replacement character for what is no whole character.
    """
    start = begun = 0  # where the context begins, and where the character that is not whole yet
    for position, token_id in enumerate(ids):
        if token_id in special_ids:
            yield decode([token_id])
            start = begun = position + 1
            continue
        is_last = position + 1 == len(ids) or ids[position + 1] in special_ids
        text = decode(ids[start : position + 1])
        if text.endswith("\ufffd") and not is_last and position - begun < _MOST_TOKENS_BEHIND_THE_FIRST:
            # The text may hold this very character; one that is not whole yet becomes another with what follows.
            ends = range(position + 2, min(position + 2 + _MOST_TOKENS_BEHIND_THE_FIRST, len(ids) + 1))
            following = [decode(ids[start:end]) for end in ends]
            # A token that adds nothing to be seen belongs to the same character.
            if following[0] == text or not all(longer.startswith(text) for longer in following):
                yield ""
                continue
        yield text.removeprefix(decode(ids[start:begun]))
        # A short context is enough to know of a space before a word, and keeps the time from growing with the length.
        if position - start >= _CONTEXT_TOKENS:
            start = begun
        begun = position + 1
