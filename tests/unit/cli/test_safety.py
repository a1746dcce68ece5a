"""`codex-ml safety`: what a policy holds, what it finds in a text, and what one of its rules looks for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codex_ml.cli.main import app
from codex_ml.safety.policy import load_policy

pytestmark = pytest.mark.safety

MAIL = "ann" + "@" + "firm-mail.de"
POLICY = """
version: 1
rules:
  - {id: badge, kind: pii, description: Number of a badge, patterns: ['B-[0-9]{5}'], borders: word, allow: ['B-00000']}
  - {id: project, kind: phrase, description: Names, action: block, phrases: [red kite, blue heron]}
allow:
  - {id: sample, description: the sample badge, patterns: ['B-12345'], rules: [badge]}
"""


def run(*arguments: str, given: bytes | None = None) -> tuple[int, str, str]:
    """Run a command and return exit code, stdout and stderr."""
    answer = CliRunner().invoke(app, ["safety", *arguments], input=given)
    return answer.exit_code, answer.stdout, answer.stderr


@pytest.fixture
def policy(tmp_path: Path) -> str:
    """Return the path of a small policy file."""
    file = tmp_path / "own.yaml"
    file.write_text(POLICY, encoding="utf-8")
    return str(file)


def test_list_default_policy_names_each_rule_and_the_digest() -> None:
    """One line for each rule, and the digest under which a run's provenance names the policy."""
    code, out, _ = run("list")
    loaded = load_policy("default")
    assert code == 0
    assert all(any(line.startswith(f"{rule.id} ") for line in out.splitlines()) for rule in loaded.rules)
    assert out.endswith(f"policy default, {len(loaded.rules)} rules, {loaded.digest}\n")


def test_list_json_own_policy_gives_every_field(policy: str) -> None:
    """The same for a machine."""
    code, out, _ = run("list", "--policy", policy, "--json")
    listed = json.loads(out)
    assert (code, listed["policy"]) == (0, "own")
    assert listed["digest"] == load_policy(policy).digest
    assert listed["rules"][1] == {
        "id": "project",
        "kind": "phrase",
        "action": "block",
        "description": "Names",
        "patterns": 0,
        "phrases": 2,
    }


def test_test_clean_text_exits_0(tmp_path: Path) -> None:
    """Nothing found is said so."""
    file = tmp_path / "clean.txt"
    file.write_text("nothing to see here\n", encoding="utf-8")
    assert run("test", str(file)) == (0, f"{file}: 20 characters, action keep: nothing found\n", "")


def test_test_findings_are_placed_without_content_and_exit_2(tmp_path: Path, policy: str) -> None:
    """Rule, line, column and length; not a word of what was found."""
    file = tmp_path / "text.txt"
    file.write_text("é one\nhas B-77777, B-00000 and B-12345\nRed\nKite\n", encoding="utf-8")
    code, out, err = run("test", str(file), "--policy", policy)
    assert code == 2
    assert out.splitlines() == [
        f"{file}:2:5: badge (pii), length 7",
        f"{file}:3:1: project (phrase), length 8",
        f"{file}: 48 characters, action block: badge 1, project 1",
    ]
    assert "2 safety findings" in err
    assert "77777" not in out + err


def test_test_json_names_places_and_policy(policy: str) -> None:
    """Standard input is read, and the answer is JSON."""
    code, out, _ = run("test", "-", "--policy", policy, "--json", given=b"x\n B-77777")
    report = json.loads(out)
    assert code == 2
    assert report["findings"] == [{"rule": "badge", "kind": "pii", "line": 2, "column": 2, "offset": 3, "length": 7}]
    assert report["findings_by_rule"] == {"badge": 1}
    assert report["policy_digest"] == load_policy(policy).digest


def test_test_redacted_prints_the_text_alone_on_stdout() -> None:
    """What is redirected is the redacted text byte for byte, with its own line ends."""
    given = f"mail {MAIL}\r\nend".encode()
    answer = CliRunner().invoke(app, ["safety", "test", "-", "--redacted"], input=given)
    assert (answer.exit_code, answer.stdout_bytes) == (2, b"mail [REDACTED:email]\r\nend")
    assert "standard input:1:6: email" in answer.stderr
    assert MAIL not in answer.stderr


