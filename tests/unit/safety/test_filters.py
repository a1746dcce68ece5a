"""The safety filters: merging, phrases, failing closed, and nested values."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from codex_ml.errors import SafetyError
from codex_ml.safety.filters import Finding, SafetyFilters
from codex_ml.safety.matching import RuleFailedError, RuleMatch
from codex_ml.safety.policy import load_policy

pytestmark = pytest.mark.safety

MakeFilters = Callable[..., SafetyFilters]


def test_apply_finding_gives_rule_kind_and_place(filters_of: MakeFilters) -> None:
    """Offsets are those of the text as it was given."""
    filters = filters_of("id: digits, kind: pii, patterns: ['[0-9]{2,}']")
    filtered = filters.apply("a 12 b 345")
    assert filtered.text == "a [REDACTED:digits] b [REDACTED:digits]"
    assert filtered.findings == (Finding("digits", "pii", 2, 2), Finding("digits", "pii", 7, 3))
    assert filtered.action == "redact"


def test_apply_overlapping_findings_are_one(filters_of: MakeFilters) -> None:
    """Two rules on one stretch give one marker over all of it, named by the severest rule."""
    mild, severe = (
        "id: mild, kind: regex, patterns: ['abc']",
        "id: severe, kind: regex, action: drop, patterns: ['cde']",
    )
    for rules in ((mild, severe), (severe, mild)):
        filtered = filters_of(*rules).apply("xabcdex abc")
        assert filtered.text == "x[REDACTED:severe]x [REDACTED:mild]"
        assert filtered.action == "drop"
        assert [(finding.start, finding.length) for finding in filtered.findings] == [(1, 5), (8, 3)]


def test_apply_adjacent_findings_stay_two(filters_of: MakeFilters) -> None:
    """Touching is not overlapping."""
    filters = filters_of("id: a, kind: regex, patterns: ['aa']", "id: b, kind: regex, patterns: ['bb']")
    assert filters.apply("aabb").text == "[REDACTED:a][REDACTED:b]"


@pytest.mark.parametrize(
    ("actions", "expected"),
    [(("redact", "redact"), "redact"), (("drop", "redact"), "drop"), (("block", "drop"), "block")],
)
def test_apply_severest_action_counts(filters_of: MakeFilters, actions: tuple[str, str], expected: str) -> None:
    """One blocking rule blocks, whatever the others say; the text is masked all the same."""
    filters = filters_of(*(f"id: r{n}, kind: regex, action: {a}, patterns: ['x{n}']" for n, a in enumerate(actions)))
    filtered = filters.apply("x0 x1")
    assert filtered.action == expected
    assert filtered.text == "[REDACTED:r0] [REDACTED:r1]"


def test_apply_replacement_that_completes_a_pattern_is_followed(filters_of: MakeFilters) -> None:
    """What only matches after another rule has done its work is found too, so that a second pass has nothing to do."""
    filters = filters_of(
        "id: long, kind: regex, patterns: ['[0-9]{9}']", r"id: pair, kind: regex, patterns: ['key=\S{3,16}(?:\s|$)']"
    )
    filtered = filters.apply("key=123456789x")
    assert filtered.text == "[REDACTED:pair]"
    assert filtered.findings == (Finding("pair", "regex", 0, 14),)
    assert filters.apply(filtered.text).text == filtered.text


def test_apply_marker_in_the_text_hides_nothing(filters_of: MakeFilters) -> None:
    """A marker of a known rule is left alone; anything else dressed as one is not."""
    filters = filters_of("id: word, kind: regex, patterns: ['secret|REDACTED']")
    assert filters.apply("[REDACTED:word]").action == "keep"
    assert "secret" not in filters.apply("[REDACTED:secret]").text
    assert "secret" not in filters.apply("[REDACTED:word secret]").text


def test_apply_checksum_and_allow_look_at_the_span(filters_of: MakeFilters) -> None:
    """Only the matched stretch decides: what stands around it cannot whiten it."""
    filters = filters_of("id: key, kind: secret, patterns: ['K[A-Z]{4,7}'], allow: ['K[A-Z]*TEST']")
    assert filters.redact("KABTEST KABC KABCD, TEST") == "KABTEST KABC [REDACTED:key], TEST"
    assert filters.redact("KABCDE TEST") == "[REDACTED:key] TEST"


def test_apply_named_group_narrows_the_span(filters_of: MakeFilters) -> None:
    """A group named value is what is marked."""
    filters = filters_of("id: password, kind: secret, patterns: ['password=(?P<value>[a-z]+)']")
    assert filters.redact("password=abc;") == "password=[REDACTED:password];"


@pytest.mark.parametrize(
    ("phrase", "text", "expected"),
    [
        ("top secret", "A TOP  Secret\nplan", "A {}\nplan"),
        ("top secret", "top\n\tsecret", "{}"),
        ("top secret", "stop secrets top_secret top secrets", "stop secrets top_secret top secrets"),
        ("secret", "secret, (secret) 'secret's", "{}, ({}) '{}'s"),
        ("straße", "Die STRASSE und die Straße, nicht Straßen", "Die {} und die {}, nicht Straßen"),
        ("i", "İ i", "İ {}"),
        ("cafe", "cafe cafe\u0301", "{} cafe\u0301"),
        ("内部资料", "这是内部资料请勿外传", "这是{}请勿外传"),
        ("c++", "c++ and c++x", "{} and {}x"),
        ("no no", "no no no", "{} no"),
    ],
)
def test_apply_phrase_matches_words_in_any_case(filters_of: MakeFilters, phrase: str, text: str, expected: str) -> None:
    """Case-folded, over any white space, on word borders; scripts without spaces have none to wait for."""
    filters = filters_of(f"id: p, kind: phrase, phrases: ['{phrase}']")
    assert filters.redact(text) == expected.replace("{}", "[REDACTED:p]")


def test_apply_rule_that_fails_blocks_the_whole_text() -> None:
    """When a rule breaks down nothing is known about the text, so that none of it passes."""
    policy = load_policy("default")
    (email,) = (rule for rule in policy.rules if rule.id == "email")

    def fail(text: str) -> list[RuleMatch]:
        raise RuleFailedError(email) from ValueError(text)

    filtered = SafetyFilters(policy, find=fail).apply("harmless secret")
    assert filtered.action == "block"
    assert filtered.text == "[REDACTED:email]"
    assert filtered.findings == (Finding("email", "pii", 0, 15),)


def test_apply_failure_of_anything_else_blocks_the_whole_text() -> None:
    """What is no rule's fault has a name of its own, and the text passes no more than with one."""

    def fail(text: str) -> list[RuleMatch]:
        raise RecursionError(text)

    filtered = SafetyFilters(load_policy("default"), find=fail).apply("harmless secret")
    assert (filtered.action, filtered.text) == ("block", "[REDACTED:filter_failure]")


