"""Mutation testing counts what was noticed, and what was not tried is no success."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from run_mutation import MutatedModule, MutationResult, main, problems_of, read_modules, report_text, result_of

MODULE = MutatedModule("src/a.py", ("tests/test_a.py",), 80)


def pair(worker: str | None, outcome: str = "killed") -> str:
    """Return a line of cosmic-ray's dump."""
    work = {"mutations": [{"operator_name": "core/NumberReplacer", "start_pos": [3, 1]}]}
    result = None if worker is None else {"worker_outcome": worker, "test_outcome": outcome, "diff": "-1\n+2"}
    return json.dumps([work, result])


def test_result_of_dump_counts_each_outcome() -> None:
    """Killed and incompetent are noticed; survived is not; no result, or a worker that failed, was not tried."""
    dump = [pair("normal"), pair("normal", "incompetent"), pair("normal", "survived"), pair(None), pair("exception")]
    result = result_of(MODULE, "\n".join(dump))
    assert (result.killed, len(result.survivors), result.unfinished, result.total) == (2, 1, 2, 5)
    assert result.survivors[0].startswith("src/a.py:3: NumberReplacer")
    assert "+2" in report_text([result])


@pytest.mark.parametrize("line", ["{", "[]", "[1, 2]", json.dumps([{"mutations": []}, None])])
def test_result_of_unreadable_dump_raises(line: str) -> None:
    """No number is made of what cannot be read."""
    with pytest.raises(ValueError, match="dump"):
        result_of(MODULE, line)


@pytest.mark.parametrize(
    ("killed", "survivors", "unfinished", "words"),
    [
        (8, 2, 0, None),
        (79, 21, 0, "79.0 % noticed"),
        (10, 0, 1, "not tried"),
        (0, 0, 0, "no mutant"),
    ],
)
def test_problems_of_results_by_threshold(killed: int, survivors: int, unfinished: int, words: str | None) -> None:
    """At the threshold is enough; below, unfinished and empty are not."""
    problems = problems_of([MutationResult(MODULE, killed, ("x",) * survivors, unfinished)])
    assert [words in problem for problem in problems] == ([True] if words else [])


@pytest.mark.parametrize(
    "entry", ["", 'path = "a"\ntests = []\nleast_percent = 5', 'path = "a"\ntests = ["b"]\nleast_percent = 0']
)
def test_read_modules_incomplete_entry_raises(entry: str) -> None:
    """No module, no tests, no threshold."""
    with pytest.raises(ValueError, match="least_percent"):
        read_modules(f"[[tool.codex-mutation.module]]\n{entry}" if entry else "")


def test_read_modules_of_the_repository_exist(repository_root: Path) -> None:
    """Modules and tests are where the list says."""
    for module in read_modules((repository_root / "pyproject.toml").read_text()):
        assert all((repository_root / name).is_file() for name in (module.path, *module.tests))


def test_main_unknown_module_fails(repository_root: Path) -> None:
    """A name with a typing error must not measure nothing."""
    assert main(["--root", str(repository_root), "--module", "src/none.py"]) == 1
