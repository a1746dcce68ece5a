"""A run is killed before and in the middle of every storage operation, and at random instants: nothing is lost."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

STEPS = 24
# Planted in the data; each must stand in the audit once, wherever the run was killed.
FINDINGS = 3
OPTIONS = (
    f"training.max_steps={STEPS}",
    "training.micro_batch_size=2",
    "training.learning_rate=1e-2",
    "training.logging_steps=8",
    "training.save_steps=8",
    "training.eval_steps=8",
    "training.keep_last=1",
    "adapter.dropout=0.1",
    # A rotation of the metrics in mid-run.
    "logging.max_bytes=4500",
)
# Kinds of operations that have a middle.
DIVISIBLE = ("write", "sync of a library's file", "remove tree")
# The kills of the full tier are shared among several tests, because each test has a time limit.
PARTS = 8
# (in `make test`, in `make test-full`)
RANDOM_INSTANTS = pytest.mark.parametrize("count", [4, pytest.param(20, marks=pytest.mark.full("kills"))])
DOUBLE_KILLS = pytest.mark.parametrize("count", [3, pytest.param(16, marks=pytest.mark.full("kills"))])
ATTEMPTS = 4
Answer = dict[str, Any]


@dataclass
class KillServer:
    """The process from which all children are forked, and what it takes to ask it."""

    process: subprocess.Popen[str]
    directory: Path
    batches: int = 0

    def ask(self, scenarios: Sequence[Sequence[dict[str, Any]]]) -> list[Answer]:
        """Run scenarios, each a list of kills, and return their answers in that order."""
        self.batches += 1
        named = [
            {"directory": str(self.directory / f"{self.batches}-{number:03}"), "kills": list(kills)}
            for number, kills in enumerate(scenarios)
        ]
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"batch": self.batches, "scenarios": named}) + "\n")
        self.process.stdin.flush()
        answers: dict[str, Answer] = {}
        for line in self.process.stdout:
            answer = json.loads(line)
            if "directory" in answer:
                answers[answer["directory"]] = answer
            elif answer["batch"] == self.batches:
                break
        assert all(scenario["directory"] in answers for scenario in named), "the server died; see what it said above"
        return [answers[scenario["directory"]] for scenario in named]


@pytest.fixture(scope="module")
def server(tmp_path_factory, repository_root, tiny_llama_directory, small_records) -> Iterator[KillServer]:
    """Return a server whose children train a 2-layer model for 24 steps."""
    directory = tmp_path_factory.mktemp("kills")
    program = repository_root / "tests" / "faults" / "kill_server.py"
    data = directory / "with-addresses.jsonl"
    address = "someone" + "@" + "example-clinic.org"
    planted = [{"prompt": f"Write letter {number} to {address}", "completion": "Sent."} for number in range(FINDINGS)]
    data.write_text(small_records.read_text("utf-8") + "".join(json.dumps(row) + "\n" for row in planted), "utf-8")
    overrides = (f"model.path={tiny_llama_directory}", f"data.path={data}", *OPTIONS)
    process = subprocess.Popen(
        [sys.executable, str(program), *overrides],
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield KillServer(process, directory)
    finally:
        # Its end of the pipe closes, and it leaves.
        process.communicate(timeout=120)


@dataclass(frozen=True)
class Undisturbed:
    """What comes of a run that nobody kills."""

    outcome: dict[str, Any]
    operations: list[str]
    seconds: float


@pytest.fixture(scope="module")
def undisturbed(server) -> Undisturbed:
    """Return the measure of all others: two runs, which must be equal."""
    answers = server.ask([[], []])
    first, second = (answer["outcome"] for answer in answers)
    assert first == second
    assert first["checkpoints"] == [STEPS]
    assert first["pointers"] == [f"step-{STEPS:08d}"] * 2
    assert first["status"] == "FINISHED"
    assert len(first["findings"]) == FINDINGS
    assert first["leftovers"] == []
    operations = json.loads((Path(answers[0]["directory"]) / "operations.json").read_text("utf-8"))
    return Undisturbed(first, operations, max(answer["seconds"] for answer in answers))


def check(answers: Sequence[Answer], undisturbed: Undisturbed) -> None:
    """Require that every scenario ended in the very bytes of the undisturbed run; take away what did."""
    faults = []
    for answer in answers:
        *before, last = answer["ended"]
        if before != ["killed"] * len(before) or last != "exit 0" or answer.get("outcome") != undisturbed.outcome:
            faults.append(
                f"{answer['kills']} {answer['ended']}: {answer.get('fault') or _difference(answer, undisturbed)}"
            )
        else:
            shutil.rmtree(answer["directory"])
    assert not faults, "\n".join([f"{len(faults)} of {len(answers)} failed", *faults[:10]])


def _difference(answer: Answer, undisturbed: Undisturbed) -> dict[str, Any]:
    return {key: value for key, value in answer["outcome"].items() if value != undisturbed.outcome[key]}


def all_kills(operations: Sequence[str]) -> list[dict[str, Any]]:
    """Return every kill that hits a storage operation: before it, and where it has one, in its middle."""
    kills: list[dict[str, Any]] = []
    for number, kind in enumerate(operations, start=1):
        kills.append({"operation": number})
        if kind in DIVISIBLE:
            kills.append({"operation": number, "half": True})
    return kills


def sampled_kills(operations: Sequence[str]) -> list[dict[str, Any]]:
    """Return two kills of each kind of operation, before it and in its middle: one early in the run, one late."""
    groups: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for kill in all_kills(operations):
        groups.setdefault((operations[kill["operation"] - 1], "half" in kill), []).append(kill)
    return [kill for group in groups.values() for kill in (group[len(group) // 3], group[len(group) * 4 // 5])]


def test_kill_at_two_operations_of_each_kind_resumes_to_the_same_bytes(server, undisturbed):
    """Before the operation, and in the middle of each kind that has one."""
    kills = sampled_kills(undisturbed.operations)
    assert {undisturbed.operations[kill["operation"] - 1] for kill in kills} == set(undisturbed.operations)
    assert sum("half" in kill for kill in kills) == 2 * len(DIVISIBLE)
    check(server.ask([[kill] for kill in kills]), undisturbed)


@pytest.mark.full("kills")
@pytest.mark.parametrize("part", range(PARTS))
def test_kill_at_every_storage_operation_resumes_to_the_same_bytes(server, undisturbed, part):
    """Before each operation and in the middle of each that has one."""
    kills = all_kills(undisturbed.operations)
    assert len(kills) >= 200
    if part == 0:
        print(f"{len(undisturbed.operations)} operations, {len(kills)} kills: {dict(Counter(undisturbed.operations))}")
    started = time.monotonic()
    answers = server.ask([[kill] for kill in kills[part::PARTS]])
    print(f"part {part}: {len(answers)} kills and resumes in {time.monotonic() - started:.0f} s")
    check(answers, undisturbed)


@RANDOM_INSTANTS
def test_kill_at_random_instants_resumes_to_the_same_bytes(server, undisturbed, count):
    """SIGKILL from outside, whatever is under way; who was too fast is tried again with less time."""
    chance = random.Random(4)
    left = [chance.uniform(0.05, 0.95) * undisturbed.seconds for _ in range(count)]
    hit: list[Answer] = []
    for _ in range(ATTEMPTS):
        answers = server.ask([[{"seconds": seconds}] for seconds in left])
        hit += [answer for answer in answers if answer["ended"][0] == "killed"]
        left = [answer["kills"][0]["seconds"] / 2 for answer in answers if answer["ended"][0] != "killed"]
    assert len(hit) == count
    check(hit, undisturbed)


@DOUBLE_KILLS
def test_kill_during_the_resume_too_resumes_to_the_same_bytes(server, undisturbed, count):
    """Killed, resumed, killed again while that is at work, and resumed: some operations of both, chosen at random."""
    chance = random.Random(5)
    kills = all_kills(undisturbed.operations)
    # A resume makes fewer operations than a whole run; every one makes the first so many.
    early = [kill for kill in kills if kill["operation"] <= len(undisturbed.operations) // 4]
    # Which operation has a middle is known of a whole run only.
    second = [{"operation": kill["operation"]} for kill in chance.choices(early, k=count)]
    first = chance.choices(kills[: len(kills) * 3 // 4], k=count)
    check(server.ask(list(zip(first, second, strict=True))), undisturbed)
