"""Safety policies: a YAML file of rules, read strictly, checked before it is trusted, and named by a digest."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from codex_ml.config.resources import packaged_directory
from codex_ml.config.yaml_bounds import YamlBounds, check_yaml, read_bounded_yaml
from codex_ml.errors import SafetyError
from codex_ml.safety.pattern_cost import is_too_costly
from codex_ml.storage import bytes_digest
from codex_ml.untrusted import UntrustedFileError

RuleKind = Literal["secret", "pii", "phrase", "regex"]
RuleAction = Literal["redact", "drop", "block"]

# A policy of a thousand rules takes a tenth of each; aliases and nesting are judged before anything is built.
POLICY_BOUNDS = YamlBounds(file_bytes=2 << 20, nodes=100_000)
_MOST_RULES, _MOST_PATTERNS, _LONGEST_PATTERN = 1000, 200, 4096
# For trying the patterns of a whole policy on texts that are made to keep them busy.
_MOST_PROBING_SECONDS = 20.0
# Short texts of every common character class: an empty match in one of them is no use.
_EMPTY_MATCH_PROBES = ("", "a", " ", "0", "a b", "@-.", "\n")


class Rule(BaseModel):
    """One thing that must not pass: how to recognise it and what to do with it.

    A pattern that has a group named ``value`` marks only that group; without one the whole match is marked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[
        str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64, description="Name used in every finding.")
    ]
    kind: RuleKind = Field(description="What the rule protects.")
    description: Annotated[str, Field(min_length=1, description="What it finds, for the reader of an audit.")]
    action: RuleAction = Field("redact", description="redact the span, drop the record, or block the operation.")
    patterns: tuple[str, ...] = Field((), description="Regular expressions of Python's `re`.")
    phrases: tuple[str, ...] = Field((), description="Words matched without regard to case, on word borders.")
    prefilter: tuple[str, ...] = Field(
        (), description="Patterns are tried only on text that holds one of these strings."
    )
    checksum: Literal["luhn"] | None = Field(None, description="Check that the digits of a match must pass.")
    allow: tuple[str, ...] = Field((), description="Patterns; a match that one of them fits completely stays.")

    @model_validator(mode="after")
    def _check_rule(self) -> Rule:
        if bool(self.patterns) == bool(self.phrases):
            raise ValueError("needs either patterns or phrases, and not both")
        if (self.kind == "phrase") != bool(self.phrases):
            raise ValueError("kind phrase goes with phrases, the other kinds go with patterns")
        if self.phrases and (self.prefilter or self.checksum or self.allow):
            raise ValueError("prefilter, checksum and allow work on patterns only")
        if any(not phrase.strip() for phrase in self.phrases):
            raise ValueError("has an empty phrase")
        if any(not text for text in self.prefilter):
            raise ValueError("has an empty prefilter, which every text holds")
        if len(self.patterns) + len(self.allow) > _MOST_PATTERNS:
            raise ValueError(f"has more than {_MOST_PATTERNS} patterns")
        for number, pattern in enumerate((*self.patterns, *self.allow), start=1):
            _check_pattern(pattern, f"pattern {number}", allow=number > len(self.patterns))
        return self


class _PolicyFile(BaseModel):
    """The content of a policy file as written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=_MOST_RULES)]


class Policy(BaseModel):
    """The rules in force and the digest under which a run's provenance names them.

    ``packaged`` rules are part of codex-ml, and tests hold them to be quick on any text; others are bounded in time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int
    rules: tuple[Rule, ...]
    digest: str
    packaged: bool = False


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
        (invalid regular expression, one that matches the empty string or can take for ever, empty phrase); the message
        names the rule.
    """
    path = _find_policy(name_or_path, policies_directory)
    packaged = policies_directory is None and path.parent == packaged_directory("configs") / "safety" / "policies"
    try:
        text = read_bounded_yaml(path, POLICY_BOUNDS)
    except (OSError, UnicodeDecodeError, UntrustedFileError) as error:
        raise SafetyError(
            f"safety.policy: cannot read {path}", why=str(error), fix="name a readable YAML file in UTF-8"
        ) from error
    policy = parse_policy(text, path.stem, source=str(path))
    if packaged:
        return policy.model_copy(update={"packaged": True})
    _refuse_costly_patterns(policy, str(path))
    return policy


def parse_policy(text: str, name: str, source: str = "policy") -> Policy:
    """Check the text of a policy file and return the policy; ``source`` leads every error message."""
    try:
        check_yaml(text, POLICY_BOUNDS)
        doubled = _doubled_key(yaml.compose(text, Loader=yaml.SafeLoader))
        content = yaml.safe_load(text)
    except (yaml.YAMLError, UntrustedFileError, RecursionError) as error:
        raise SafetyError(f"{source}: not valid YAML", why=str(error), fix="correct the file") from error
    if doubled is not None:
        raise SafetyError(
            f"{source}:{doubled[1]}: key {doubled[0]!r} stands twice", why="YAML would silently keep the last one only"
        )
    if not isinstance(content, dict):
        raise SafetyError(f"{source}: a policy is a mapping with the keys version and rules")
    try:
        parsed = _PolicyFile.model_validate(content)
    except ValidationError as error:
        raise SafetyError(
            f"{source}: the safety policy cannot be used",
            why="\n       ".join(_explain(problem, content) for problem in error.errors(include_url=False)),
            fix="correct the rules; configs/safety/policies/default.yaml shows every key",
        ) from error
    seen: set[str] = set()
    for rule in parsed.rules:
        if rule.id in seen:
            raise SafetyError(f"{source}: two rules have the id {rule.id!r}", why="a finding must name one rule")
        seen.add(rule.id)
    canonical = json.dumps(parsed.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return Policy(name=name, version=parsed.version, rules=parsed.rules, digest=bytes_digest(canonical.encode("ascii")))


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
            )
        return path
    path = Path(name_or_path)
    if not path.is_file():
        reason = "it is a directory" if path.is_dir() else "there is no such file"
        raise SafetyError(f"safety.policy: cannot read {path}", why=reason, fix="name a YAML file of rules")
    return path


def _refuse_costly_patterns(policy: Policy, source: str) -> None:
    """Refuse patterns that a text can keep busy for ever; a policy may come from somebody else."""
    started = time.process_time()
    for rule in policy.rules:
        for number, pattern in enumerate((*rule.patterns, *rule.allow), start=1):
            if is_too_costly(pattern):
                raise SafetyError(
                    f"{source}: the safety policy cannot be used",
                    why=f"rule {rule.id!r}: pattern {number} can take for ever on a short text: repeats inside "
                    "repeats, or alternatives that begin alike, are tried in every combination",
                    fix="repeat one thing at a time and bound it, as in [a-z]{1,64}, or use a possessive repeat (a++)",
                )
            if time.process_time() - started > _MOST_PROBING_SECONDS:
                raise SafetyError(
                    f"{source}: the safety policy cannot be used",
                    why=f"its patterns together need more than {_MOST_PROBING_SECONDS:g} seconds for some short texts",
                    fix="bound the repeats in its patterns, as in [a-z]{1,64}",
                )


def _check_pattern(pattern: str, label: str, *, allow: bool) -> None:
    if len(pattern) > _LONGEST_PATTERN:
        raise ValueError(f"{label} is longer than {_LONGEST_PATTERN} characters")
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{label} is not a regular expression: {error}") from error
    if allow:
        return
    for probe in _EMPTY_MATCH_PROBES:
        if any(match.start() == match.end() for match in compiled.finditer(probe)):
            raise ValueError(f"{label} matches the empty string")


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
