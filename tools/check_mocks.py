"""The mock sweep: no test replaces parts of our own code; collaborators are passed in instead.

Looks at the names in the code of every file under ``tests/``; words in comments and strings do not count.
"""

from __future__ import annotations

import argparse
import sys
import tokenize
from collections.abc import Iterable, Sequence
from pathlib import Path

from tracked_files import report, tracked_files

BANNED_NAMES = frozenset(
    {
        "AsyncMock",
        "MagicMock",
        "Mock",
        "MonkeyPatch",
        "NonCallableMock",
        "PropertyMock",
        "create_autospec",
        "mock",
        "mock_open",
        "mocker",
        "monkeypatch",
        "pytest_mock",
    }
)


def mocks_in(files: Iterable[Path]) -> list[str]:
    """Return one line ``file:line: name`` for each banned name in the code of the files.

    Raises
    ------
    SyntaxError, tokenize.TokenError
        If a file is not Python; one that cannot be read must not count as clean.
    """
    found = []
    for file in files:
        with tokenize.open(file) as stream:
            for token in tokenize.generate_tokens(stream.readline):
                if token.type == tokenize.NAME and token.string in BANNED_NAMES:
                    found.append(f"{file}:{token.start[0]}: {token.string}: pass a collaborator in instead")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the test files of a checkout and return the exit code."""
    parser = argparse.ArgumentParser(description="Finds mocks and monkeypatches in tests/.")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: the working directory)")
    files = tracked_files(parser.parse_args(arguments).root, "tests/*.py")
    return report(mocks_in(files), f"{len(files)} test files")


if __name__ == "__main__":
    sys.exit(main())
