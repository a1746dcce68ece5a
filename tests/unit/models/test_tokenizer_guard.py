"""Untrusted tokenizers: expressions of published models are accepted, those that hang or panic are refused."""

from __future__ import annotations

import base64
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from codex_ml.errors import CodexError, ModelError
from codex_ml.models.tokenizer_guard import guard_tokenizer, probe_tokenizer, steps_of

pytestmark = pytest.mark.timeout(600)

# Copied from the tokenizer.json of these models, or from the code that created it.
PUBLISHED: dict[str, str] = json.loads(Path(__file__).with_name("published_expressions.json").read_text("ascii"))
AMBIGUOUS = (
    r"(a+)+$|\w+|.",
    r"(?:(?:\w+))*!",
    r"(\w+\s?)*$",
    r"(a*)*$",
    r"(a|a)*$",
    r"(a+a+)+$|.",
    r"(a{1,200}){1,200}$|.",
    r"^([a-zA-Z0-9_.+-]+)*@|.",
    r"(?=(a+)+$)a|.",
)
FOUND_BY_TRYING = (
    r"(a|aa)+$|.",
    r"(\w|\d)+$|.",
    r"\s+\s+$|.",
    r"\s+$|.",
    r"q(z|zz)+$|.",
    r"(?:xy|xyxy)+$|.",
    r"zqk.{0,400}.{0,400}!",
    r"z{3}(?:q)[k].{0,400}.{0,400}!",
    r"zqk\w+\s*!",
)


def _write(directory: Path, **steps: Any) -> Path:
    file = directory / "tokenizer.json"
    file.write_text(json.dumps(steps), encoding="utf-8")
    return file


def _split(expression: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


def _replace(pattern: dict[str, str]) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": "x"}


def _refusal(file: Path) -> str:
    try:
        guard_tokenizer(file, "model.path")
        probe_tokenizer(file, "model.path")
    except ModelError as error:
        return error.block()
    pytest.fail("the tokenizer is accepted")


@pytest.mark.parametrize("name", PUBLISHED)
def test_guard_expressions_of_published_models_are_accepted(tmp_path: Path, name: str) -> None:
    """They pass the check of their structure and the trial on hard texts."""
    file = _write(tmp_path, pre_tokenizer=_split(PUBLISHED[name]))
    guard_tokenizer(file, "model.path")
    probe_tokenizer(file, "model.path")


@pytest.mark.parametrize("expression", AMBIGUOUS)
def test_guard_expressions_that_nest_repetitions_are_refused_unrun(tmp_path: Path, expression: str) -> None:
    """The structure alone is enough to refuse them."""
    file = _write(tmp_path, pre_tokenizer={"type": "Sequence", "pretokenizers": [_split(expression)]})
    with pytest.raises(ModelError, match="the pre_tokenizer in") as caught:
        guard_tokenizer(file, "model.path")
    assert "exponential time" in caught.value.why


@pytest.mark.parametrize("expression", FOUND_BY_TRYING)
def test_probe_expressions_that_cost_too_much_are_refused(tmp_path: Path, expression: str) -> None:
    """The check of the structure passes; the trial on hard texts fails."""
    file = _write(tmp_path, pre_tokenizer=_split(expression))
    guard_tokenizer(file, "model.path")
    with pytest.raises(ModelError, match="is refused"):
        probe_tokenizer(file, "model.path")


@pytest.mark.parametrize("expression", ["zqk.{0,400}.{0,400}!", "a"])
def test_guard_decoder_with_an_expression_is_refused(tmp_path: Path, expression: str) -> None:
    """Decoding runs in the process of the service, which cannot stop an expression."""
    with pytest.raises(ModelError, match="the decoder in") as caught:
        guard_tokenizer(_write(tmp_path, decoder=_replace({"Regex": expression})), "model.path")
    assert "regular expression" in caught.value.why
    guard_tokenizer(_write(tmp_path, decoder=_replace({"String": expression})), "model.path")


@pytest.mark.parametrize("step", ["normalizer", "pre_tokenizer"])
def test_guard_every_step_with_expressions_is_checked(tmp_path: Path, step: str) -> None:
    """Normalizers can replace by expression, as pre-tokenizers split by expression."""
    bad = _split("(a|aa)+$|.") if step == "pre_tokenizer" else _replace({"Regex": "(a|aa)+$"})
    assert f"{step}: PanicException" in _refusal(_write(tmp_path, **{step: bad}))


@pytest.mark.parametrize("pattern", [{"String": ""}, {"Regex": ""}])
def test_guard_empty_pattern_of_a_replacement_is_refused(tmp_path: Path, pattern: dict[str, str]) -> None:
    """An empty pattern matches everywhere."""
    assert "a pattern is empty" in _refusal(_write(tmp_path, normalizer=_replace(pattern)))


@pytest.mark.parametrize("step", ["normalizer", "decoder"])
def test_guard_step_that_multiplies_a_text_is_refused(tmp_path: Path, step: str) -> None:
    """The factors of consecutive replacements are multiplied; a step that adds a prefix counts too."""
    replacements = [{**_replace({"String": "a"}), "content": "a" * 40} for _ in range(2)]
    sequence = {"type": "Sequence", f"{step}s": replacements}
    assert f"the {step} in" in _refusal(_write(tmp_path, **{step: sequence}))
    prepend = {"type": "Prepend", "prepend": "a" * 2000}
    assert f"the {step} in" in _refusal(_write(tmp_path, **{step: prepend}))


def test_guard_pattern_above_the_size_limit_is_refused(tmp_path: Path) -> None:
    """Every known expression is shorter than a tenth of the limit."""
    assert "at most 10000" in _refusal(_write(tmp_path, normalizer=_replace({"Regex": "a" * 20_000})))


@pytest.mark.parametrize("content", [b"garbage", b"\x04\0\0\0" + b"abcd" * 3, b"\xff" * 40, b""])
def test_probe_character_map_that_is_garbage_is_refused(tmp_path: Path, content: bytes) -> None:
    """The library panics when it loads the map, or on the first text."""
    step = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(content).decode()}
    assert "is refused" in _refusal(_write(tmp_path, normalizer=step))


