"""Looks for secrets in every file under version control with the `secret` rules of the packaged safety policy.

UTF-16 and UTF-32 files, compressed files, archives and base64 of PEM keys are read too (``secret_views.py``).

What may stay (the made-up keys in the tests of these very rules) is listed in ``secrets_allowed.txt``, one line each:
path, rule, and the first 16 digits of the SHA-256 of what was found, or ``*`` for all that the rule finds in that file.
An entry that no longer finds anything is an error too, so that the list cannot grow old.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from codex_ml.safety.matching import PolicyMatcher
from codex_ml.safety.policy import load_policy
from secret_views import NotScannedError, views_of
from tracked_files import report, tracked_files

ALLOW_LIST = Path("tools") / "secrets_allowed.txt"


@dataclass(frozen=True)
class Secret:
    """Where a secret was found; never what it is."""

    path: str
    line: int
    rule_id: str
    fingerprint: str


def secret_matcher() -> tuple[PolicyMatcher, int]:
    """Return what finds secrets by the rules of the packaged policy, and how many rules those are."""
    policy = load_policy("default")
    rules = [rule for rule in policy.rules if rule.kind == "secret"]
    return PolicyMatcher(rules, policy.allow), len(rules)


def secrets_in(text: str, path: str, matcher: PolicyMatcher) -> list[Secret]:
    """Return every secret in a text, in the order of the rules."""
    return [
        Secret(path, text.count("\n", 0, match.start) + 1, match.rule.id, _fingerprint(text[match.start : match.end]))
        for match in matcher.find(text)
    ]


def secrets_in_file(data: bytes, path: str, matcher: PolicyMatcher) -> list[Secret]:
    """Return every secret in a file, each once even if several views of the file contain it.

    Raises
    ------
    NotScannedError
        If a compressed file cannot be unpacked within the bounds.
    """
    found: dict[tuple[str, str, str], Secret] = {}
    for place, text in views_of(data, path):
        for secret in secrets_in(text, place, matcher):
            found.setdefault((place, secret.rule_id, secret.fingerprint), secret)
    return list(found.values())


def read_allow_list(text: str) -> set[tuple[str, str, str]]:
    """Return the entries (path, rule, fingerprint or ``*``) of an allow list; ``#`` begins a comment.

    Raises
    ------
    ValueError
        If a line has not three fields.
    """
    entries = set()
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.split("#")[0].split()
        if fields and len(fields) != 3:
            raise ValueError(f"{ALLOW_LIST}:{number}: expected path, rule and fingerprint")
        if fields:
            entries.add((fields[0], fields[1], fields[2]))
    return entries


def problems_of(secrets: Iterable[Secret], allowed: set[tuple[str, str, str]]) -> list[str]:
    """Return the secrets that are not allowed, and the entries of the allow list that allow nothing."""
    problems = []
    used = set()
    for secret in secrets:
        entries = {(secret.path, secret.rule_id, mark) for mark in (secret.fingerprint, "*")} & allowed
        used |= entries
        if not entries:
            problems.append(
                f"{secret.path}:{secret.line}: {secret.rule_id} {secret.fingerprint}: take it out and make it void; "
                f"if it was never a secret, list it in {ALLOW_LIST}"
            )
    problems.extend(f"{ALLOW_LIST}: {' '.join(entry)} allows nothing: delete it" for entry in sorted(allowed - used))
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Scan a checkout and return the exit code."""
    parser = argparse.ArgumentParser(description="Looks for secrets in every file under version control.")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout (default: the working directory)")
    root = parser.parse_args(arguments).root
    matcher, rule_count = secret_matcher()
    files = tracked_files(root)
    secrets = []
    not_scanned = []
    for file in files:
        try:
            secrets.extend(secrets_in_file(file.read_bytes(), file.relative_to(root).as_posix(), matcher))
        except NotScannedError as error:
            not_scanned.append(str(error))
    list_file = root / ALLOW_LIST
    allowed = read_allow_list(list_file.read_text(encoding="utf-8")) if list_file.is_file() else set()
    problems = [*not_scanned, *problems_of(secrets, allowed)]
    if not rule_count:
        problems.append("the packaged policy has no secret rules: nothing was looked for")
    return report(problems, f"{len(files)} files, {rule_count} rules")


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
