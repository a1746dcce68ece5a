"""Tries the text pipeline of a tokenizer on texts that make a bad one slow or panic, in a process that can be killed.

Run as ``python -m codex_ml.models.tokenizer_probe``: pipeline and characters come as JSON on standard input, and one
line with the verdict goes to standard output. It imports the library of the tokenizers and nothing of transformers.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from codex_ml.io.limits import lower_limit
from codex_ml.offline import GUARD, go_offline

CPU_SECONDS = 20
_EXTRA_BYTES = 2 << 30
# Ten million steps in one match are a panic: 8,000 characters take them where the steps are the square of the length.
_RUN, _PAIR_RUN, _SHORT_RUN = 8_000, 5_000, 40
# A text four times as long takes four times as long, or sixteen times where each run is looked at from every start.
# The smallest of some times is compared: whatever else runs only makes them longer. A text is made longer until its
# time can be compared, on a fast machine too; where the longest text stays below that, the time is taken for linear.
_FACTOR, _LARGEST_RATIO, _FIRST_RATIO, _TIMES = 4, 9.0, 6.0, 3
_LEAST_SECONDS, _COMPARABLE_SECONDS, _LONGEST_RUN = 0.0005, 0.03, 32_000
# Linear steps take about 1 ms for 8,000 characters, the slowest of published ones 6 ms.
_MOST_SECONDS = 0.25
_COMMON = ("a", "A", "1", " ", "\n", "!", "\u00e9", "\u4e2d", "\u0301")
_ENDS = ("", "x", "!", "\n", "\0")


class Probe(NamedTuple):
    """A text of any length: one text repeated between two others."""

    head: str
    unit: str
    tail: str
    length: int

    def text(self, length: int) -> str:
        """Return a text of about a length."""
        return self.head + self.unit * max(1, length // len(self.unit)) + self.tail


def probes(named: Sequence[str], runs: Sequence[tuple[str, str]] = ()) -> Iterator[Probe]:
    """Yield what costs most: long runs of one or some characters, and something behind them that ends a match.

    Parameters
    ----------
    named : sequence of str
        Characters that the expressions of the tokenizer name.
    runs : sequence of pairs of str
        Texts that lead to a repetition in the expressions, and what it repeats.
    """
    characters = list(dict.fromkeys([*_COMMON, *named]))
    for character in characters:
        yield from (Probe("", character, end, _RUN) for end in _ENDS[:3])
        yield from (Probe("", character, end, _SHORT_RUN) for end in _ENDS)
    for first in characters[:3] + list(named[:6]):
        for second in named[:6]:
            if first != second:
                yield Probe("", first + second, "\0", _PAIR_RUN)
                yield Probe(first, second, "\0", _PAIR_RUN)
    for head, unit in runs:
        yield Probe(head, unit, "\0", _SHORT_RUN)
        yield Probe(head, unit, "\0", _PAIR_RUN)


# Not the time of the process: under RLIMIT_CPU the kernel counts it in ticks of 4 ms.
_CLOCK = time.thread_time


def judge(
    transform: Callable[[str], object], texts: Iterable[Probe], clock: Callable[[], float] = _CLOCK
) -> str | None:
    """Return what is wrong with a step of a tokenizer; None where it takes every text in linear time.

    Runs of digits may take the square of their length: published tokenizers group digits from the right by looking
    ahead to the end of the number, and `codex_ml.data.tokenization.encoding` bounds such runs.

    Parameters
    ----------
    transform : callable
        The step.
    texts : iterable of Probe
        What it is tried on.
    clock : callable
        Returns the CPU time used, in seconds.
    """

    def seconds_of(text: str) -> float:
        start = clock()
        transform(text)
        return clock() - start

    for probe in texts:
        shown = f"a run of {probe.unit[:8]!a}"
        try:
            seconds = seconds_of(probe.text(probe.length))
            if probe.length <= _SHORT_RUN or probe.unit.isdigit():
                continue
            if seconds > _MOST_SECONDS and seconds_of(probe.text(probe.length)) > _MOST_SECONDS:
                return f"it takes more than {_MOST_SECONDS:g} seconds for {probe.length} characters ({shown})"
            short = seconds_of(probe.text(probe.length // _FACTOR))
            if seconds > max(_LEAST_SECONDS, _FIRST_RATIO * short) and _is_quadratic(seconds_of, probe):
                return f"its time grows with the square of a text's length ({shown})"
        except MemoryError:
            return f"it needs more than {_EXTRA_BYTES >> 20} MiB for {probe.length} characters"
        except BaseException as error:  # noqa: BLE001 - a panic is no Exception, and all that fails is a verdict
            return f"{type(error).__name__} on {shown}"
    return None


def judge_pipeline(pipeline: dict[str, Any], named: Sequence[str], runs: Sequence[tuple[str, str]] = ()) -> str | None:
    """Return what is wrong with the normalizer, pre-tokenizer or decoder of a tokenizer; None where nothing is.

    Parameters
    ----------
    pipeline : dict
        A ``tokenizer.json`` with an empty vocabulary.
    named : sequence of str
        Characters that its expressions name.
    runs : sequence of pairs of str
        Texts that lead to a repetition in its expressions, and what it repeats.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(json.dumps(pipeline))
    except BaseException as error:  # noqa: BLE001 - a panic is no Exception
        return f"the library does not take it ({type(error).__name__})"
    steps: dict[str, Callable[[str], object]] = {}
    if tokenizer.normalizer is not None:
        steps["normalizer"] = tokenizer.normalizer.normalize_str
    if tokenizer.pre_tokenizer is not None:
        steps["pre_tokenizer"] = tokenizer.pre_tokenizer.pre_tokenize_str
    if tokenizer.decoder is not None:
        steps["decoder"] = lambda text: tokenizer.decoder.decode([text])
    for name, step in steps.items():
        if (found := judge(step, probes(named, runs))) is not None:
            return f"{name}: {found}"
    return None


def _is_quadratic(seconds_of: Callable[[str], float], probe: Probe) -> bool:
    def least(length: int) -> float:
        return min(seconds_of(probe.text(length)) for _ in range(_TIMES))

    length = probe.length
    while (long := least(length)) < _COMPARABLE_SECONDS and length < _LONGEST_RUN:
        length *= 2
    # In shorter times the page faults of larger buffers dominate, and a linear step looks quadratic.
    return long >= _COMPARABLE_SECONDS and long > _LARGEST_RATIO * least(length // _FACTOR)


def _main() -> None:
    go_offline()
    GUARD.activate()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    lower_limit(resource.RLIMIT_CPU, CPU_SECONDS)
    lower_limit(resource.RLIMIT_AS, _EXTRA_BYTES)
    asked = json.load(sys.stdin)
    # A pipe to the process that asks, not the terminal.
    os.write(1, (json.dumps(judge_pipeline(asked["pipeline"], asked["characters"], asked["runs"])) + "\n").encode())


if __name__ == "__main__":
    _main()