def test_probe_tokenizer_without_expressions_starts_no_process(tmp_path: Path) -> None:
    """The built-in steps of the library need no trial; the command of the check does not exist."""
    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    file = _write(tmp_path, pre_tokenizer=step, model={"type": "BPE", "vocab": {"a": 0}, "merges": []})
    guard_tokenizer(file, "model.path")
    probe_tokenizer(file, "model.path", ("/nonexistent/python",))
    probe_tokenizer(tmp_path / "absent.json", "model.path", ("/nonexistent/python",))


def test_probe_module_in_the_working_directory_is_not_imported(tmp_path: Path) -> None:
    """A model directory that is the working directory may contain a file with the name of a library."""
    file = _write(tmp_path, normalizer=_replace({"Regex": "planted module"}))
    (tmp_path / "tokenizers.py").write_text("from pathlib import Path\nPath('planted').touch()\n")
    with contextlib.chdir(tmp_path):
        probe_tokenizer(file, "model.path")
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize(
    ("command", "why"),
    [(("/nonexistent/python",), "cannot be started: No such file"), ((sys.executable, "-c", "exit(3)"), "exit code 3")],
)
def test_probe_check_that_cannot_be_run_is_no_fault_of_the_tokenizer(
    tmp_path: Path, command: tuple[str, ...], why: str
) -> None:
    """Exit code 1 means a fault of the machine or the installation."""
    file = _write(tmp_path, normalizer=_replace({"Regex": f"checked by {command[-1]}"}))
    with pytest.raises(CodexError, match="the check of the tokenizer could not be run") as caught:
        probe_tokenizer(file, "model.path", command)
    assert (caught.value.exit_code, why in caught.value.why) == (1, True)


def test_guard_file_is_parsed_once_until_it_changes(tmp_path: Path) -> None:
    """Several checks at start read the file, and a large vocabulary takes a second to parse."""
    file = _write(tmp_path, decoder=_replace({"String": "a"}), model={"vocab": {"a": 0}})
    before = steps_of.cache_info()
    for _ in range(3):
        guard_tokenizer(file, "model.path")
        probe_tokenizer(file, "model.path")
    after = steps_of.cache_info()
    assert (after.misses - before.misses, after.hits - before.hits) == (1, 5)
    file.write_text(json.dumps({"decoder": _replace({"Regex": "a"})}), encoding="utf-8")
    with pytest.raises(ModelError):
        guard_tokenizer(file, "model.path")
