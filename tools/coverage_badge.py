"""Draws the coverage of the last `make test` as a badge, or says that the committed one is stale.

The number is cut to whole percent: the same tree gives the same bytes here and in CI. Nothing is fetched: the badge
is a small SVG of our own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tracked_files import report

BADGE = Path("docs") / "coverage.svg"
DATA = Path(".cache") / "coverage" / "data"
# From which percentage on a colour is used.
COLOURS = ((90, "#2e7d32"), (75, "#8d6e00"), (0, "#b71c1c"))


def measured_percent(root: Path) -> int:
    """Return the whole percent of branch coverage that the last run of all tests has measured.

    Raises
    ------
    ValueError
        If nothing was measured, or coverage cannot read it.
    """
    if not (root / DATA).is_file():
        raise ValueError(f"there is no {DATA}: run make test first")
    command = [sys.executable, "-m", "coverage", "report", "--format=total", "--precision=2", "--fail-under=0"]
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise ValueError(f"coverage exits with {answer.returncode}: {(answer.stdout + answer.stderr).strip()[-300:]}")
    return int(float(answer.stdout.strip()))


def draw(percent: int) -> str:
    """Return the badge as SVG.

    Raises
    ------
    ValueError
        If it is no percentage.
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"{percent} is no percentage")
    colour = next(colour for least, colour in COLOURS if percent >= least)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="104" height="20" role="img" '
        f'aria-label="coverage: {percent}%">\n'
        f"  <title>branch coverage: {percent}%</title>\n"
        '  <rect width="64" height="20" fill="#424242"/>\n'
        f'  <rect x="64" width="40" height="20" fill="{colour}"/>\n'
        '  <g fill="#ffffff" font-family="Verdana, DejaVu Sans, sans-serif" font-size="11" text-anchor="middle">\n'
        '    <text x="32" y="14">coverage</text>\n'
        f'    <text x="84" y="14">{percent}%</text>\n'
        "  </g>\n"
        "</svg>\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the badge or compare it, and return the exit code."""
    parser = argparse.ArgumentParser(description="Draws the coverage of the last make test as a badge.")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: the working directory)")
    parser.add_argument("--check", action="store_true", help=f"write nothing; fail when {BADGE} is stale")
    parser.add_argument(
        "--within", type=int, default=0, help="percentage points by which a checked badge may differ (default: 0)"
    )
    chosen = parser.parse_args(arguments)
    file = chosen.root / BADGE
    try:
        percent = measured_percent(chosen.root)
        badge = draw(percent)
        if chosen.check:
            lowest, highest = max(0, percent - chosen.within), min(100, percent + chosen.within)
            accepted = [draw(near) for near in range(lowest, highest + 1)]
            is_current = file.is_file() and file.read_text(encoding="utf-8") in accepted
            problems = (
                [] if is_current else [f"{BADGE} is stale, {percent} % were measured: make coverage-badge, and commit"]
            )
            return report(problems, str(BADGE))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(badge, encoding="utf-8")
    except (OSError, ValueError) as error:
        return report([f"no badge: {error}"], "the coverage")
    print(f"wrote {BADGE}: {percent} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
