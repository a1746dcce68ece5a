"""Policy files: read strictly, refused by rule id, named by a digest."""

from __future__ import annotations

from pathlib import Path

import pytest

from codex_ml.errors import SafetyError
from codex_ml.safety.policy import load_policy, parse_policy

pytestmark = pytest.mark.safety

GOOD = "version: 1\nrules:\n  - {id: one, kind: regex, description: d, patterns: ['a+']}\n"


def _rule(body: str) -> str:
    return f"version: 1\nrules:\n  - {{id: the_rule, kind: regex, description: d, {body}}}\n"


def test_load_policy_default_is_packaged_and_complete() -> None:
    """The policy that is in force by default covers keys, tokens, addresses, numbers and phrases."""
    policy = load_policy("default")
    ids = {rule.id for rule in policy.rules}
    assert {"private_key", "aws_access_key", "github_token", "email", "phone", "payment_card"} <= ids
    assert {rule.kind for rule in policy.rules} == {"secret", "pii", "phrase"}
    assert policy.name == "default"


def test_load_policy_name_and_path_give_the_same(tmp_path: Path) -> None:
    """A user's file is read like a packaged one; the digest is that of the rules, not of their layout."""
    (tmp_path / "mine.yaml").write_text(GOOD)
    (tmp_path / "other.yaml").write_text(
        "# a comment\nrules:\n- kind: regex\n  id: one\n  description: d\n"
        "  action: redact\n  patterns: [a+]\nversion: 1\n"
    )
    named = load_policy("mine", tmp_path)
    assert named == load_policy(tmp_path / "mine.yaml") == load_policy(str(tmp_path / "mine.yaml"))
    assert named.digest == load_policy(tmp_path / "other.yaml").digest
    assert named.digest.startswith("sha256:")
    assert parse_policy(GOOD.replace("a+", "b+"), "mine").digest != named.digest


def test_load_policy_unknown_name_lists_what_there_is(tmp_path: Path) -> None:
    """A misspelt name is answered with the names that exist."""
    (tmp_path / "mine.yaml").write_text(GOOD)
    with pytest.raises(SafetyError, match="no policy is named 'mien'") as caught:
        load_policy("mien", tmp_path)
    assert "available: mine" in caught.value.why


@pytest.mark.parametrize("name", ["absent.yaml", "."])
def test_load_policy_unreadable_path_is_an_error(tmp_path: Path, name: str) -> None:
    """An absent file, or a directory, is named."""
    with pytest.raises(SafetyError, match="cannot read"):
        load_policy(tmp_path / name)


def test_load_policy_file_in_another_encoding_is_an_error(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are refused, not guessed."""
    (tmp_path / "latin.yaml").write_bytes(b"version: 1 # \xe9\n")
    with pytest.raises(SafetyError, match="cannot read"):
        load_policy(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (_rule("patterns: ['a(']"), "rule 'the_rule': pattern 1 is not a regular expression"),
        (_rule("patterns: [x, 'a*']"), "rule 'the_rule': pattern 2 matches the empty string"),
        (_rule(r"patterns: ['\b']"), "rule 'the_rule': pattern 1 matches the empty string"),
        (_rule("patterns: ['(?=a)']"), "rule 'the_rule': pattern 1 matches the empty string"),
        (_rule("patterns: [a], allow: ['(']"), "rule 'the_rule': pattern 2 is not a regular expression"),
        (_rule("patterns: []"), "needs either patterns or phrases"),
        (_rule("patterns: [a], phrases: [b]"), "needs either patterns or phrases"),
        (_rule("phrases: [b]"), "kind phrase goes with phrases"),
        (_rule("patterns: [a], prefilter: ['']"), "has an empty prefilter"),
        (_rule("patterns: [a], colour: red"), "rule 'the_rule': colour: Extra inputs"),
        (_rule("patterns: [a], action: shred"), "rule 'the_rule': action"),
        (_rule("patterns: [a], checksum: crc"), "rule 'the_rule': checksum"),
        (_rule("patterns: [a]").replace("kind: regex", "kind: magic"), "rule 'the_rule': kind"),
        (_rule("phrases: ['  ']").replace("kind: regex", "kind: phrase"), "rule 'the_rule': has an empty phrase"),
        (_rule("phrases: [a], allow: [a]").replace("kind: regex", "kind: phrase"), "work on patterns only"),
        (_rule("patterns: [a]").replace("the_rule", "The Rule"), "rule 'The Rule': id"),
        ("version: 1\nrules: [{kind: regex}]\n", "rule number 1: id"),
        ("version: 2\nrules: []\n", "version"),
        ("version: 1\nrules: []\n", "rules"),
    ],
)
def test_parse_policy_unusable_rule_is_refused_by_its_id(text: str, reason: str) -> None:
    """Every fault says which rule and which key."""
    with pytest.raises(SafetyError) as caught:
        parse_policy(text, "mine", source="mine.yaml")
    assert reason in caught.value.why
    assert caught.value.what.startswith("mine.yaml")


def test_parse_policy_two_rules_of_one_id_are_refused() -> None:
    """A finding must name one rule."""
    line = "  - {id: one, kind: regex, description: d, patterns: [b]}\n"
    with pytest.raises(SafetyError, match="two rules have the id 'one'"):
        parse_policy(GOOD + line, "mine")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD + "version: 1\n", "'version' stands twice"),
        (GOOD.replace("id: one,", "id: one, id: two,"), "'id' stands twice"),
        ("rules: [", "not valid YAML"),
        ("- a\n", "a policy is a mapping"),
        ("", "a policy is a mapping"),
        ("!!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ],
)
def test_parse_policy_yaml_that_means_something_else_is_refused(text: str, reason: str) -> None:
    """Doubled keys, other shapes and tags that build objects do not pass."""
    with pytest.raises(SafetyError, match=reason):
        parse_policy(text, "mine")