def test_test_many_findings_are_counted_and_listed_up_to_a_bound(policy: str) -> None:
    """A text full of findings does not fill the memory."""
    code, out, _ = run("test", "-", "--policy", policy, "--json", given=b"B-77777\n" * 1500)
    report = json.loads(out)
    assert (code, len(report["findings"]), report["not_listed"]) == (2, 1000, 500)
    assert run("test", "-", "--policy", policy, given=b"B-77777\n" * 1500)[1].splitlines()[1000] == "and 500 more"


def test_test_what_cannot_be_judged_is_an_error(policy: str) -> None:
    """A line that is too long to judge is no clean text."""
    code, out, err = run("test", "-", "--policy", policy, given=b"x" * (5 << 20))
    assert (code, "filter_failure" in out) == (2, True)
    assert "could not be judged to its end" in err


@pytest.mark.parametrize("content", [b"abc\xff\n", b"abc\xe2\x82"])
def test_test_text_that_is_no_utf_8_is_refused_with_the_place(tmp_path: Path, content: bytes) -> None:
    """The offset of the byte is named, also where the file ends inside a character."""
    file = tmp_path / "latin.txt"
    file.write_bytes(b"\n" * 65536 + content)
    code, _, err = run("test", str(file))
    assert code == 2
    assert "is not UTF-8" in err
    assert "65,539" in err
    assert "Traceback" not in err


def test_test_directory_missing_file_and_two_outputs_are_refused(tmp_path: Path) -> None:
    """Each with one error block."""
    for arguments, words in (
        ((str(tmp_path),), "it is a directory"),
        ((str(tmp_path / "none"),), "No such file"),
        (("-", "--json", "--redacted"), "give one of them"),
        (("-", "--policy", str(tmp_path / "none.yaml")), "there is no such file"),
    ):
        code, out, err = run("test", *arguments)
        assert (code, out) == (2, "")
        assert words in err


def test_explain_rule_says_what_it_finds_and_what_stays(policy: str) -> None:
    """Patterns, borders, permissions and the marker."""
    code, out, _ = run("explain", "badge", "--policy", policy)
    assert code == 0
    assert out.splitlines() == [
        "badge: Number of a badge",
        "kind pii, action redact, marker [REDACTED:badge]",
        "borders: a whole word",
        "patterns (RE2): B-[0-9]{5}",
        "stays, where it is exactly: B-00000",
        "permitted by sample (the sample badge): B-12345",
        f"policy own, {load_policy(policy).digest}",
    ]
    assert "phrases (any case, on word borders): blue heron" in run("explain", "project", "--policy", policy)[1]
    assert json.loads(run("explain", "badge", "--policy", policy, "--json")[1])["permissions"][0]["id"] == "sample"


def test_explain_every_kind_of_rule_of_the_default_policy_has_an_explanation() -> None:
    """Of each kind of rule, and of one that goes on to an end, the first line says what it finds."""
    chosen = {(rule.kind, rule.until is None): rule for rule in load_policy("default").rules}
    for rule in chosen.values():
        code, out, _ = run("explain", rule.id)
        assert (code, out.splitlines()[0]) == (0, f"{rule.id}: {rule.description}")
        assert ("the span extends to: " in out) == (rule.until is not None)


def test_explain_unknown_rule_suggests_one(policy: str) -> None:
    """A mistyped id is answered with the one that was meant."""
    code, _, err = run("explain", "bagde", "--policy", policy)
    assert code == 2
    assert "did you mean badge?" in err
    assert "codex-ml safety list" in run("explain", "zzzzzz", "--policy", policy)[2]


def test_safety_commands_import_no_heavy_library(tmp_path: Path) -> None:
    """They answer at once: no torch, no transformers, no numpy."""
    (tmp_path / "t.txt").write_text("plain\n", encoding="utf-8")
    for arguments in (["list"], ["test", "t.txt"], ["explain", "email"]):
        program = (
            "import sys\n"
            "from codex_ml.cli.main import app\n"
            f"try:\n    app({['safety', *arguments]!r}, prog_name='codex-ml')\n"
            "except SystemExit as stop:\n    code = stop.code or 0\n"
            "heavy = {'torch', 'transformers', 'peft', 'numpy', 'mlflow'} & set(sys.modules)\n"
            "sys.exit(f'heavy: {heavy}' if heavy else code)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), arguments
