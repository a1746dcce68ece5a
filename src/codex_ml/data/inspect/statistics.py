"""Statistics of a data file: counts, lengths, tokens."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from codex_ml.data.contamination import Digests, as_digests, first_positions, positions_in, prompt_digest, record_digest
from codex_ml.data.inspect.near_duplicates import (
    DEFAULT_RECORDS,
    DEFAULT_THRESHOLD,
    CheckedRecords,
    NearIndex,
    NearPair,
    NearSample,
)
from codex_ml.data.readers.jsonl import MAX_LINE_BYTES, JsonLine
from codex_ml.data.readers.registry import open_records
from codex_ml.data.records.formats import Record, map_strings

# Takes the id of a record and the record; gives how many tokens it has, and how many of them are supervised.
CountTokens: TypeAlias = Callable[[str, Record], tuple[int, int]]
_MOST_EXAMPLES = 20


@dataclass(frozen=True)
class StatisticsOptions:
    """How files are read and how near duplicates are looked for.

    Attributes
    ----------
    record_format, columns
        As ``data.format`` and ``data.columns``.
    near_records : int
        Most distinct records of each file that are compared with others; 0: near duplicates are not looked for.
    near_threshold : float
        Similarity from which on two records are nearly the same.
    max_line_bytes : int
        Longest line that is read.
    """

    record_format: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    near_records: int = DEFAULT_RECORDS
    near_threshold: float = DEFAULT_THRESHOLD
    max_line_bytes: int = MAX_LINE_BYTES


@dataclass
class FileFigures:
    """What is kept of a file: some 60 bytes a record, and the sample in which near duplicates are looked for."""

    name: str
    format: str
    digest: str
    byte_count: int
    empty_lines: int
    lines: NDArray[np.int64]  # [records], like all below
    records: Digests
    prompts: Digests
    characters: NDArray[np.int64]
    tokens: NDArray[np.int64] | None
    supervised: NDArray[np.int64] | None
    untokenised: int
    first_untokenised: str
    sample: NearSample

    @property
    def count(self) -> int:
        """How many records the file holds."""
        return len(self.lines)


def read_figures(
    path: Path, options: StatisticsOptions, count_tokens: CountTokens | None = None, name: str | None = None
) -> FileFigures:
    """Read a file once, with every check of the reader.

    Parameters
    ----------
    path : Path
        The file.
    options : StatisticsOptions
        How it is read.
    count_tokens : callable, optional
        Counts tokens; a record that it refuses with `ValueError` is noted and has none.
    name : str, optional
        What the file is called in the report; default: its name.

    Raises
    ------
    DataError
        If the file cannot be read or lines are faulty.
    """
    file = open_records(path, options.max_line_bytes)
    records = CheckedRecords(file, options.record_format, options.columns)
    columns = _Columns(NearSample(options.near_records), count_tokens)
    for line, record in records:
        digest = record_digest(line.raw)
        columns.add(line.line_number, digest, _prompt_of(line, digest, options.columns), record)
    has_tokens = count_tokens is not None
    return FileFigures(
        name=name or path.name,
        format=str(records.reader.format),
        digest=file.digest,
        byte_count=file.byte_count,
        empty_lines=file.empty_lines,
        lines=_numbers(columns.lines),
        records=as_digests(columns.records),
        prompts=as_digests(columns.prompts),
        characters=_numbers(columns.characters),
        tokens=_numbers(columns.tokens) if has_tokens else None,
        supervised=_numbers(columns.supervised) if has_tokens else None,
        untokenised=columns.untokenised,
        first_untokenised=columns.first_untokenised,
        sample=columns.sample,
    )


def describe_files(files: Sequence[FileFigures], options: StatisticsOptions) -> dict[str, Any]:
    """Return the figures of files and of what they have in common, as JSON; positions are line numbers.

    An overlap is that of a later file in an earlier one: name the file that is trained on first.
    """
    described = [_describe(file) for file in files]
    overlaps: list[dict[str, Any]] = []
    for number, earlier in enumerate(files):
        # One index at a time: it is the largest thing in memory.
        index = NearIndex(earlier.sample, options.near_threshold) if options.near_records else None
        described[number]["near_duplicates"] = _near_duplicates(earlier, index)
        overlaps += [_overlap(later, earlier, index) for later in files[number + 1 :]]
    return {
        "schema_version": 1,
        "near_threshold": options.near_threshold,
        "files": described,
        "overlaps": overlaps,
        "warnings": list(_warnings(files, described, overlaps)),
    }


def _prompt_of(line: JsonLine, digest: bytes, columns: Mapping[str, str]) -> bytes:
    """Return the digest of a record's prompt; a record of a format without prompts is its own prompt."""
    try:
        return prompt_digest(line.value, columns)
    except ValueError:
        return digest


