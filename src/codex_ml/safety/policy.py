"""Safety policies: rules and permissions read strictly from YAML, and named by a digest."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from codex_ml.config.paths import packaged_directory
from codex_ml.config.yaml_bounds import YamlBounds, check_yaml, read_bounded_yaml
from codex_ml.errors import SafetyError
from codex_ml.io.atomic import bytes_digest
from codex_ml.io.untrusted import UntrustedFileError
from codex_ml.safety.identifiers import require_check
from codex_ml.safety.patterns import Borders, BytesPattern, fold, require_usable

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
    borders: Borders = Field("none", description="Allowed characters next to a match: see `codex_ml.safety.patterns`.")
    checks: tuple[str, ...] = Field((), description="Tests that a match must pass: see `codex_ml.safety.identifiers`.")
    unless_after: tuple[str, ...] = Field((), description="Patterns; a match right after one of them is kept.")
    unless_before: tuple[str, ...] = Field((), description="Patterns; what is right followed by one of them stays.")
    until: str | None = Field(
        None, description="Pattern of the end: the span extends to it, or to the end of the text."
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

    Only the span itself decides: the text around it permits nothing.
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


# The safe loader, in C where PyYAML was built with it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# A policy of a thousand rules takes a tenth of each; aliases and nesting are judged before anything is built.
POLICY_BOUNDS = YamlBounds(file_bytes=2 << 20, nodes=100_000)
_MOST_RULES = 1000


class _PolicyFile(BaseModel):
    """The content of a policy file as written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    extends: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] | None = None
    without: tuple[str, ...] = ()
    rules: Annotated[tuple[Rule, ...], Field(max_length=_MOST_RULES)] = ()
    allow: Annotated[tuple[Permission, ...], Field(max_length=_MOST_RULES)] = ()


# No pydantic model: that would compile every pattern of its rules again (half a second).
@dataclass(frozen=True)
class Policy:
    """The rules in force, what they permit, and the digest under which a run's provenance names them."""

    name: str
    version: int
    rules: tuple[Rule, ...]
    allow: tuple[Permission, ...]
    digest: str


def load_policy(name_or_path: str | Path, policies_directory: Path | None = None) -> Policy:
    """Read and check a policy.

    Parameters
    ----------
    name_or_path : str or Path
        The name of a packaged policy (``"default"``) or the path of a YAML file.
    policies_directory : Path, optional
        Where named policies lie; default: the packaged ``configs/safety/policies``.

    Raises
    ------
    SafetyError
        If the file is absent or not YAML, a key is unknown or doubled, two rules share an id, or a rule is unusable
        (no regular expression of RE2, one that matches the empty string or nothing in particular, an empty phrase, an
        unknown check); the message names the rule.
    """
    path = _find_policy(name_or_path, policies_directory)
    return _policy_of(_load_file(path), path.stem, str(path), policies_directory)


def parse_policy(text: str, name: str, source: str = "policy", policies_directory: Path | None = None) -> Policy:
    """Check the text of a policy file and return the policy; ``source`` leads every error message."""
    return _policy_of(_parse_file(text, source), name, source, policies_directory)


def _policy_of(parsed: _PolicyFile, name: str, source: str, policies_directory: Path | None) -> Policy:
    """Join a policy with the one it extends."""
    rules, permissions = parsed.rules, parsed.allow
    if parsed.extends is not None:
        path = _find_policy(parsed.extends, policies_directory)
        base = _load_file(path)
        if base.extends is not None:
            raise SafetyError(
                f"{source}: extends: {parsed.extends} extends another policy itself",
                fix="extend that one",
                code="SAFETY_POLICY_NESTED_EXTENDS",
            )
        known = {rule.id for rule in base.rules}
        if unknown := [rule_id for rule_id in parsed.without if rule_id not in known]:
            raise SafetyError(
                f"{source}: without: no rule of {parsed.extends!r} is named {unknown[0]!r}",
                fix=f"codex-ml safety list --policy {parsed.extends} shows the rules",
                code="SAFETY_POLICY_UNKNOWN_RULE",
            )
        rules = (*(rule for rule in base.rules if rule.id not in parsed.without), *rules)
        left_out = set(parsed.without) - {rule.id for rule in parsed.rules}
        permissions = (*_without(base.allow, left_out), *permissions)
    elif parsed.without:
        raise SafetyError(
            f"{source}: without: names rules of a policy that is extended, and extends is not given",
            code="SAFETY_POLICY_WITHOUT_EXTENDS",
        )
    _check_names(rules, permissions, source)
    return Policy(
        name=name,
        version=parsed.version,
        rules=rules,
        allow=permissions,
        digest=_digest(parsed.version, rules, permissions),
    )


def _without(permissions: tuple[Permission, ...], left_out: set[str]) -> list[Permission]:
    """Return the permissions without those rules; one that has no other goes with them."""
    kept = []
    for permission in permissions:
        rules = tuple(rule_id for rule_id in permission.rules if rule_id not in left_out)
        if rules:
            kept.append(permission.model_copy(update={"rules": rules}))
    return kept


