"""The `safety` section: the filters on everything that is read, written and generated."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from codex_ml.config.schema.base import RelativePath, Rule, Section, Violation


def _bypass_has_reason(safety: SafetySection) -> Violation | None:
    if safety.enabled or (safety.bypass_reason or "").strip():
        return None
    return Violation(
        "bypass_reason",
        "safety.enabled=false needs a written reason, which goes into the provenance and the audit log",
        "set safety.bypass_reason='why the filters are off', or safety.enabled=true",
    )


def _reason_has_bypass(safety: SafetySection) -> Violation | None:
    if not safety.enabled or safety.bypass_reason is None:
        return None
    return Violation(
        "bypass_reason",
        "a reason to bypass the filters is given, but they are on",
        "set safety.bypass_reason=null, or safety.enabled=false",
    )


def _pseudonyms_have_filters(safety: SafetySection) -> Violation | None:
    if safety.enabled or not safety.pseudonyms:
        return None
    return Violation(
        "pseudonyms",
        "values are to be numbered, but the filters that would find them are off",
        "set safety.pseudonyms=false, or safety.enabled=true",
    )


class SafetySection(Section):
    """Whether the filters are on, and by which policy."""

    section_key: ClassVar[str] = "safety"
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("safety-bypass-reason", ("enabled", "bypass_reason"), _bypass_has_reason),
        Rule("safety-idle-reason", ("enabled", "bypass_reason"), _reason_has_bypass),
        Rule("safety-idle-pseudonyms", ("enabled", "pseudonyms"), _pseudonyms_have_filters),
    )

    enabled: bool = Field(default=True, description="Enable the safety filters; false requires safety.bypass_reason.")
    policy: Annotated[str, RelativePath(bare_names=True)] = Field(
        default="default", min_length=1, description="Name of a packaged policy, or path of a policy file."
    )
    pseudonyms: bool = Field(
        default=False,
        description=("Number redacted values: [REDACTED:email:3] is the same address everywhere in the job."),
    )
    bypass_reason: str | None = Field(
        default=None, description="Reason for disabling the filters; recorded with user and time."
    )
