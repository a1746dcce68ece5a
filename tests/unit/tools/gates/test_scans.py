"""Every hook of the gate is in exactly one scan, and passes only by saying so."""

from __future__ import annotations

from pathlib import Path

import pytest

from gates.scans import ConfigurationError, all_scans, hooks_not_passed, read_hooks

CONTRACT = {"pre-commit", "tests", "types", "imports", "bandit", "semgrep", "audit", "secrets", "licences", "sbom"}


def test_all_scans_of_the_repository_hold_every_hook_once(repository_root: Path) -> None:
    """Nothing of the list of hooks falls between two scans."""
    scans = all_scans(repository_root, rehearse_audit=False)
    assert {scan.name for scan in scans} == CONTRACT
    hooks = [hook for scan in scans for hook in scan.hooks]
    assert sorted(hooks) == sorted(read_hooks(repository_root))


def test_all_scans_rehearsal_only_where_it_is_asked_for(repository_root: Path) -> None:
    """Without the option a machine without a database fails."""
    for asked in (False, True):
        audit = next(scan for scan in all_scans(repository_root, rehearse_audit=asked) if scan.name == "audit")
        assert ("--rehearse-without-database" in audit.commands[0]) is asked


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("security (bandit)........................Passed", []),
        ("security (bandit)........................Failed", ["bandit"]),
        ("security (bandit).....(no files to check)Skipped", ["bandit"]),
        ("security (bandit).......................Skipped", ["bandit"]),
        ("other rules (semgrep)...................Passed", ["bandit"]),
        ("", ["bandit"]),
    ],
)
def test_hooks_not_passed_anything_but_passed_is_missing(line: str, missing: list[str], repository_root: Path) -> None:
    """A hook that was skipped exits with 0."""
    scan = next(scan for scan in all_scans(repository_root, rehearse_audit=False) if scan.name == "bandit")
    assert hooks_not_passed(scan, f"before\n{line}\n- hook id: bandit\n") == missing


@pytest.mark.parametrize("text", [None, "", "repos: 3", "repos: [", "repos: [{hooks: [{id: mypy, name: types}]}]"])
def test_read_hooks_without_the_expected_ones_raises(text: str | None, tmp_path: Path) -> None:
    """Missing, empty, broken, or without a scanner: the gate does not start."""
    if text is not None:
        (tmp_path / ".pre-commit-config.yaml").write_text(text)
    with pytest.raises(ConfigurationError):
        read_hooks(tmp_path)


def test_all_scans_skip_of_the_user_is_not_passed_on(repository_root: Path) -> None:
    """SKIP=bandit in somebody's shell must not leave bandit out."""
    for scan in all_scans(repository_root, rehearse_audit=False):
        if scan.hooks:
            assert "SKIP" in scan.environment
            assert not set(scan.hooks) & set(scan.environment["SKIP"].split(","))