def _check_names(rules: tuple[Rule, ...], permissions: tuple[Permission, ...], source: str) -> None:
    if not rules:
        raise SafetyError(
            f"{source}: the policy has no rules", fix="write rules, or extends: default", code="SAFETY_POLICY_EMPTY"
        )
    seen: set[str] = set()
    for rule in rules:
        if rule.id in seen:
            raise SafetyError(
                f"{source}: two rules have the id {rule.id!r}",
                why="a finding must name one rule",
                fix="give one another id; without: [ID] takes a rule out of the policy that is extended",
                code="SAFETY_POLICY_DUPLICATE_ID",
            )
        seen.add(rule.id)
    named: set[str] = set()
    for permission in permissions:
        if permission.id in named:
            raise SafetyError(
                f"{source}: two permissions have the id {permission.id!r}",
                fix="give one another id",
                code="SAFETY_POLICY_DUPLICATE_ID",
            )
        named.add(permission.id)
        if unknown := [rule_id for rule_id in permission.rules if rule_id not in seen]:
            raise SafetyError(
                f"{source}: allow {permission.id!r}: no rule is named {unknown[0]!r}",
                fix="correct the id",
                code="SAFETY_POLICY_UNKNOWN_RULE",
            )


def _digest(version: int, rules: tuple[Rule, ...], permissions: tuple[Permission, ...]) -> str:
    content = {
        "version": version,
        "rules": [rule.model_dump(mode="json") for rule in rules],
        "allow": [permission.model_dump(mode="json") for permission in permissions],
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return bytes_digest(canonical.encode("ascii"))


def _load_file(path: Path) -> _PolicyFile:
    try:
        text = read_bounded_yaml(path, POLICY_BOUNDS)
    except (OSError, UnicodeDecodeError, UntrustedFileError) as error:
        raise SafetyError(
            f"safety.policy: cannot read {path}",
            why=str(error),
            fix="name a readable YAML file in UTF-8",
            code="SAFETY_POLICY_UNREADABLE",
        ) from error
    packaged = path.parent == packaged_directory("configs") / "safety" / "policies"
    return _parse_file(text, str(path), packaged=packaged)


def _parse_file(text: str, source: str, *, packaged: bool = False) -> _PolicyFile:
    try:
        check_yaml(text, POLICY_BOUNDS)
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            doubled = None if node is None else _doubled_key(node)
            content = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, UntrustedFileError, RecursionError) as error:
        raise SafetyError(
            f"{source}: not valid YAML", why=str(error), fix="correct the file", code="SAFETY_POLICY_INVALID_YAML"
        ) from error
    if doubled is not None:
        raise SafetyError(
            f"{source}:{doubled[1]}: duplicate key {doubled[0]!r}",
            why="YAML would silently keep the last one only",
            code="SAFETY_POLICY_DUPLICATE_KEY",
        )
    if not isinstance(content, dict):
        raise SafetyError(
            f"{source}: a policy is a mapping with the keys version and rules", code="SAFETY_POLICY_NOT_A_MAPPING"
        )
    try:
        return _PolicyFile.model_validate(content, context={"packaged": packaged})
    except ValidationError as error:
        raise SafetyError(
            f"{source}: the safety policy cannot be used",
            why="\n       ".join(_explain(problem, content) for problem in error.errors(include_url=False)),
            fix="correct the rules; configs/safety/policies/default.yaml shows every key",
            code="SAFETY_POLICY_INVALID",
        ) from error


def _find_policy(name_or_path: str | Path, policies_directory: Path | None) -> Path:
    if isinstance(name_or_path, str) and re.fullmatch(r"[A-Za-z0-9_-]+", name_or_path):
        directory = policies_directory or packaged_directory("configs") / "safety" / "policies"
        path = directory / f"{name_or_path}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(file.stem for file in directory.glob("*.yaml"))) or "none"
            raise SafetyError(
                f"safety.policy: no policy is named {name_or_path!r}",
                why=f"looked in {directory}; available: {known}",
                fix="use one of these names, or give the path of a YAML file",
                code="SAFETY_POLICY_NOT_FOUND",
            )
        return path
    path = Path(name_or_path)
    if not path.is_file():
        reason = "it is a directory" if path.is_dir() else "there is no such file"
        raise SafetyError(
            f"safety.policy: cannot read {path}",
            why=reason,
            fix="name a YAML file of rules",
            code="SAFETY_POLICY_UNREADABLE",
        )
    return path


def _doubled_key(node: yaml.Node | None) -> tuple[str, int] | None:
    """Return the first key that one mapping holds twice, with its line."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if str(key.value) in seen:
                return str(key.value), key.start_mark.line + 1
            seen.add(str(key.value))
            if (found := _doubled_key(value)) is not None:
                return found
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            if (found := _doubled_key(item)) is not None:
                return found
    return None


def _explain(problem: object, content: dict[str, object]) -> str:
    """Return one validation problem as ``rule <id>: key: message``."""
    assert isinstance(problem, dict)
    location = [str(part) for part in problem["loc"]]
    message = str(problem["msg"]).removeprefix("Value error, ")
    rules = content.get("rules")
    if len(location) >= 2 and location[0] == "rules" and location[1].isdigit() and isinstance(rules, list):
        rule = rules[int(location[1])]
        rule_id = rule.get("id") if isinstance(rule, dict) else None
        label = f"rule {rule_id!r}" if rule_id else f"rule number {int(location[1]) + 1}"
        return ": ".join([label, *([".".join(location[2:])] if location[2:] else []), message])
    return f"{'.'.join(location)}: {message}" if location else message