def test_apply_failure_on_the_second_look_blocks() -> None:
    """The text with its markers is looked at too, and a failure there is one."""
    policy = load_policy("default")
    (email,) = (rule for rule in policy.rules if rule.id == "email")

    def fail_on_markers(text: str) -> list[RuleMatch]:
        if "REDACTED" in text:
            raise ValueError(text)
        return [RuleMatch(email, 0, 1)]

    assert SafetyFilters(policy, find=fail_on_markers).apply("abc").action == "block"


def test_apply_match_of_nothing_at_all_blocks(filters_of: MakeFilters) -> None:
    """An empty match that the check at load could not foresee is a broken rule."""
    filters = filters_of("id: odd, kind: regex, patterns: ['qq(?P<value>x?)!']")
    assert filters.apply("abc").action == "keep"
    assert filters.apply("qq!").action == "block"


def test_apply_rules_that_complete_each_other_for_ever_block() -> None:
    """Where each look finds more, the text is taken as a whole."""
    policy = load_policy("default")
    rule = policy.rules[0]
    looks = iter(range(1, 100))

    def find_more(text: str) -> list[RuleMatch]:
        return [RuleMatch(rule, max(0, len(text) - 60 * next(looks)), len(text))]

    filtered = SafetyFilters(policy, find=find_more).apply("x" * 40_000)
    assert filtered.action == "block"
    assert next(looks) < 20


def test_apply_pseudonyms_give_one_value_one_number(filters_of: MakeFilters) -> None:
    """The same value keeps its number in later texts, another has another, and a marker with a number is known."""
    filters = filters_of(
        "id: mail, kind: pii, patterns: ['[a-z]+@[a-z]+']", "id: n, kind: pii, patterns: ['[0-9]{4}']", pseudonyms=True
    )
    assert filters.redact("a@b c@d a@b 1234") == "[REDACTED:mail:1] [REDACTED:mail:2] [REDACTED:mail:1] [REDACTED:n:1]"
    assert filters.redact("c@d") == "[REDACTED:mail:2]"
    again = filters.apply("[REDACTED:mail:2] and [REDACTED:n:1234]")
    assert (again.action, again.text) == ("keep", "[REDACTED:mail:2] and [REDACTED:n:1234]")


def test_apply_pseudonyms_differ_between_filters_in_nothing_but_the_order(filters_of: MakeFilters) -> None:
    """A number counts the values met before, so that nothing of the value is in it."""
    rule = "id: mail, kind: pii, patterns: ['[a-z]+@[a-z]+']"
    assert filters_of(rule, pseudonyms=True).redact("c@d") == filters_of(rule, pseudonyms=True).redact("e@f")


