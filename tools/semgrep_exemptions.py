"""Exemptions from the semgrep rules: a comment with the rules and the reason.

``# allowed: no-dynamic-import, REASON`` exempts its own line, or the next line if it is alone on its line. Only the
rules in `EXEMPTABLE` accept it. An exemption where the rule finds nothing is a problem: unused ones must be deleted.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

# These rules forbid functions that have a legitimate use here; the other rules do not.
EXEMPTABLE = frozenset({"no-dynamic-import", "no-dynamic-attribute", "no-ctypes"})
_COMMENT = re.compile(r"# allowed:(?P<rules>[^,]*)(?:,(?P<reason>.*))?")
_LEAST_REASON_CHARACTERS = 10


@dataclass
class Exemptions:
    """The exemptions of all scanned files.

    Attributes
    ----------
    lines : dict
        For (file, line, rule): the line of the comment.
    problems : list of str
        Malformed comments, which exempt nothing.
    used : set
        The keys of ``lines`` that have exempted a finding.
    """

    lines: dict[tuple[str, int, str], int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    used: set[tuple[str, int, str]] = field(default_factory=set)

    def covers(self, file: str, line: int, rule: str) -> bool:
        """Return whether a finding is exempted, and mark its exemption as used."""
        key = (file, line, rule)
        if key in self.lines:
            self.used.add(key)
        return key in self.lines

    def all_problems(self) -> list[str]:
        """Return the malformed exemptions and the unused ones."""
        unused = [
            f"{file}:{comment}: exempts from {rule}, which finds nothing there: delete the comment"
            for (file, line, rule), comment in sorted(self.lines.items())
            if (file, line, rule) not in self.used
        ]
        return [*self.problems, *unused]


def read_exemptions(sources: Mapping[str, str]) -> Exemptions:
    """Return the exemptions in these files.

    Parameters
    ----------
    sources : mapping
        The text of each scanned file by its name.
    """
    found = Exemptions()
    for file, text in sources.items():
        for number, match, is_alone in _comments(text):
            rules = match["rules"].split()
            if problem := _problem_of(rules, match["reason"] or ""):
                found.problems.append(f"{file}:{number}: {problem}")
                continue
            target = number + 1 if is_alone else number
            found.lines.update(dict.fromkeys(((file, target, rule) for rule in rules), number))
    return found


def _comments(text: str) -> Iterator[tuple[int, re.Match[str], bool]]:
    """Yield the line, the fields, and whether the comment is alone on its line; strings of that form are ignored."""
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT and (match := _COMMENT.fullmatch(token.string)):
                yield token.start[0], match, token.line.lstrip().startswith("#")
    except (tokenize.TokenError, SyntaxError):
        # A file that Python cannot parse fails other checks; its further lines have no exemptions.
        return


def _problem_of(rules: Sequence[str], reason: str) -> str:
    if not rules:
        return "an exemption names no rule (expected: # allowed: RULE, REASON)"
    if unknown := sorted(set(rules) - EXEMPTABLE):
        return f"{', '.join(unknown)} accepts no exemption (only {', '.join(sorted(EXEMPTABLE))} do)"
    if len(reason.strip()) < _LEAST_REASON_CHARACTERS:
        return "an exemption has no reason (expected: # allowed: RULE, REASON)"
    return ""
