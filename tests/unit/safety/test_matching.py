"""All rules on one text: the sets never hide a match, near misses stay bounded, permissions look at the span."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.safety import matching
from codex_ml.safety.filters import SafetyFilters
from codex_ml.safety.matching import PolicyMatcher, RuleFailedError
from codex_ml.safety.policy import Permission, Rule, load_policy
from tiers import examples

pytestmark = pytest.mark.safety


def _rule(**keys: object) -> Rule:
    return Rule.model_validate({"id": "r", "kind": "regex", "description": "d", **keys})


def _spans(matcher: PolicyMatcher, text: str) -> list[str]:
    return [text[match.start : match.end] for match in matcher.find(text)]


@pytest.fixture(scope="module")
def one_by_one() -> Callable[[str], set[tuple[str, int, int]]]:
    """Return what finds the matches of the packaged policy with each rule in a matcher of its own."""
    policy = load_policy("default")
    matchers = [PolicyMatcher([rule], policy.allow) for rule in policy.rules]

    def find(text: str) -> set[tuple[str, int, int]]:
        return {(m.rule.id, m.start, m.end) for matcher in matchers for m in matcher.find(text)}

    return find


@pytest.fixture(scope="module")
def all_at_once() -> PolicyMatcher:
    """Return the matcher of the packaged policy."""
    policy = load_policy("default")
    return PolicyMatcher(policy.rules, policy.allow)


_WORDS = st.sampled_from(
    [
        *(
            "password: " + "Tr0ub4dor&3",
            "jane@example.com",
            "+49 30 901820",
            "4111 1111 1111 1111",
            "sk-" + "a1B2" * 12,
        ),
        *("é", "中", "hello", "\n", " ", "\\n", "10.20.30.40", "=", "219-09-9998", "\ud800"),
        "-----BEGIN PRIVATE" + " KEY-----\nMIIEabcdefgh",
    ]
)


@examples(40)
@given(words=st.lists(_WORDS, max_size=8))
def test_find_all_rules_together_find_what_each_finds_alone(one_by_one, all_at_once, words) -> None:
    """One pass of the sets hides nothing that a rule of its own would find, in any mixture of texts."""
    text = " ".join(words)
    together = {(match.rule.id, match.start, match.end) for match in all_at_once.find(text)}
    assert together == one_by_one(text)


def test_find_offsets_are_characters_where_bytes_are_more() -> None:
    """Letters of two to four bytes, and a lone surrogate, which UTF-8 does not know."""
    matcher = PolicyMatcher([_rule(patterns=["key[0-9]+"])])
    text = "é中🙂\ud800 key12 é key3"
    assert _spans(matcher, text) == ["key12", "key3"]


def test_find_until_goes_on_to_the_end_or_to_its_pattern() -> None:
    """A span with a begin goes on to its end, and where none comes, to the end of the text."""
    matcher = PolicyMatcher([_rule(patterns=["<<[a-z]"], until=">>")])
    assert _spans(matcher, "a <<b c>> d <<e >> f <<g h") == ["<<b c>>", "<<e >>", "<<g h"]
    assert matcher.find_open("a <<b c>> d <<e") == 12
    assert matcher.find_open("a <<b c>> d") is None


def test_find_unless_after_and_before_look_right_beside() -> None:
    """What stands a word away decides nothing."""
    matcher = PolicyMatcher([_rule(patterns=["[0-9]{4}"], unless_after=["no "], unless_before=["%"])])
    assert _spans(matcher, "1234 no 2345 no, 3456 4567% 5678 %") == ["1234", "3456", "5678"]


def test_find_refused_match_may_hide_one_that_begins_inside_it() -> None:
    """Sixteen digits that fail the check do not swallow the card number that begins among them."""
    rule = _rule(patterns=["[0-9]{4}(?: [0-9]{4}){3}"], checks=["card"], borders="number")
    assert _spans(PolicyMatcher([rule]), "9998 4111 1111 1111 1111") == ["4111 1111 1111 1111"]


def test_find_permission_lets_the_span_pass_and_nothing_in_it() -> None:
    """What fits a permission stays as a whole; what only contains it does not."""
    permission = Permission(id="p", description="d", patterns=("a@b",), rules=("r",))
    matcher = PolicyMatcher([_rule(patterns=["[a-z]+@[a-z]+"])], [permission])
    assert _spans(matcher, "a@b aa@b a@bb") == ["aa@b", "a@bb"]


def test_find_near_misses_cost_a_bounded_number_of_checks() -> None:
    """After twenty thousand refusals what has the form is marked: a text cannot buy hours."""
    matcher = PolicyMatcher([_rule(patterns=["[0-9]{4}"], checks=["card"], borders="word")])
    text = "1234 " * 60_000
    started = time.process_time()
    assert len(matcher.find(text)) > 0
    assert time.process_time() - started < 120.0
    assert matching._MOST_REFUSED < 60_000


def test_find_rule_that_fails_is_named() -> None:
    """An empty match is a broken rule, and says which."""
    with pytest.raises(RuleFailedError) as caught:
        PolicyMatcher([_rule(patterns=["qq(?P<value>x?)!"])]).find("qq!")
    assert caught.value.rule.id == "r"


@pytest.mark.parametrize("value", ["aaaa", "bcde"])
def test_find_matches_that_reach_far_beyond_the_next_cost_no_square(value) -> None:
    """A pattern that looks far ahead for each of its matches is given up, and the rest is marked."""
    rule = _rule(patterns=["'(?P<value>[a-z]{4})'[^!]*!"], checks=["varied"])
    text = f"'{value}'" * 60_000 + "!"
    started = time.process_time()
    matches = PolicyMatcher([rule]).find(text)
    assert time.process_time() - started < 120.0
    assert matches[-1].end == len(text) or len(matches) == 60_000


def test_find_near_misses_of_an_ordinary_long_text_stay() -> None:
    """Twenty thousand numbers that are none are a table, and stay one."""
    rule = _rule(patterns=["[0-9]{8}[A-Z]"], checks=["stdnum.es.dni"], borders="word")
    assert PolicyMatcher([rule]).find("12345678A\n" * 20_100) == []


def test_find_long_text_of_numbers_finds_a_card_as_in_a_short_one(default_filters: SafetyFilters) -> None:
    """A long text of numbers is matched without the combined pattern set; the findings are the same."""
    short = "7 12 345 6 card 4556737586899855 8 90 1\n"
    numbers = "7 12 345 6 8 90 1 2345\n" * 2000
    found = [(item.rule_id, item.start, item.length) for item in default_filters.apply(short).findings]
    assert found
    long = default_filters.apply(numbers + short).findings
    assert [(item.rule_id, item.start - len(numbers), item.length) for item in long] == found