class _Columns:
    """Gathers what is kept of each record in arrays, so that no object stays behind."""

    def __init__(self, sample: NearSample, count_tokens: CountTokens | None) -> None:
        self.sample = sample
        self.lines, self.characters = array("q"), array("q")
        self.tokens, self.supervised = array("q"), array("q")
        self.records, self.prompts = bytearray(), bytearray()
        self.untokenised = 0
        self.first_untokenised = ""
        self._count_tokens = count_tokens

    def add(self, line_number: int, digest: bytes, prompt: bytes, record: Record) -> None:
        texts = _texts_of(record)
        self.sample.add(digest, len(self.lines), texts)
        self.lines.append(line_number)
        self.records += digest
        self.prompts += prompt
        self.characters.append(sum(map(len, texts)))
        if self._count_tokens is None:
            return
        try:
            tokens, supervised = self._count_tokens(str(line_number), record)
        except ValueError as error:
            self.untokenised += 1
            self.first_untokenised = self.first_untokenised or f"line {line_number}: {error}"
            tokens = supervised = 0
        self.tokens.append(tokens)
        self.supervised.append(supervised)


def _texts_of(record: Record) -> list[str]:
    texts: list[str] = []

    def take(field_name: str, text: str) -> str:  # noqa: ARG001 - as `map_strings` calls it
        texts.append(text)
        return text

    map_strings(record, take)
    return texts


def _numbers(values: array[int]) -> NDArray[np.int64]:
    return np.frombuffer(values, dtype=np.int64)


def _describe(file: FileFigures) -> dict[str, Any]:
    firsts = first_positions(file.records)
    repeating = np.flatnonzero(firsts != np.arange(file.count))
    distinct_prompts = int(np.count_nonzero(first_positions(file.prompts) == np.arange(file.count)))
    described = {
        "name": file.name,
        "format": file.format,
        "digest": file.digest,
        "bytes": file.byte_count,
        "empty_lines": file.empty_lines,
        "records": file.count,
        "distinct_records": file.count - len(repeating),
        "distinct_prompts": distinct_prompts,
        "exact_duplicates": {
            "records": len(repeating),
            "lines": [
                [int(file.lines[position]), int(file.lines[firsts[position]])]
                for position in repeating[:_MOST_EXAMPLES]
            ],
        },
        "characters": describe_lengths(file.characters),
        "tokens": None,
    }
    if file.tokens is not None and file.supervised is not None:
        described["tokens"] = {
            **describe_lengths(file.tokens),
            "supervised": int(file.supervised.sum()),
            "records_without_supervision": int(np.count_nonzero(file.supervised == 0)) - file.untokenised,
            "records_not_tokenised": file.untokenised,
        }
    return described


def _near_duplicates(file: FileFigures, index: NearIndex | None) -> dict[str, Any] | None:
    if index is None:
        return None
    return {
        "looked_at": len(file.sample.positions),
        "share_looked_at": file.sample.share,
        **_near_pairs(index.repeats, file, file),
    }


def _near_pairs(pairs: Sequence[NearPair], file: FileFigures, other: FileFigures) -> dict[str, Any]:
    return {
        "records": len(pairs),
        "lines": [
            [int(file.lines[pair.position]), int(other.lines[pair.other]), round(pair.similarity, 4)]
            for pair in pairs[:_MOST_EXAMPLES]
        ],
    }


def _overlap(later: FileFigures, earlier: FileFigures, index: NearIndex | None) -> dict[str, Any]:
    places = positions_in(later.records, earlier.records)
    standing = np.flatnonzero(places >= 0)
    by_prompt = np.count_nonzero(positions_in(later.prompts, earlier.prompts) >= 0)
    near = None
    if index is not None:
        pairs = index.find_all(later.sample, np.flatnonzero(places < 0).tolist())
        near = {"looked_at": len(later.sample.positions), **_near_pairs(pairs, later, earlier)}
    return {
        "file": later.name,
        "in": earlier.name,
        "of": later.count,
        "records": len(standing),
        "records_by_prompt": int(by_prompt),
        "lines": [
            [int(later.lines[position]), int(earlier.lines[places[position]])] for position in standing[:_MOST_EXAMPLES]
        ],
        "near": near,
    }


