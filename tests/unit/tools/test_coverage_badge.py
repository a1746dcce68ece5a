"""The badge is the same bytes for the same coverage, and a stale one fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from coverage_badge import BADGE, DATA, draw, main


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """A checkout of a module of four lines, two of which were covered."""
    (tmp_path / "pyproject.toml").write_text(f'[tool.coverage.run]\ndata_file = "{DATA.as_posix()}"\n')
    (tmp_path / "module.py").write_text("import sys\nif len(sys.argv) > 9:\n    A = 1\n    B = 2\n")
    (tmp_path / DATA).parent.mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "coverage", "run", "module.py"], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize(("percent", "colour"), [(100, "#2e7d32"), (90, "#2e7d32"), (89, "#8d6e00"), (0, "#b71c1c")])
def test_draw_percentage_is_readable_svg(percent: int, colour: str) -> None:
    """Well-formed, with the number for people who hear it too."""
    badge = draw(percent)
    assert ET.fromstring(badge).get("aria-label") == f"coverage: {percent}%"
    assert colour in badge
    assert badge == draw(percent)


@pytest.mark.parametrize("percent", [-1, 101])
def test_draw_no_percentage_raises(percent: int) -> None:
    """A number that cannot be."""
    with pytest.raises(ValueError, match="percentage"):
        draw(percent)


def test_main_written_twice_is_the_same_and_current(measured: Path) -> None:
    """Missing is stale; written, it is current, and written again it is the same."""
    assert main(["--root", str(measured), "--check"]) == 1
    assert main(["--root", str(measured)]) == 0
    first = (measured / BADGE).read_bytes()
    assert b"50%" in first
    assert main(["--root", str(measured)]) == 0
    assert (measured / BADGE).read_bytes() == first
    assert main(["--root", str(measured), "--check"]) == 0


def test_main_other_coverage_is_stale(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The badge of last week."""
    (measured / BADGE).parent.mkdir()
    (measured / BADGE).write_text(draw(51))
    assert main(["--root", str(measured), "--check"]) == 1
    assert "stale" in capsys.readouterr().out


@pytest.mark.parametrize(("shown", "code"), [(48, 1), (49, 0), (51, 0), (52, 1)])
def test_main_check_within_a_point_takes_the_neighbours_alone(measured: Path, shown: int, code: int) -> None:
    """The measured coverage is 50 %."""
    (measured / BADGE).parent.mkdir()
    (measured / BADGE).write_text(draw(shown))
    assert main(["--root", str(measured), "--check", "--within", "1"]) == code


def test_main_nothing_measured_fails(tmp_path: Path) -> None:
    """No data, and data that cannot be read."""
    assert main(["--root", str(tmp_path)]) == 1
    (tmp_path / DATA).parent.mkdir(parents=True)
    (tmp_path / DATA).write_text("not a database")
    assert main(["--root", str(tmp_path)]) == 1


def test_draw_committed_badge_is_one_of_ours(repository_root: Path) -> None:
    """Whichever number it has, nobody drew it by hand."""
    assert (repository_root / BADGE).read_text() in {draw(percent) for percent in range(101)}
