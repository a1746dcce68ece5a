"""Waivers have a reason and a last day, and are read strictly."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from osv_audit.errors import AuditError
from osv_audit.waivers import read_waivers, split_expired

TODAY = date(2026, 11, 23)
GOOD = '[[waiver]]\nid = "CVE-1"\npackage = "Plan_ted"\nreason = "not reached"\nexpires = 2026-11-23\n'


def test_read_waivers_good_file_holds_through_its_last_day(tmp_path: Path) -> None:
    """The last day is included; the day after, it is over."""
    file = tmp_path / "waivers.toml"
    file.write_text(GOOD)
    (waiver,) = read_waivers(file, TODAY)
    assert waiver.covers("plan-ted", {"CODEX-1", "CVE-1"})
    assert not waiver.covers("other", {"CVE-1"})
    assert not waiver.covers("plan-ted", {"CODEX-1"})
    assert split_expired((waiver,), TODAY) == ((waiver,), ())
    assert split_expired((waiver,), date(2026, 11, 24)) == ((), (waiver,))


def test_read_waivers_missing_file_is_none(tmp_path: Path) -> None:
    """Nothing is waived."""
    assert read_waivers(tmp_path / "none.toml", TODAY) == ()


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace('reason = "not reached"\n', ""),
        GOOD.replace("not reached", " "),
        GOOD.replace("2026-11-23", '"2026-11-23"'),
        GOOD.replace("2026-11-23", "2026-11-23T00:00:00"),
        GOOD.replace("2026-11-23", "2036-11-23"),
        GOOD + 'note = "x"\n',
        "[waiver]\n",
        "waivers = []\n",
        "[[waiver\n",
    ],
)
def test_read_waivers_incomplete_entry_is_an_error(text: str, tmp_path: Path) -> None:
    """No reason, no day, a day too far away, a key nobody reads, no TOML."""
    (tmp_path / "waivers.toml").write_text(text)
    with pytest.raises(AuditError):
        read_waivers(tmp_path / "waivers.toml", TODAY)


def test_read_waivers_of_the_repository_can_be_read(repository_root: Path) -> None:
    """The file that the gate uses."""
    read_waivers(repository_root / "tools" / "osv_audit" / "waivers.toml", TODAY)
