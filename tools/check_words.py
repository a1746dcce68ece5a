"""Finds words that DESIGN section 3 rules out: metaphors and private idioms instead of the terms of the field.

Python files of the package are checked whole (messages, help texts, docstrings, comments), and the pages for readers. A
legitimate use is a pattern in `ALLOWED`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tracked_files import report, tracked_files

# The word, and what to write instead.
BANNED = {
    r"stands?": "is, is in, appears, occurs",
    r"(?:lies|lie) in": "is in",
    r"(?:goes|go) on": "continues, resumes",
    r"anew": "again",
    r"besides": "in addition to",
    r"whoever": "the caller, the user",
    r"somebody": "a user, another process; of files: untrusted",
    r"at work": "active, running",
    r"mend(?:ed|s)?": "fix",
    r"the very": "(leave it out)",
    r"so many": "a number of, this many",
    r"without a word": "silently, unexpectedly",
    r"wish(?:es|ed)?": "request, setting",
    r"torso": "partial file",
    r"strangers?": "untrusted",
    r"witness(?:es)?": "recorder",
    r"rooms?": "space, capacity, positions",
    r"house": "(name the thing)",
}
ALLOWED = (
    r"_the_[a-z_]+",  # Names of tests and pages.
    r"[\w./-]*\b0014-files-from-strangers[\w.]*",
    r"0001-the-first-stair",
)
_BANNED = re.compile(r"\b(?:" + "|".join(f"(?P<w{number}>{word})" for number, word in enumerate(BANNED)) + r")\b", re.I)
_ALLOWED = re.compile("|".join(ALLOWED))
_ADVICE = list(BANNED.values())
_PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
_FOLDERS = ("src/codex_ml/", "docs/how-to/", "docs/tutorials/", "docs/explanation/", "docs/reference/")
# Its rows quote the names of tests.
_EXEMPT = ("docs/reference/faults.md",)


def findings(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield the line, the word and the advice of each use of a banned word."""
    for number, line in enumerate(text.split("\n"), start=1):
        for match in _BANNED.finditer(_ALLOWED.sub("", line)):
            assert match.lastgroup is not None
            yield number, match[0], _ADVICE[int(match.lastgroup[1:])]


def is_checked(name: str) -> bool:
    """Tell whether a file, named relative to the checkout, is checked."""
    if name in _EXEMPT:
        return False
    return name in _PAGES or (name.startswith(_FOLDERS) and name.endswith((".py", ".md")))


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the files of a checkout; return 1 and list the uses if there are any."""
    parser = argparse.ArgumentParser(description="Find words that DESIGN section 3 rules out.")
    parser.add_argument("--root", type=Path, default=Path(), help="checkout (default: working directory)")
    root = parser.parse_args(arguments).root.resolve()
    files = [file for file in tracked_files(root) if is_checked(file.relative_to(root).as_posix())]
    problems = [
        f"{file.relative_to(root)}:{number}: {word!r}: write {advice}"
        for file in files
        for number, word, advice in findings(file.read_text(encoding="utf-8"))
    ]
    return report(problems, f"{len(files)} files")


if __name__ == "__main__":
    sys.exit(main())
