"""One rule of a safety policy, and one permission: what they look for, as written in a policy file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from codex_ml.safety.checks import require_check
from codex_ml.safety.patterns import Borders, BytesPattern, require_usable
from codex_ml.safety.phrases import fold

RuleKind = Literal["secret", "pii", "phrase", "regex"]
RuleAction = Literal["redact", "drop", "block"]
_MOST_PATTERNS, _LONGEST_PATTERN = 200, 4096
_Identifier = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64)]


class Rule(BaseModel):
    """One thing that must not pass: how to recognise it and what to do with it.

    Patterns are regular expressions of RE2, which takes time linear in the text whatever the pattern; it has no
    look-around and no back-references. A pattern that has a group named ``value`` marks only that group; without one
    the whole match is marked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: _Identifier = Field(description="Name used in every finding and in the marker.")
    kind: RuleKind = Field(description="What the rule protects.")
    description: Annotated[str, Field(min_length=1, description="What it finds, for the reader of an audit.")]
    action: RuleAction = Field("redact", description="redact the span, drop the record, or block the operation.")
    patterns: tuple[str, ...] = Field((), description="Regular expressions of RE2.")
    phrases: tuple[str, ...] = Field((), description="Words matched without regard to case, on word borders.")
    borders: Borders = Field("none", description="What may stand beside a match: see `codex_ml.safety.patterns`.")
    checks: tuple[str, ...] = Field((), description="Tests that a match must pass: see `codex_ml.safety.checks`.")
    unless_after: tuple[str, ...] = Field((), description="Patterns; what stands right behind one of them stays.")
    unless_before: tuple[str, ...] = Field((), description="Patterns; what is right followed by one of them stays.")
    until: str | None = Field(
        None, description="Pattern of the end: the span goes on to it, or to the end of the text."
    )
    allow: tuple[str, ...] = Field((), description="Patterns; a match that one of them fits completely stays.")

    @model_validator(mode="after")
    def _check_rule(self, info: ValidationInfo) -> Rule:
        if bool(self.patterns) == bool(self.phrases):
            raise ValueError("needs either patterns or phrases, and not both")
        if (self.kind == "phrase") != bool(self.phrases):
            raise ValueError("kind phrase goes with phrases, the other kinds go with patterns")
        for_patterns = (self.checks, self.unless_after, self.unless_before, self.until, self.allow)
        if self.phrases and (any(for_patterns) or self.borders != "none"):
            raise ValueError("borders, checks, unless_after, unless_before, until and allow work on patterns only")
        if any(not fold(phrase).split() for phrase in self.phrases):
            raise ValueError("has an empty phrase")
        if _is_packaged(info):
            return self
        for check in self.checks:
            require_check(check)
        _require_patterns("pattern", self.patterns, "finds")
        _require_patterns("allow", self.allow, "permits")
        _require_patterns("unless_after", self.unless_after, "surrounds")
        _require_patterns("unless_before", self.unless_before, "surrounds")
        _require_patterns("until", () if self.until is None else (self.until,), "surrounds")
        return self


class Permission(BaseModel):
    """What may pass although a rule finds it: a found span that one of the patterns fits completely.

    Only the span itself decides: what stands around it can whiten nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: _Identifier = Field(description="Name, for the reader of a policy.")
    description: Annotated[str, Field(min_length=1, description="Why it may pass.")]
    patterns: tuple[str, ...] = Field(min_length=1, description="Regular expressions of RE2.")
    rules: tuple[str, ...] = Field(min_length=1, description="Ids of the rules whose findings it may permit.")

    @model_validator(mode="after")
    def _check_permission(self, info: ValidationInfo) -> Permission:
        if not _is_packaged(info):
            _require_patterns("pattern", self.patterns, "permits")
        return self


def _is_packaged(info: ValidationInfo) -> bool:
    """Tell whether the rule is part of codex-ml, whose tests have tried every pattern: that takes half a second."""
    return bool(info.context and info.context.get("packaged"))


def _require_patterns(label: str, patterns: tuple[str, ...], use: Literal["finds", "permits", "surrounds"]) -> None:
    if len(patterns) > _MOST_PATTERNS:
        raise ValueError(f"has more than {_MOST_PATTERNS} patterns")
    for number, pattern in enumerate(patterns, start=1):
        if len(pattern) > _LONGEST_PATTERN:
            raise ValueError(f"{label} {number} is longer than {_LONGEST_PATTERN} characters")
        try:
            compiled = BytesPattern(pattern)
            require_usable(compiled, use)
        except ValueError as error:
            raise ValueError(f"{label} {number} {error}") from error
