"""Stop strings against a search of the whole text, whatever the pieces are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from codex_ml.generation.decoding import StopStrings

LETTERS = st.text("ab\n", max_size=4)
STOPS = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3)


@given(pieces=st.lists(LETTERS, max_size=12), stops=STOPS)
def test_feed_gives_the_text_before_the_first_stop_string_and_never_a_part_of_one(
    pieces: list[str], stops: list[str]
) -> None:
    """After each piece all that is certain was shown, and nothing that a stop string could begin with."""
    found = StopStrings(stops)
    shown, seen = "", ""
    for piece in pieces:
        shown += found.feed(piece)
        seen += piece
        places = [seen.find(stop) for stop in stops if stop in seen]
        if places:
            assert found.found_at == min(places)
            assert shown == seen[: min(places)]
            break
        held = seen[len(shown) :]
        assert seen.startswith(shown)
        assert not held or any(stop.startswith(held) for stop in stops)
        beginnings = (seen[start:] for start in range(len(seen)))
        longest = next((end for end in beginnings if any(stop.startswith(end) for stop in stops)), "")
        assert held == longest
    rest = found.close()
    if found.found_at is None:
        assert shown + rest == seen
    else:
        assert rest == ""


def test_feed_after_the_end_gives_nothing() -> None:
    """What comes behind a stop string is no part of the text."""
    found = StopStrings(["END"])
    assert found.feed("one EN") == "one "
    assert found.feed("D two") == ""
    assert found.feed("three") == ""
    assert found.close() == ""
