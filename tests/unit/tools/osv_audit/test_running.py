"""pip-audit is believed only with a fresh report of exactly the packages that were to be audited."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from osv_audit.database import read_database
from osv_audit.errors import AuditError
from osv_audit.responder import Responder
from osv_audit.running import Target, environment_target, findings_of, requirements_target, run_pip_audit

TARGET = Target("pins", {"planted": "1.0"}, ())
CLEAN = {"dependencies": [{"name": "planted", "version": "1.0", "vulns": []}]}


@pytest.fixture
def responder(record: Callable[..., Any], archive_of: Any) -> Responder:
    """One with a planted record, of which the package has been asked."""
    responder = Responder(read_database(archive_of(record())))
    responder.answered.append(("planted", "1.0"))
    return responder


def program_that(tmp_path: Path, body: str) -> Path:
    """Return a program in place of pip-audit; ``report`` is where it is told to write."""
    program = tmp_path / "pip-audit"
    program.write_text(f"#!{sys.executable}\nimport pathlib, sys\nreport = pathlib.Path(sys.argv[-1])\n{body}\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    "body",
    [
        "sys.exit(1)",
        "sys.exit(0)",
        "report.write_text('not JSON')",
        "report.write_text('{}')",
        "report.write_text('{\"dependencies\": []}')",
        'report.write_text(\'{"dependencies": [{"name": "planted", "version": "1.0", "vulns": []}]}\'); sys.exit(1)',
    ],
    ids=["crash", "says clean without a report", "no JSON", "empty object", "nothing audited", "clean report, exit 1"],
)
def test_run_pip_audit_without_a_fitting_report_is_an_error(body: str, tmp_path: Path, responder: Responder) -> None:
    """Exit 1 is a finding and a crash, and exit 0 may have looked at nothing."""
    with pytest.raises(AuditError):
        run_pip_audit(program_that(tmp_path, body), TARGET, responder)


def test_run_pip_audit_missing_program_is_an_error(tmp_path: Path, responder: Responder) -> None:
    """The message says how to get it."""
    with pytest.raises(AuditError, match="make gates-setup"):
        run_pip_audit(tmp_path / "none", TARGET, responder)


def test_run_pip_audit_clean_report_without_questions_is_an_error(tmp_path: Path, responder: Responder) -> None:
    """A report that says clean while nobody was asked."""
    responder.answered.clear()
    body = "import json; report.write_text(json.dumps(" + repr(CLEAN) + "))"
    with pytest.raises(AuditError, match="asked"):
        run_pip_audit(program_that(tmp_path, body), TARGET, responder)


def test_findings_of_clean_report_has_none(responder: Responder) -> None:
    """The one way to be clean."""
    assert findings_of(CLEAN, TARGET, responder) == []


def test_findings_of_vulnerable_report_names_everything(responder: Responder) -> None:
    """Every name of the advisory, for waivers."""
    vulnerability = {"id": "CODEX-1", "aliases": ["CVE-1"], "fix_versions": ["2.0"], "description": "planted"}
    report = {"dependencies": [{"name": "planted", "version": "1.0", "vulns": [vulnerability]}]}
    (finding,) = findings_of(report, TARGET, responder)
    assert finding.identifiers == ("CODEX-1", "CVE-1")
    assert finding.fixed_in == ("2.0",)


@pytest.mark.parametrize(
    "dependencies",
    [
        [{"name": "planted", "skip_reason": "not a version"}],
        [],
        [*CLEAN["dependencies"], {"name": "other", "version": "1.0", "vulns": []}],
    ],
    ids=["skipped", "left out", "one more"],
)
def test_findings_of_other_packages_is_an_error(dependencies: list[Any], responder: Responder) -> None:
    """What was not audited is not clean."""
    with pytest.raises(AuditError):
        findings_of({"dependencies": dependencies}, TARGET, responder)


def test_findings_of_package_that_nobody_saw_is_an_error(responder: Responder) -> None:
    """pip-audit has neither named it nor asked of it."""
    responder.answered.clear()
    with pytest.raises(AuditError, match="other packages"):
        findings_of({"dependencies": []}, TARGET, responder)


def test_findings_of_refused_question_is_an_error(responder: Responder) -> None:
    """pip-audit may forgive an error; we do not."""
    responder.refused.append("cannot be answered")
    with pytest.raises(AuditError):
        findings_of(CLEAN, TARGET, responder)


def test_requirements_target_pins_are_read_with_hashes_and_markers(tmp_path: Path) -> None:
    """Comments, continued lines, hashes, extras, and a marker that does not hold here."""
    file = tmp_path / "pins.txt"
    file.write_text(
        "# a comment\nPlan_ted[x]==1.0 \\\n    --hash=sha256:aa  # why\n\nother==2.0 ; python_version < '3'\n"
    )
    target = requirements_target(file)
    assert target.packages == {"plan-ted": "1.0"}
    assert "--require-hashes" in target.options


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "planted\n", "planted>=1.0\n", "planted==1.*\n", "-r other.txt\n", "./here\n"]
)
def test_requirements_target_without_exact_pins_is_an_error(text: str, tmp_path: Path) -> None:
    """A version that is not known cannot be judged."""
    (tmp_path / "pins.txt").write_text(text)
    with pytest.raises(AuditError):
        requirements_target(tmp_path / "pins.txt")


def test_requirements_target_missing_file_is_an_error(tmp_path: Path) -> None:
    """Nothing would be audited."""
    with pytest.raises(AuditError, match="cannot be read"):
        requirements_target(tmp_path / "none.txt")


def test_environment_target_empty_directory_is_an_error(tmp_path: Path) -> None:
    """A path with a typing error must not be a clean environment."""
    with pytest.raises(AuditError, match="no package"):
        environment_target([tmp_path])


def test_environment_target_package_without_a_version_is_an_error(tmp_path: Path) -> None:
    """A damaged installation."""
    (tmp_path / "broken-1.0.dist-info").mkdir()
    (tmp_path / "broken-1.0.dist-info" / "METADATA").write_text("Name: broken\n")
    with pytest.raises(AuditError, match="no name or version"):
        environment_target([tmp_path])
