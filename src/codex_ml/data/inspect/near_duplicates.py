"""Near-duplicate records found with MinHash."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from datasketch import MinHash, MinHashLSH  # type: ignore[import-untyped]
from numpy.typing import NDArray

from codex_ml.data.problems import Problems
from codex_ml.data.readers.jsonl import FaultyLine, JsonLine, Lines, parsed_lines
from codex_ml.data.records.formats import Record, RecordReader

PERMUTATIONS = 128
SHINGLE_WORDS = 3
DEFAULT_THRESHOLD = 0.8
DEFAULT_RECORDS = 20_000

# Scripts that put no space between words would else be one word a sentence: there each character is one.
_WORDS = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W_]+|\S")
# How likely a pair that is just similar enough is compared at all; each that is gets compared by whole signatures.
_LEAST_RECALL = 0.95
_SEED = 1
# The permutations are shared; creating them takes longer than using them.
_FRESH = MinHash(num_perm=PERMUTATIONS, seed=_SEED, hashfunc=crc32, scheme="affine32")
_COMPARED_AT_ONCE = 256
_HALVINGS = 64

Signature = NDArray[np.uint32]  # [permutations]


def shingles(text: str) -> set[bytes]:
    """Return what two texts are compared by: every run of three words, without regard to case and spacing.

    A text of fewer words is one shingle.
    """
    words = _WORDS.findall(text.lower())
    if len(words) <= SHINGLE_WORDS:
        return {" ".join(words).encode("utf-8", "surrogatepass")}
    runs = zip(*(words[start:] for start in range(SHINGLE_WORDS)), strict=False)
    return {" ".join(run).encode("utf-8", "surrogatepass") for run in runs}


def signature_of(text: str) -> Signature:
    """Return the MinHash signature of a text, uint32 [permutations]; the same on every machine."""
    sketch = _FRESH.copy()
    sketch.update_batch(shingles(text))
    return np.asarray(sketch.hashvalues, dtype=np.uint32)


def similarity(signature: Signature, others: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Return the estimated Jaccard similarity to each of others, [others]; its standard deviation is at most 0.045."""
    return np.asarray(np.count_nonzero(others == signature, axis=1) / PERMUTATIONS, dtype=np.float64)


def bands_for(threshold: float) -> tuple[int, int]:
    """Return how many bands of how many rows an index has.

    Two records are compared where all rows of any band agree, which at similarity s happens with the probability
    ``1 - (1 - s ** rows) ** bands`` (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, 3.4.2). Of all
    divisions that find a pair at the threshold with at least 95%, this is the one that compares fewest in vain.
    """
    rows = PERMUTATIONS // 2
    while 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) < _LEAST_RECALL:
        rows -= 1
    return PERMUTATIONS // rows, rows


