"""What a verification says: one line for each thing that was looked at, with what was recorded and what is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from codex_ml.errors import UserError
from codex_ml.io.terminal import visible_name

CheckState = Literal["agrees", "differs", "missing", "unchecked", "noted"]
REPORT_VERSION = 1
_MARKS: dict[CheckState, str] = {"agrees": "✓", "differs": "✗", "missing": "✗", "unchecked": "?", "noted": "·"}
_ALLOWED_MARK = "≠"
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    key : str
        What: a dotted key of ``provenance.json``, or a name of a file or directory of the run.
    state : str
        ``agrees``; ``differs``; ``missing`` (recorded, and not there); ``unchecked`` (it could be looked at, but not
        here: `note` says why); ``noted`` (there is nothing to hold it against: `note` says why).
    recorded, found : optional
        What the run wrote down, and what is there now; JSON values.
    note : str
        For people.
    allowed : bool
        Whether the user said that this may differ or stay unchecked.
    """

    key: str
    state: CheckState
    recorded: Any = None
    found: Any = None
    note: str = ""
    allowed: bool = False

    @property
    def fails(self) -> bool:
        """Whether a verification with this check has not been passed."""
        return self.state in ("differs", "missing", "unchecked") and not self.allowed

    def line(self) -> str:
        """Return the check as one line for people."""
        mark = _ALLOWED_MARK if self.allowed else _MARKS[self.state]
        said = f"{mark} {self.key}"
        if self.state == "differs" and (self.recorded is not None or self.found is not None):
            said += f": recorded {_shown(self.recorded)}, now {_shown(self.found)}"
        elif self.state == "missing":
            said += ": missing" + (f", recorded {_shown(self.recorded)}" if self.recorded is not None else "")
        elif self.state == "unchecked":
            said += ": not checked"
        if self.note:
            said += f": {self.note}" if self.state in ("agrees", "noted", "unchecked") else f" ({self.note})"
        return _printable(said) + (" (allowed)" if self.allowed else "")


@dataclass(frozen=True)
class Verification:
    """All checks of one run, in the order in which a reader wants them.

    Attributes
    ----------
    manifest_digest : str, optional
        Of the run manifest; who keeps it elsewhere can tell later that nothing was exchanged.
    """

    directory: str
    run_id: str
    checks: tuple[Check, ...] = field(default=())
    manifest_digest: str | None = None

    @property
    def passed(self) -> bool:
        """Whether everything was looked at and agrees, but for what was allowed."""
        return not any(check.fails for check in self.checks)

    def failing(self) -> list[Check]:
        """Return the checks that failed."""
        return [check for check in self.checks if check.fails]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "schema_version": REPORT_VERSION,
            "directory": self.directory,
            "run_id": self.run_id,
            "passed": self.passed,
            "manifest_digest": self.manifest_digest,
            "counts": _counts(self.checks),
            "checks": [asdict(check) for check in self.checks],
        }

    def lines(self) -> list[str]:
        """Return it as people read it."""
        counts = _counts(self.checks)
        ended = (
            f"{counts['agrees']} agree, {counts['differs']} differ, {counts['missing']} missing, "
            f"{counts['unchecked']} not checked, {counts['noted']} noted"
        )
        allowed = sum(check.allowed for check in self.checks)
        return [
            *(check.line() for check in self.checks),
            f"{visible_name(self.directory)}: {ended}" + (f"; {allowed} of these allowed" if allowed else ""),
            f"run manifest: {self.manifest_digest or 'none'}",
        ]


def compare(key: str, recorded: Any, found: Any, note: str = "") -> Check:
    """Return the check that two values are equal."""
    return Check(key, "agrees" if recorded == found else "differs", recorded, found, note)


def compare_trees(key: str, recorded: Any, found: Any, note: str = "") -> list[Check]:
    """Return one check where two nested values are equal, else one for each leaf in which they differ."""
    if recorded == found:
        return [Check(key, "agrees", note=note)]
    if isinstance(recorded, dict) and isinstance(found, dict):
        names = dict.fromkeys((*recorded, *found))
        differing = [name for name in names if recorded.get(name) != found.get(name)]
        return [
            check for name in differing for check in compare_trees(f"{key}.{name}", recorded.get(name), found.get(name))
        ]
    return [Check(key, "differs", recorded, found, note)]


def mapping(value: Any) -> dict[str, Any]:
    """Return a value of a JSON file as an object; what should be one and is not counts as empty."""
    return value if isinstance(value, dict) else {}


def allow(checks: Iterable[Check], keys: Sequence[str]) -> tuple[Check, ...]:
    """Mark what the user said may differ or stay unchecked: a key, or every key below it.

    Raises
    ------
    UserError
        If a key is that of no check: it would excuse nothing.
    """
    checks = tuple(checks)
    idle = [key for key in keys if not any(is_below(check.key, key) for check in checks)]
    if idle:
        sections = ", ".join(dict.fromkeys(check.key.partition(".")[0] for check in checks))
        raise UserError(
            f"--allow {','.join(idle)}: nothing of that name is checked",
            fix=f"name a key of the list, or {sections}",
            code="CLI_OPTION_WITHOUT_EFFECT",
        )
    return tuple(
        replace(check, allowed=True) if check.fails and any(is_below(check.key, key) for key in keys) else check
        for check in checks
    )


def is_below(key: str, section: str) -> bool:
    """Tell whether a dotted key, or a path in the run, is a section or belongs to it."""
    return key == section or key.startswith((f"{section}.", f"{section}/"))


def _counts(checks: Iterable[Check]) -> dict[str, int]:
    counted = Counter(check.state for check in checks)
    return {state: counted[state] for state in _MARKS}


def _shown(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _printable(text: str) -> str:
    """Return a text with everything written out that a terminal would obey: untrusted text is shown here."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
