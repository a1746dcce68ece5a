"""Policy files: read strictly, refused by rule id, named by a digest."""

from __future__ import annotations

from pathlib import Path

import pytest

from codex_ml.config.paths import packaged_directory
from codex_ml.errors import SafetyError
from codex_ml.safety.policy import load_policy, parse_policy
from error_checks import has_code

pytestmark = pytest.mark.safety

GOOD = "version: 1\nrules:\n  - {id: one, kind: regex, description: d, patterns: ['ab+']}\n"


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
        "  action: redact\n  patterns: [ab+]\nversion: 1\n"
    )
    named = load_policy("mine", tmp_path)
    assert named == load_policy(tmp_path / "mine.yaml") == load_policy(str(tmp_path / "mine.yaml"))
    assert named.digest == load_policy(tmp_path / "other.yaml").digest
    assert named.digest.startswith("sha256:")
    assert parse_policy(GOOD.replace("ab+", "bc+"), "mine").digest != named.digest


def test_load_policy_unknown_name_lists_what_there_is(tmp_path: Path) -> None:
    """A misspelt name is answered with the names that exist."""
    (tmp_path / "mine.yaml").write_text(GOOD)
    with pytest.raises(SafetyError, match="no policy is named 'mien'") as caught:
        load_policy("mien", tmp_path)
    assert "available: mine" in caught.value.why


@pytest.mark.parametrize("name", ["absent.yaml", "."])
def test_load_policy_unreadable_path_is_an_error(tmp_path: Path, name: str) -> None:
    """An absent file, or a directory, is named."""
    with pytest.raises(SafetyError, check=lambda error: has_code(error, "SAFETY_POLICY_UNREADABLE")):
        load_policy(tmp_path / name)


def test_load_policy_file_in_another_encoding_is_an_error(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are refused, not guessed."""
    (tmp_path / "latin.yaml").write_bytes(b"version: 1 # \xe9\n")
    with pytest.raises(SafetyError, check=lambda error: has_code(error, "SAFETY_POLICY_UNREADABLE")):
        load_policy(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (_rule("patterns: ['a(']"), "rule 'the_rule': pattern 1 is not a regular expression"),
        (_rule("patterns: [xyz, 'a*']"), "rule 'the_rule': pattern 2 matches the empty string"),
        (_rule(r"patterns: ['\b']"), "rule 'the_rule': pattern 1 matches the empty string"),
        (_rule("patterns: ['(?=a)']"), "look-around is not there"),
        (_rule("patterns: [abc], allow: ['(']"), "rule 'the_rule': allow 1 is not a regular expression"),
        (_rule("patterns: []"), "needs either patterns or phrases"),
        (_rule("patterns: [abc], phrases: [b]"), "needs either patterns or phrases"),
        (_rule("phrases: [b]"), "kind phrase goes with phrases"),
        (_rule("patterns: [abc], allow: ['(?s).*']"), "rule 'the_rule': allow 1 fits any text"),
        (_rule("patterns: [abc], checks: [crc]"), "no check is named 'crc'"),
        (_rule("patterns: [abc], checks: [stdnum.no_such]"), "no check is named 'stdnum.no_such'"),
        (_rule("patterns: [abc], checks: ['stdnum.../os']"), "no check is named"),
        (_rule("patterns: [abc], borders: wide"), "rule 'the_rule': borders"),
        (_rule("patterns: [abc], until: '('"), "until 1 is not a regular expression"),
        (_rule("patterns: ['.']"), "matches nothing in particular"),
        (_rule(r"patterns: ['\w+']"), "matches nothing in particular"),
        (_rule("patterns: ['[a-z]{2,}']"), "matches nothing in particular"),
        (_rule("patterns: ['[0-9]']"), "matches nothing in particular"),
        (_rule("patterns: [abc], colour: red"), "rule 'the_rule': colour: Extra inputs"),
        (_rule("patterns: [abc], action: shred"), "rule 'the_rule': action"),
        (_rule("patterns: [abc]").replace("kind: regex", "kind: magic"), "rule 'the_rule': kind"),
        (_rule("phrases: ['  ']").replace("kind: regex", "kind: phrase"), "rule 'the_rule': has an empty phrase"),
        (_rule("phrases: [a], allow: [a]").replace("kind: regex", "kind: phrase"), "work on patterns only"),
        (_rule("patterns: [abc]").replace("the_rule", "The Rule"), "rule 'The Rule': id"),
        ("version: 1\nrules: [{kind: regex}]\n", "rule number 1: id"),
        ("version: 2\nrules: []\n", "version"),
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
    line = "  - {id: one, kind: regex, description: d, patterns: [bcd]}\n"
    with pytest.raises(SafetyError, match="two rules have the id 'one'"):
        parse_policy(GOOD + line, "mine")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD + "version: 1\n", "duplicate key 'version'"),
        (GOOD.replace("id: one,", "id: one, id: two,"), "duplicate key 'id'"),
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


def test_parse_policy_without_rules_is_refused() -> None:
    """A policy that forbids nothing is a mistake."""
    with pytest.raises(SafetyError, check=lambda error: has_code(error, "SAFETY_POLICY_EMPTY")):
        parse_policy("version: 1\nrules: []\n", "mine")


def test_parse_policy_extends_adds_and_takes_out(tmp_path: Path) -> None:
    """One's own policy is the packaged one, less what is named, and more."""
    (tmp_path / "base.yaml").write_text(
        GOOD + "  - {id: two, kind: regex, description: d, patterns: [xyz]}\n"
        "allow:\n  - {id: ok, description: d, patterns: [xyz], rules: [two]}\n"
    )
    rule = "  - {id: three, kind: phrase, description: d, phrases: [q]}\n"
    text = f"version: 1\nextends: base\nwithout: [two]\nrules:\n{rule}"
    policy = parse_policy(text, "mine", policies_directory=tmp_path)
    assert [rule.id for rule in policy.rules] == ["one", "three"]
    assert policy.allow == ()
    whole = parse_policy("version: 1\nextends: base\n", "mine", policies_directory=tmp_path)
    assert [rule.id for rule in whole.rules] == ["one", "two"]
    assert whole.digest == load_policy("base", tmp_path).digest != policy.digest


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("version: 1\nextends: base\nwithout: [oen]\n", "no rule of 'base' is named 'oen'"),
        ("version: 1\nextends: absent\n", "no policy is named 'absent'"),
        ("version: 1\nwithout: [one]\n" + GOOD.removeprefix("version: 1\n"), "extends is not given"),
        ("version: 1\nextends: child\n", "extends another policy itself"),
        ("version: 1\nextends: base\n" + GOOD.removeprefix("version: 1\n"), "two rules have the id 'one'"),
        (GOOD + "allow: [{id: a, description: d, patterns: [xyz], rules: [oen]}]\n", "no rule is named 'oen'"),
    ],
)
def test_parse_policy_extends_what_does_not_fit_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    """A name that is not there, a chain of policies, an id twice."""
    (tmp_path / "base.yaml").write_text(GOOD)
    (tmp_path / "child.yaml").write_text("version: 1\nextends: base\n")
    with pytest.raises(SafetyError, match=reason):
        parse_policy(text, "mine", policies_directory=tmp_path)


def test_load_policy_packaged_rules_pass_every_check_of_a_policy_of_ones_own() -> None:
    """The packaged file is not checked at each start, so that a test does it."""
    file = packaged_directory("configs") / "safety" / "policies" / "default.yaml"
    assert parse_policy(file.read_text(encoding="utf-8"), "default").digest == load_policy("default").digest