def test_filters_switched_off_need_a_reason_and_keep_everything() -> None:
    """Off is possible, visible, and explained."""
    policy = load_policy("default")
    for reason in (None, "", "  "):
        with pytest.raises(SafetyError, match=r"safety\.bypass_reason"):
            SafetyFilters(policy, enabled=False, bypass_reason=reason)
    filters = SafetyFilters(policy, enabled=False, bypass_reason="synthetic data")
    assert filters.bypassed
    assert filters.bypass_reason == "synthetic data"
    assert filters.apply("jane@example.com").action == "keep"
    assert filters.redact("jane@example.com") == "jane@example.com"
    assert not SafetyFilters(policy).bypassed


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("password", "Fr0stbite9x", "password"),
        ("pwd", "hunter22x", "password"),
        ("client_secret", "aB3dE6gH9jK2mN5pQ8s1", "named_secret"),
        ("phone", "030 901820", "phone_labelled"),
        ("patient_id", "4471120", "named_id"),
        ("mrn", 4471120, "named_id"),
        ("mrn", 447112, "named_id"),
        ("password", 'Hunter2xyz!"q7Zk9', "named_secret"),
        ("password", "ab\\cdE12!x9", "password"),
    ],
)
def test_redact_value_short_value_is_judged_by_its_key(
    default_filters: SafetyFilters, key: str, value: object, rule: str
) -> None:
    """Bare it is a word or a number; under its key, in a list there too, it is what the key says."""
    marked = f"[REDACTED:{rule}]"
    assert default_filters.redact_value({"text": value}) == {"text": value}
    assert default_filters.redact_value({"a": {key: value}}) == {"a": {key: marked}}
    assert default_filters.redact_value({key: [value, {"note": value}]}) == {key: [marked, {"note": value}]}
    assert default_filters.redact_value({key: marked}) == {key: marked}


def test_apply_by_its_key_places_the_finding_in_the_text(default_filters: SafetyFilters) -> None:
    """Offsets are those of the text as it was given, and a key of no meaning changes nothing."""
    filtered = default_filters.apply("Fr0stbite9x", "password")
    assert [(f.rule_id, f.start, f.length) for f in filtered.findings] == [("password", 0, 11)]
    assert default_filters.apply("Fr0stbite9x", "comment").action == "keep"
    # A text with names of its own is what it is without the key.
    written = '{"password":"aB3#fG7!kL9@"}'
    assert default_filters.apply(written, "content") == default_filters.apply(written)
    # An address in the key is the key's own finding.
    assert default_filters.apply("hello", "jane@example.com").action == "keep"


@pytest.mark.parametrize(
    "value",
    [
        {"password": "true", "token": "hello", "secret": "none", "pass": "yes", "pwd": "/home/jo", "phone": "unknown"},
        {"password_policy": "at least twelve characters", "tokens": "128", "token_count": 4096, "pad_token": "<|end|>"},
        {"tokenizer_digest": "sha256:" + "ab12" * 16, "group_key": "prompt", "key": "value", "secretary": "Jo Doe"},
        {"patient_count": 4471120, "phone_brand": "Nokia 3310", "id": "4471120", "card": "visa", "iban_count": 12},
    ],
)
def test_redact_value_keys_that_only_sound_like_it_take_nothing(
    default_filters: SafetyFilters, value: dict[str, object]
) -> None:
    """Settings, counts and words under such keys stay."""
    assert default_filters.redact_value(value) == value


@pytest.mark.parametrize(
    "key", ["ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4xY7zA0bC3dE6", "+49 170 1234567", "jane@example.com"]
)
def test_redact_value_key_that_was_redacted_says_nothing_of_its_value(default_filters: SafetyFilters, key: str) -> None:
    """The marker of a token names a rule; read as a name it would make a second look find more than the first."""
    once = default_filters.redact_value({key: ["abcdefgh12345678", 12345678, "12345678"]})
    assert str(once).startswith("{'[REDACTED:")
    assert default_filters.redact_value(once) == once


def test_redact_value_reaches_every_string_key_and_number(default_filters: SafetyFilters) -> None:
    """Nested values, keys and long numbers are redacted; what is equal afterwards is kept apart."""
    value = {
        "a@example.com": [{"to": ("x b@example.com", 7, None, True, 1.5)}],
        "c@example.com": {"card": 4111111111111111, "count": 1234567, "float": 4111111111111111.0, "loss": 2500000.0},
    }
    assert default_filters.redact_value(value) == {
        "[REDACTED:email]": [{"to": ["x [REDACTED:email]", 7, None, True, 1.5]}],
        "[REDACTED:email]#2": {
            "card": "[REDACTED:payment_card]",
            "count": 1234567,
            "float": "[REDACTED:payment_card]",
            "loss": 2500000.0,
        },
    }


def test_redact_what_a_log_repeats_is_searched_once_and_no_finding_is_remembered() -> None:
    """Short clean texts by text and key; what holds a finding, and what is long, is searched every time."""
    looked: list[str] = []
    (rule,) = (rule for rule in load_policy("default").rules if rule.id == "email")

    def find(text: str) -> list[RuleMatch]:
        looked.append(text)
        start = text.find("a@b.example")
        return [RuleMatch(rule, start, start + 11)] if start >= 0 else []

    filters = SafetyFilters(load_policy("default"), find=find)
    for _ in range(2):
        assert filters.redact("loss") == "loss"
    assert looked == ["loss"]
    assert filters.redact("loss", "name") == "loss"
    assert len(looked) == 3  # by itself and under its key
    looked.clear()
    for _ in range(2):
        assert "a@b.example" not in filters.redact("to a@b.example")
        assert filters.redact("x" * 65) == "x" * 65
    assert looked.count("to a@b.example") == looked.count("x" * 65) == 2
