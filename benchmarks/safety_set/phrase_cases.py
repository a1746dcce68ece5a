"""Strict cases of phrases: what is one, in which script and form, and what only looks like one.

In a marked text ``⟦`` and ``⟧`` stand around what must be found.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PhraseCase:
    """Phrases, a text, and the spans in characters that must be found in it: these and no others."""

    phrases: tuple[str, ...]
    text: str
    expected_spans: tuple[tuple[int, int], ...]


def case(phrases: str, marked: str) -> PhraseCase:
    """Return a case; phrases are separated by ``|``."""
    text, spans, start = "", [], 0
    for character in marked:
        if character == "⟦":
            start = len(text)
        elif character == "⟧":
            spans.append((start, len(text)))
        else:
            text += character
    return PhraseCase(tuple(phrases.split("|")), text, tuple(spans))


PHRASE_CASES: tuple[PhraseCase, ...] = (
    case("red kite", "a ⟦red kite⟧ above"),
    case("red kite", "⟦Red Kite⟧"),
    case("red kite", "⟦RED KITE⟧!"),
    case("red kite", "⟦red  kite⟧"),
    case("red kite", "⟦red\nkite⟧"),
    case("red kite", "⟦red\t kite⟧"),
    case("red kite", "⟦red\u00a0kite⟧"),
    case("red kite", "⟦red\u2003kite⟧"),
    case("red kite", "⟦red\r\nkite⟧"),
    case("red kite", "red kites"),
    case("red kite", "hundred kite"),
    case("red kite", "redkite"),
    case("red kite", "red-kite"),
    case("red kite", "red, kite"),
    case("red kite", "red_kite"),
    case("red kite", "(⟦red kite⟧)"),
    case("red kite", "“⟦red kite⟧”"),
    case("red kite", "⟦red kite⟧'s nest"),
    case("red kite", "⟦red kite⟧-like"),
    case("red kite", "x⟦red kite⟧".replace("⟦", "").replace("⟧", "")),
    case("red kite", "7red kite"),
    case("red kite", "red kite7"),
    case("red kite", "⟦red kite⟧ ⟦red kite⟧"),
    case("red kite", "⟦red kite⟧,⟦red kite⟧"),
    case("red kite", "🪁⟦red kite⟧🪁"),
    case("red kite", "⟦ｒｅｄ ｋｉｔｅ⟧"),
    case("red kite", "⟦ＲＥＤ\u3000ＫＩＴＥ⟧"),
    case("red kite", "⟦re\u00add ki\u00adte⟧"),
    case("red kite", "⟦r\u200bed kite⟧"),
    case("red kite", "red"),
    case("red kite", ""),
    case("kite", "Kites, kiteflier, ⟦kite⟧."),
    case("kite", "⟦kite⟧…"),
    case("kite", "⟦KITE⟧\n⟦kite⟧"),
    case("kite", "a_kite kite_b _kite_"),
    case("straße", "⟦STRASSE⟧ und ⟦Straße⟧, Straßen"),
    case("strasse", "⟦Straße⟧"),
    case("maße", "Maßen, ⟦Masse⟧"),
    case("café", "⟦café⟧ ⟦cafe\u0301⟧ ⟦CAFÉ⟧ cafe"),
    case("cafe", "café cafe\u0301 ⟦cafe⟧"),
    case("naïve", "⟦nai\u0308ve⟧"),
    case("office", "⟦oﬃce⟧"),
    case("fin", "⟦ﬁn⟧ ﬁnal"),
    case("λόγος", "⟦ΛΌΓΟΣ⟧ και ⟦λόγος⟧"),
    case("οδος", "⟦ΟΔΟΣ⟧"),
    case("секретно", "Совершенно ⟦СЕКРЕТНО⟧, несекретно"),
    case("для служебного пользования", "⟦Для  служебного\nпользования⟧"),
    case("内部资料", "这是⟦内部资料⟧，请勿外传"),
    case("机密", "高度⟦机密⟧文件"),
    case("社外秘", "これは⟦社外秘⟧です"),
    case("ひみつ", "それは⟦ひみつ⟧だ"),
    case("대외비", "이 문서는 ⟦대외비⟧ 입니다"),
    case("대외비", "⟦\u1103\u1162\u110b\u116c\u1107\u1175⟧"),
    case("ลับ", "เอกสาร⟦ลับ⟧มาก"),
    case("سري", "هذا ⟦سري⟧ جدا، سرية"),
    case("गोपनीय", "यह ⟦गोपनीय⟧ है"),
    case("סודי", "מסמך ⟦סודי⟧ ביותר"),
    case("ístanbul", "ístanbulda"),
    case("c++", "⟦c++⟧ and ⟦c++⟧x, ⟦C++⟧."),
    case(".net", "⟦.NET⟧ core"),
    case("at&t", "⟦AT&T⟧ paid"),
    case("o'neil", "⟦O'Neil⟧ and O'Neill"),
    case("red kite|kite tail", "⟦red kite tail⟧"),
    case("red|kite", "⟦red⟧ ⟦kite⟧"),
    case("no no", "⟦no no⟧ no"),
    case("½ price", "⟦1⁄2 price⟧ ⟦½ Price⟧"),
    case("i̇zmir", "⟦İzmir⟧"),
    case("ǆ", "⟦Ǆ⟧ ⟦ǅ⟧"),
    case("x²", "⟦x²⟧ ⟦x2⟧ x22"),
)
