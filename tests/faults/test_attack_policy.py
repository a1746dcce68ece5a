"""Safety policies from a stranger: objects, bombs, and patterns that a text keeps busy for ever."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from codex_ml.config.compose import compose
from codex_ml.errors import SafetyError
from codex_ml.io.limits import LimitExceededError, limited
from codex_ml.safety.filters import SafetyFilters
from codex_ml.safety.policy import load_policy
from error_checks import has_code

pytestmark = [pytest.mark.timeout(300), pytest.mark.safety]
# A guard against work that grows without bound, not a measurement: a backtracking matcher would take hours.
MOST_CPU_SECONDS = 60.0
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in ("ab", "bc", "cd", "de", "ef")
)
RULE = "  - {id: r, kind: regex, description: d, patterns: ['PATTERN']}\n"


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[..., str]:
    """Return what loads a policy of a text, which must be refused quickly, and gives the error."""

    def refused(text: str | bytes) -> str:
        file = tmp_path / "policy.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        started = time.process_time()
        with pytest.raises(SafetyError) as caught:
            load_policy(file)
        assert time.process_time() - started < MOST_CPU_SECONDS
        return caught.value.block()

    return refused


def _policy(pattern: str) -> str:
    return "version: 1\nrules:\n" + RULE.replace("PATTERN", pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+!$",
        "(a|a)+#$",
        "(x+x+)+y",
        "([a-z]+)*#",
        "(a|ab|b)*Q",
        "key:(?:[^,]+,?)+;",
        r"(?:\s*\w+\s*)+;",
        "^(([a-z])+.)+[A-Z]([a-z])+$",
        "(?:é+)+x",
        "a*a*a*a*b",
    ],
)
def test_pattern_that_explodes_elsewhere_takes_linear_time(tmp_path, pattern):
    """What keeps a backtracking matcher busy for ever is read in one pass."""
    file = tmp_path / "policy.yaml"
    file.write_text(_policy(pattern))
    filters = SafetyFilters(load_policy(file))
    for text in ("a" * 200_000 + "!", "key:" + "a," * 100_000, "é" * 100_000 + "!", "ab" * 100_000):
        started = time.process_time()
        filters.apply(text)
        assert time.process_time() - started < MOST_CPU_SECONDS


@pytest.mark.parametrize("pattern", [r"[\w.]{1,64}@[\w.]{1,64}", r"(?:\d[ -]?){13,19}", r"BEGIN(?s:.*?)END"])
def test_sound_pattern_is_taken(tmp_path, pattern):
    """Bounded and lazy repeats are what people write."""
    file = tmp_path / "policy.yaml"
    file.write_text(_policy(pattern))
    assert load_policy(file).rules[0].patterns == (pattern,)


def test_packaged_policy_is_quick_on_hostile_text():
    """No text keeps the packaged rules busy."""
    filters = SafetyFilters(load_policy("default"))
    for pump in ("a", "1", "a.", "a@", "1 ", "+1", "://a:", "-----BEGIN PRIVATE KEY-----", "eyJa.eyJ", "sk-", " ", "."):
        started = time.process_time()
        filters.apply(pump * (100_000 // len(pump)))
        assert time.process_time() - started < MOST_CPU_SECONDS, pump


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("!!python/object/apply:os.mkdir [CANARY]\n", "not valid YAML"),
        ("version: !!python/name:os.mkdir ''\nrules: []\n", "not valid YAML"),
        (LAUGHS, "more than"),
        ("version: 1\nrules: &r [*r]\n", "part of its own expansion"),
        ("version: 1\nrules: " + "[" * 20_000 + "]" * 20_000, "nested deeper"),
        ("version: 1\nrules:\n" + RULE.replace("PATTERN", "xyz") * 1500, "at most 1000 items"),
        ("version: 1\nrules:\n" + "- \n" * 600_000, "more than 100000 values"),
        ("version: 1\n" + "# x\n" * 700_000, "longer than"),
        (_policy(""), "matches the empty string"),
        (_policy("(?:)"), "matches the empty string"),
        (_policy("(" * 3000 + "a" + ")" * 3000), "longer than 4096"),
        (_policy("(" * 2000 + "a" + ")" * 2000), "pattern 1 "),
        (_policy("a{9999}"), "not a regular expression"),
        (_policy("((a{1,50}){1,50}){1,50}b"), "not a regular expression"),
        (_policy("(?=(a+)+b)c"), "look-around is not there"),
        (_policy(r"(abc)b\1"), "not a regular expression"),
        ("version: 1\nrules:\n  - {id: p, kind: phrase, description: d, phrases: ['']}\n", "empty phrase"),
        ("version: 1\nversion: 1\nrules: []\n", "duplicate key"),
        ("version: 1\nrules:\n  - {id: ../../x, kind: regex, description: d, patterns: [x]}\n", "id"),
        (b"\xff\xfe", "cannot read"),
    ],
    ids=[
        *("object", "name", "laughs", "itself", "deep", "rules", "values", "bytes", "empty", "empty-group"),
        *("long", "nested", "count", "product", "look-around", "reference", "phrase", "doubled", "id", "utf-16"),
    ],
)
def test_policy_that_is_a_bomb_is_refused(refusal, tmp_path, text, words):
    """Tags, aliases, depth, numbers of rules and patterns: one error that says which."""
    canary = tmp_path / "canary"
    block = refusal(text.replace("CANARY", str(canary)) if isinstance(text, str) else text)
    assert words in block
    assert not canary.exists()


def test_policy_of_a_terabyte_is_refused_unread(tmp_path):
    """A sparse file is told by its size."""
    file = tmp_path / "policy.yaml"
    with file.open("wb") as handle:
        handle.truncate(1 << 40)
    with pytest.raises(SafetyError, check=lambda error: has_code(error, "SAFETY_POLICY_UNREADABLE")):
        load_policy(file)


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_policy_that_is_no_file_is_refused(tmp_path, make):
    """A pipe is not waited for, a device not read."""
    make(tmp_path / "policy.yaml")
    with pytest.raises(SafetyError, check=lambda error: has_code(error, "SAFETY_POLICY_UNREADABLE")):
        load_policy(tmp_path / "policy.yaml")


@pytest.mark.parametrize("name", ["../default", "/etc/passwd", "a/../../b"])
def test_policy_name_that_leads_out_is_a_path_as_written(tmp_path, name):
    """A name is looked for among the packaged ones only when it is one; anything else is a path, which must exist."""
    composed = compose("train", "default", None, [f"safety.policy={name}"], tmp_path, {})
    with pytest.raises(SafetyError):
        load_policy(composed.values["safety"]["policy"])


def test_limited_gives_the_signal_back_and_does_nothing_elsewhere():
    """After the block no timer runs; in another thread, where Python handles no signals, the block is not bounded."""
    with pytest.raises(LimitExceededError), limited(0.1):
        _spin()
    done = []

    def work() -> None:
        with limited(0.001):
            done.append(sum(range(2_000_000)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done
    assert sum(range(5_000_000)) > 0  # longer than the timer that is gone


def test_limited_memory_is_refused_where_it_is_asked_for():
    """More than the further bytes raises MemoryError, and afterwards it can be had again."""
    with pytest.raises(MemoryError), limited(5.0, 1 << 28):
        bytearray(1 << 30)
    assert len(bytearray(1 << 29)) == 1 << 29


def _spin() -> None:
    while True:
        pass
