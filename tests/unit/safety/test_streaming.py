"""Streams of text: what waits, what is masked from its begin on, and what blocks."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from codex_ml.safety.filters import SafetyFilters
from codex_ml.safety.matching import RuleFailedError
from codex_ml.safety.streaming import MOST_HELD_CHARACTERS, StreamFilter, TextPosition

pytestmark = pytest.mark.safety

MakeFilters = Callable[..., SafetyFilters]
KEY = "id: key, kind: secret, patterns: ['<<KEY>>'], until: '<<END>>'"
MAIL = "id: mail, kind: pii, patterns: ['[a-z]+@[a-z]+[.]test']"
ASSIGNED = "id: assigned, kind: secret, patterns: ['password\\s*=\\s*(?P<value>\\w+)']"
PHRASE = "id: words, kind: phrase, phrases: ['blue whale song']"


def test_feed_text_waits_for_its_line_end(filters_of: MakeFilters) -> None:
    """Half an address is not shown; the line is, as soon as it ends."""
    stream = StreamFilter(filters_of(MAIL))
    assert stream.feed("write to ann@ho") == ""
    assert stream.feed("st.test now") == ""
    assert stream.feed("\nand then") == "write to [REDACTED:mail] now\n"
    assert stream.close() == "and then"
    assert stream.close() == ""
    with pytest.raises(ValueError, match="closed"):
        stream.feed("more")


def test_feed_phrase_over_line_ends_comes_out_masked(filters_of: MakeFilters) -> None:
    """As many words wait as the longest phrase has but one, so no part of a phrase was shown before it was known."""
    stream = StreamFilter(filters_of(PHRASE))
    assert stream.feed("one two three\nBlue\n") == ""
    assert stream.feed("\n whale\n") == "one two three\n"
    assert stream.feed("song\nfour\n") == ""
    assert stream.feed("five\n") == "[REDACTED:words]\n"
    assert stream.close() == "four\nfive\n"


def test_feed_words_without_a_letter_do_not_end_the_wait(filters_of: MakeFilters) -> None:
    """Zero-width spaces between the words of a phrase are no words: what stands before them still waits."""
    stream = StreamFilter(filters_of(PHRASE))
    assert stream.feed("blue whale\n") + stream.feed("\u200b \u200b \u200b\n.\n") == ""
    stream = StreamFilter(filters_of(PHRASE))
    assert stream.feed("blue whale\n") + stream.feed("\u200b \u200b \u200b x\n") == ""
    assert stream.feed("y\n") == "blue whale\n"


@pytest.mark.parametrize("block_characters", [0, 3000])
def test_take_findings_far_into_a_stream_names_their_places(filters_of: MakeFilters, block_characters: int) -> None:
    """Also when what was judged before is long forgotten, two in a line among them."""
    stream = StreamFilter(filters_of(MAIL), block_characters=block_characters)
    line = "to ann@host.test or bob@host.test\n"
    for _ in range(1000):
        stream.feed(line)
    stream.close()
    places = [
        place
        for n in range(1000)
        for place in (TextPosition(n * 34 + 3, n + 1, 4), TextPosition(n * 34 + 20, n + 1, 21))
    ]
    assert [found.place for found in stream.take_findings()] == places


def test_feed_long_span_is_masked_from_its_begin_and_memory_stays(filters_of: MakeFilters) -> None:
    """A span of megabytes is one marker with its whole length; what stands behind its end comes out."""
    stream = StreamFilter(filters_of(KEY, MAIL))
    out = [stream.feed("before\n"), stream.feed("a <<KEY>> b\n")]
    assert "".join(out) == "before\n"
    lines = 4_000
    tracemalloc.start()
    for _ in range(lines):
        assert stream.feed("x" * 63 + "\n") == ""
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 500_000
    assert stream.feed("<<END>> after\nann@host.test\n") == "a [REDACTED:key] after\n"
    assert stream.close() == "[REDACTED:mail]\n"
    (key, mail) = stream.take_findings()
    assert key.place == TextPosition(9, 2, 3)
    assert key.length == len("<<KEY>> b\n") + lines * 64 + len("<<END>>")
    assert mail.place == TextPosition(9 + key.length + len(" after\n"), lines + 4, 1)
    assert stream.take_findings() == []


def test_close_long_span_without_end_stays_masked(filters_of: MakeFilters) -> None:
    """What has begun and never ends is masked to the end of the text."""
    for lines in (1, 1000):
        stream = StreamFilter(filters_of(KEY))
        shown = stream.feed("a\n<<KEY>>\n" + "secret secret secret\n" * lines)
        assert shown + stream.close() == "a\n[REDACTED:key]"


def test_feed_key_known_by_its_body_is_masked_from_its_begin_line(default_filters: SafetyFilters) -> None:
    """The first line of a private key is not given out before the next line says whether it is one."""
    word = "PRIVATE"
    body = "MIIEpAIBAAKCAQEA7bq1Z0v2mC8yqXnN3kJ5fG9hT4rW6sLdPzQxVcBuYtRe\n" * 400
    key = f"-----BEGIN RSA {word} KEY-----\n{body}-----END RSA {word} KEY-----\n"
    stream = StreamFilter(default_filters)
    out = "".join([*map(stream.feed, f"here:\n{key}done\n".splitlines(keepends=True)), stream.close()])
    assert out == "here:\n[REDACTED:private_key]\ndone\n"
    assert [(found.place.line, found.length) for found in stream.take_findings()] == [(2, len(key) - 1)]


def test_feed_begin_that_the_policy_permits_holds_nothing_back(filters_of: MakeFilters) -> None:
    """A begin that is no finding begins no span, however long the text after it."""
    stream = StreamFilter(filters_of(KEY.replace("'<<KEY>>'", "'<<(?:SAMPLE|KEY)>>'") + ", allow: ['<<SAMPLE>>']"))
    text = "<<SAMPLE>>\n" + "line of prose\n" * 2000
    assert stream.feed(text) + stream.close() == text


def test_feed_value_on_the_next_line_is_masked(filters_of: MakeFilters) -> None:
    """A line that was given out is still judged with the next, so a value apart from its name does not get through."""
    stream = StreamFilter(filters_of(ASSIGNED))
    assert stream.feed("password =\n") == "password =\n"
    assert stream.feed("hunter2\n") == "[REDACTED:assigned]\n"


def test_feed_finding_that_began_in_a_line_given_out_masks_the_rest(filters_of: MakeFilters) -> None:
    """What came out cannot be taken back; the rest of it is masked, and the finding begins where the masking does."""
    stream = StreamFilter(filters_of("id: two, kind: regex, patterns: ['alpha\\nbeta']"))
    assert stream.feed("alpha\n") == "alpha\n"
    assert stream.feed("beta\n") == "[REDACTED:two]\n"
    (found,) = stream.take_findings()
    assert (found.place, found.length) == (TextPosition(6, 2, 1), 4)


def test_feed_finding_that_reaches_the_end_waits_for_more(filters_of: MakeFilters) -> None:
    """What may go on in the next line is not given out, nor marked, before it is known where it ends."""
    stream = StreamFilter(filters_of("id: code, kind: secret, patterns: ['code:(?P<value>[0-9\\s]{3,})']"))
    assert stream.feed("the code: 12\n34\n") == ""
    assert stream.feed("56\nend\n") == "the code:[REDACTED:code]end\n"


def test_feed_long_line_is_divided_at_white_space_outside_findings(filters_of: MakeFilters) -> None:
    """A line without end comes out in parts, and nothing in it gets through."""
    filters = filters_of(MAIL, "id: spaced, kind: regex, patterns: ['secret of [0-9]+ words']")
    text = "some words and ann@host.test and the secret of 12 words here " * 8000
    stream = StreamFilter(filters)
    first = stream.feed(text[: 2 * MOST_HELD_CHARACTERS])
    assert len(first) > MOST_HELD_CHARACTERS // 2
    assert first + stream.feed(text[2 * MOST_HELD_CHARACTERS :]) + stream.close() == filters.apply(text).text
    assert not stream.blocked


def test_feed_stretch_without_any_white_space_blocks_the_rest(filters_of: MakeFilters) -> None:
    """What can be neither judged nor divided ends the stream: fail closed."""
    stream = StreamFilter(filters_of(MAIL))
    out = stream.feed("a line\n") + stream.feed("x" * 3 * MOST_HELD_CHARACTERS) + stream.feed("\nmore\n")
    assert out + stream.close() == "a line\n[REDACTED:filter_failure]"
    assert stream.blocked
    assert stream.action == "block"


def test_feed_rule_that_fails_blocks_the_rest(filters_of: MakeFilters) -> None:
    """A rule that breaks down on a line leaves its marker there, and nothing comes after it."""
    filters = filters_of(MAIL)

    def find(text: str) -> list:
        if "trap" in text:
            raise RuleFailedError(filters.policy.rules[0])
        return []

    stream = StreamFilter(SafetyFilters(filters.policy, find=find))
    assert stream.feed("fine\n") == "fine\n"
    assert stream.feed("a trap\n") == "[REDACTED:mail]"
    assert stream.feed("fine\n") == ""
    assert stream.close() == ""
    assert stream.action == "block"


def test_feed_search_for_long_spans_that_fails_blocks_the_rest(filters_of: MakeFilters) -> None:
    """Also where only the look for the begin of a span breaks down, nothing is shown."""

    class Broken(SafetyFilters):
        def open_span_start(self, text: str) -> int | None:
            raise RuntimeError(text)

    stream = StreamFilter(Broken(filters_of(MAIL).policy))
    assert stream.feed("fine\n") + stream.feed("fine\n") + stream.close() == "[REDACTED:filter_failure]"


def test_feed_severest_action_is_told(filters_of: MakeFilters) -> None:
    """The text is masked; whoever shows it is told to drop or block."""
    stream = StreamFilter(filters_of(MAIL, "id: never, kind: regex, action: block, patterns: ['never']"))
    assert stream.action == "keep"
    stream.feed("ann@host.test\n")
    assert stream.action == "redact"
    assert stream.feed("never\n") == "[REDACTED:never]\n"
    assert stream.action == "block"
    assert not stream.blocked


@pytest.mark.parametrize("line", ["\n", "\u200b\n", "\u200b \n"])
def test_feed_hundreds_of_thousands_of_lines_without_a_word_are_looked_through_once(
    filters_of: MakeFilters, line: str
) -> None:
    """A phrase waits for words that do not come; looking for them anew from each line would take hours."""
    stream = StreamFilter(filters_of(PHRASE), block_characters=MOST_HELD_CHARACTERS, most_held_characters=1 << 20)
    text = "blue\n" + line * 300_000
    assert stream.feed(text) + stream.feed("whale\n") + stream.close() == text + "whale\n"


def test_feed_bypassed_filters_let_pieces_pass_at_once(filters_of: MakeFilters) -> None:
    """Filters that are off hold nothing back."""
    stream = StreamFilter(SafetyFilters(filters_of(MAIL).policy, enabled=False, bypass_reason="test"))
    assert stream.feed("ann@ho") == "ann@ho"
    assert stream.close() == ""