def _warnings(
    files: Sequence[FileFigures], described: Sequence[Mapping[str, Any]], overlaps: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    for file, figures in zip(files, described, strict=True):
        if repeating := figures["exact_duplicates"]["records"]:
            yield (
                f"{file.name}: {repeating:,} of {file.count:,} records repeat another byte for byte; each counts as "
                "often as it occurs"
            )
        if file.untokenised:
            yield f"{file.name}: {file.untokenised:,} records cannot be tokenised, first {file.first_untokenised}"
        tokens = figures["tokens"]
        if tokens is not None and (idle := tokens["records_without_supervision"]):
            yield f"{file.name}: {idle:,} records have no supervised token; nothing is learned from them"
    for overlap in overlaps:
        near = overlap["near"]["records"] if overlap["near"] is not None else 0
        found = [
            f"{count:,} {how}"
            for count, how in (
                (overlap["records"], "byte for byte"),
                (overlap["records_by_prompt"], "by prompt"),
                (near, "distinct ones nearly"),
            )
            if count
        ]
        if found:
            yield (
                f"{overlap['file']}: of {overlap['of']:,} records some also appear in {overlap['in']}: "
                f"{', '.join(found)}; scores on them measure memory"
            )


_PERCENTILES = (5, 25, 50, 75, 95, 99)
_MOST_BINS = 12
_BAR_CELLS = 40
_STEPS = (1, 2, 5)


def describe_lengths(lengths: NDArray[np.int64]) -> dict[str, Any]:
    """Return the figures of a distribution.

    Parameters
    ----------
    lengths : array of int
        One for each record, [records]; at least one.

    Returns
    -------
    dict
        ``total``, ``mean``, ``min``, ``max``, ``percentiles`` (by name; each is the length of a record), and
        ``histogram``: bins of equal width with ``from``, ``to`` (inclusive) and ``records``; the few longest share one
        bin at the end, so that they leave the picture readable.
    """
    percentiles = np.percentile(lengths, _PERCENTILES, method="inverted_cdf")
    return {
        "total": int(lengths.sum()),
        "mean": round(float(lengths.mean()), 2),
        "min": int(lengths.min()),
        "max": int(lengths.max()),
        "percentiles": {str(name): int(value) for name, value in zip(_PERCENTILES, percentiles.tolist(), strict=True)},
        "histogram": _histogram(lengths, int(percentiles[-1])),
    }


def picture(histogram: Sequence[Mapping[str, int]], bar: str = "█") -> Iterator[str]:
    """Yield a line for each bin: its borders, a bar, and how many records it holds; a bin that holds one has a bar."""
    width = max(len(f"{item['to']:,}") for item in histogram)
    most = max(item["records"] for item in histogram)
    for item in histogram:
        cells = -(-item["records"] * _BAR_CELLS // most)
        yield f"{item['from']:>{width},} - {item['to']:>{width},}  {bar * cells:<{_BAR_CELLS}}  {item['records']:,}"


def _histogram(lengths: NDArray[np.int64], most_common_end: int) -> list[dict[str, int]]:
    shortest, longest = int(lengths.min()), int(lengths.max())
    width = _round_width(most_common_end - shortest + 1)
    first = shortest // width
    bin_count = most_common_end // width - first + 1
    # What is longer than 99 of 100 shares one bin at the end, however long it is.
    has_longer = longest // width - first >= bin_count
    counts = np.bincount(np.minimum(lengths // width - first, bin_count), minlength=bin_count + has_longer).tolist()
    starts = [(first + index) * width for index in range(len(counts))]
    ends = [start + width - 1 for start in starts]
    if has_longer:
        ends[-1] = longest
    return [
        {"from": start, "to": end, "records": count} for start, end, count in zip(starts, ends, counts, strict=True)
    ]


def _round_width(span: int) -> int:
    """Return the least of 1, 2, 5, 10, 20, 50 … that covers a span with few bins."""
    scale = 1
    while True:
        for step in _STEPS:
            if span <= step * scale * (_MOST_BINS - 1):
                return step * scale
        scale *= 10