class NearSample:
    """The distinct records of a file that are looked at, with their signatures; all of them while they are few.

    Beyond the limit a record is looked at when its digest lies below a bound, which is halved as often as is needed. So
    which are looked at depends on the records alone, not on their order, and the same ones are taken of every file that
    holds them.

    Parameters
    ----------
    limit : int
        Maximum number of records to compare; at least half of it are compared if the file has that many.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._halvings = 0
        self._taken: dict[bytes, tuple[int, Signature]] = {}

    def add(self, digest: bytes, position: int, texts: Sequence[str]) -> None:
        """Look at a record, unless it repeats another or is not in the sample.

        Parameters
        ----------
        digest : bytes
            Of the record's bytes (`codex_ml.data.contamination.record_digest`).
        position : int
            Its position in the file (0-based); positions ascend.
        texts : sequence of str
            Its strings.
        """
        if not self._is_sampled(digest) or digest in self._taken:
            return
        self._taken[digest] = (position, signature_of("\n".join(texts)))
        while len(self._taken) > self._limit and self._halvings < _HALVINGS:
            self._halvings += 1
            self._taken = {digest: taken for digest, taken in self._taken.items() if self._is_sampled(digest)}

    @property
    def positions(self) -> list[int]:
        """Positions of the compared records in the file, ascending."""
        return [position for position, _ in self._taken.values()]

    @property
    def signatures(self) -> list[Signature]:
        """The signatures, in the order of `positions`."""
        return [signature for _, signature in self._taken.values()]

    @property
    def share(self) -> float:
        """The share of all distinct records that is looked at, on average."""
        return 0.5**self._halvings

    def _is_sampled(self, digest: bytes) -> bool:
        return not self._halvings or int.from_bytes(digest[:8], "little") >> (64 - self._halvings) == 0


@dataclass(frozen=True)
class NearPair:
    """A record that is nearly the same as another: both by their positions (0-based), and how similar they are."""

    position: int
    other: int
    similarity: float


class NearIndex:
    """Finds the records of a sample that are nearly the same as an earlier one, or as a record of another sample.

    A record that is nearly the same as an earlier one adds nothing new and is not compared with further ones:
    so the time stays bounded where thousands are alike.

    Parameters
    ----------
    sample : NearSample
        What is indexed.
    threshold : float
        Estimated Jaccard similarity of the shingles from which on two records are nearly the same.
    """

    def __init__(self, sample: NearSample, threshold: float) -> None:
        self._threshold = threshold
        self._lsh = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, params=bands_for(threshold))
        self._positions: list[int] = []
        self._signatures = np.empty((len(sample.positions), PERMUTATIONS), dtype=np.uint32)
        self.repeats: list[NearPair] = []
        for position, signature in zip(sample.positions, sample.signatures, strict=True):
            if (pair := self._find(position, signature)) is not None:
                self.repeats.append(pair)
                continue
            number = len(self._positions)
            self._lsh.insert(number, _sketch(signature), check_duplication=False)
            self._positions.append(position)
            self._signatures[number] = signature

    def find_all(self, sample: NearSample, positions: Iterable[int]) -> list[NearPair]:
        """Return the records of another sample, among those at some positions, that are nearly the same as one here."""
        wanted = set(positions)
        found = (
            self._find(position, signature)
            for position, signature in zip(sample.positions, sample.signatures, strict=True)
            if position in wanted
        )
        return [pair for pair in found if pair is not None]

    def _find(self, position: int, signature: Signature) -> NearPair | None:
        # Sorted: which of several is named must not depend on the order of a set.
        numbers = np.sort(np.array(self._lsh.query(_sketch(signature)), dtype=np.int64))
        for start in range(0, len(numbers), _COMPARED_AT_ONCE):
            some = numbers[start : start + _COMPARED_AT_ONCE]
            similar = similarity(signature, self._signatures[some])
            for index in np.flatnonzero(similar >= self._threshold)[:1]:
                return NearPair(position, self._positions[int(some[index])], float(similar[index]))
        return None


def _sketch(signature: Signature) -> MinHash:
    """Return a signature in the form that the library's index takes."""
    sketch = _FRESH.copy()
    sketch.hashvalues = signature
    return sketch


class CheckedRecords:
    """Iterates over a file; lines that are faulty are gathered, and raised as one error at the end.

    Parameters
    ----------
    lines : Lines
        The file, from `codex_ml.data.readers.registry.open_records`.
    record_format, columns
        As ``data.format`` and ``data.columns``.
    """

    def __init__(self, lines: Lines, record_format: str = "auto", columns: Mapping[str, str] | None = None) -> None:
        self.lines = lines
        self.reader = RecordReader(record_format, columns)
        self._problems = Problems()

    def __iter__(self) -> Iterator[tuple[JsonLine, Record]]:
        for line in parsed_lines(self.lines):
            if isinstance(line, FaultyLine):
                self._note(line.line_number, line.fault.at(line.offset))
                continue
            try:
                record = self.reader.read(line.value)
            except ValueError as error:
                self._note(line.line_number, str(error))
                # Where the format itself is unknown, every line would say so again.
                if self.reader.format is None:
                    break
                continue
            yield line, record
        self.raise_if_faulty()

    def raise_if_faulty(self) -> None:
        """Raise one `DataError` for all lines so far that are no records; for a caller that stops before the end."""
        self._problems.raise_if_any()

    def _note(self, line_number: int, what: str) -> None:
        self._problems.add(f"{self.lines.path.name}:{line_number}", what)
