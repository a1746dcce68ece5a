"""Known values in other formats: wrapped, in a table, with other separators, invisible characters, scripts, escapes."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from safety_set.check_digits import account, card, digits
from safety_set.labelled import Labelled, labelled
from safety_set.making import HEX, LETTERS_DIGITS

_SEED = 20_261_130
_SURROUNDINGS = (
    ("", ""),
    ("Please note ", " and call back."),
    ("Bitte notieren: ", "\nDanke."),
    ("First line.\n", "\nLast line."),
)


@dataclass(frozen=True)
class Base:
    """A kind of value: how its plain form is made, and whether it has only digits and separators."""

    name: str
    make: Callable[[random.Random], str]
    is_number: bool


@dataclass(frozen=True)
class Format:
    """A way to write a value: its class, its name, a change of the value, and text around it.

    ``change`` returns None if the format cannot change the value.
    """

    group: str
    name: str
    change: Callable[[str], str | None] = str
    before: str = ""
    behind: str = ""
    for_numbers: bool = False
    only: tuple[str, ...] = ()


def _mail(generator: random.Random) -> str:
    first = generator.choice(("jane", "omar", "sofia", "kofi", "piotr", "anna"))
    last = generator.choice(("doe", "haddad", "rossi", "mensah", "nowak", "lund"))
    return f"{first}.{last}{generator.randint(1, 99)}@{generator.choice(('klinik-nord.de', 'uni.edu', 'posta.it'))}"


def _social(generator: random.Random) -> str:
    return (
        f"{generator.choice((123, 218, 457, 512, 731)):03}-{generator.randint(10, 99)}-{generator.randint(1001, 9999)}"
    )


def _grouped(text: str) -> str:
    return " ".join(text[place : place + 4] for place in range(0, len(text), 4))


BASES: tuple[Base, ...] = (
    Base("card", lambda g: card(g, g.choice(("4", "53", "2221")), 16), True),
    Base("card_grouped", lambda g: _grouped(card(g, g.choice(("4", "53", "6011")), 16)), True),
    Base("card_amex", lambda g: card(g, "37", 15), True),
    Base("iban", lambda g: account(g, "DE", "n" * 18), False),
    Base("iban_grouped", lambda g: _grouped(account(g, "DE", "n" * 18)), False),
    Base("ssn", _social, True),
    Base("phone", lambda g: f"+49 30 9018{digits(g, 3)}", True),
    Base("phone_national", lambda g: f"312-{g.randint(201, 998)}-01{digits(g, 2)}", True),
    Base("email", _mail, False),
    Base("token", lambda g: "ghp_" + "".join(g.choices(LETTERS_DIGITS, k=36)), False),
    Base("aws_key", lambda g: "AKIA" + "".join(g.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", k=16)), False),
    Base("mac", lambda g: ":".join("".join(g.choices(HEX, k=2)) for _ in range(6)), False),
)


def _each(old: str, new: str) -> Callable[[str], str | None]:
    return lambda value: value.replace(old, new) if old in value else None


def _inserted(mark: str, *places: int) -> Callable[[str], str]:
    def change(value: str) -> str:
        for place in sorted(places, reverse=True):
            value = value[:place] + mark + value[place:]
        return value

    return change


def _digits_of(zero: int) -> Callable[[str], str]:
    return lambda value: "".join(chr(zero + int(c)) if c in "0123456789" else c for c in value)


def _wide(value: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else "\u3000" if c == " " else c for c in value)


def _signs(form: Callable[[str], str]) -> Callable[[str], str | None]:
    """Return a function that writes every character that is neither letter nor digit as an escape."""

    def change(value: str) -> str | None:
        changed = "".join(c if c.isalnum() else form(c) for c in value)
        return changed if changed != value else None

    return change


def _all(form: Callable[[str], str], every: int = 1) -> Callable[[str], str]:
    return lambda value: "".join(form(c) if place % every == 0 else c for place, c in enumerate(value))


def _spaced(mark: str) -> Callable[[str], str]:
    return lambda value: mark.join(re.sub(r"[ -]", "", value))


def _broken(mark: str) -> Callable[[str], str | None]:
    """Return a function that breaks a value in the middle, at a blank if it has one."""

    def change(value: str) -> str | None:
        if " " in value:
            blanks = [match.start() for match in re.finditer(" ", value)]
            place = blanks[len(blanks) // 2]
            return value[:place] + mark + value[place + 1 :]
        place = len(value) // 2
        return value[:place] + mark + value[place:]

    return change


_WRAPPED = (
    *(("bold", "**", "**"), ("bold_underscores", "__", "__"), ("italic", "*", "*"), ("italic_underscores", "_", "_")),
    *(("bold_italic", "***", "***"), ("code", "`", "`"), ("strike", "~~", "~~"), ("highlight", "==", "==")),
    *(("spoiler", "||", "||"), ("html_bold", "<b>", "</b>"), ("html_cell", "<td>", "</td>"), ("guillemets", "«", "»")),
    *(("german_quotes", "„", "“"), ("braces", "{", "}"), ("angles", "<", ">"), ("square", "[", "]")),
    *(("bold_colon", "**Nr.:** **", "**"), ("list_bold", "- **", "** (new)"), ("bold_stop", "**", ".**")),
)
_CELLS = (
    *(("comma", "Ann,", ",Berlin"), ("comma_first", "", ",Ann,Berlin"), ("comma_last", "Ann,Berlin,", "")),
    *(("comma_digits", "10017,", ",20240305"), ("semicolon", "Ann;", ";Berlin"), ("tab", "Ann\t", "\tBerlin")),
    *(
        ("quoted", '"Ann","', '","Berlin"'),
        ("header", "name,value,city\nAnn,", ",Berlin\n"),
        ("pipe", "Ann|", "|Berlin"),
    ),
    *(("single_quoted", "('Ann','", "','Berlin')"), ("empty_cells", ",,", ",,"), ("blank_comma", "Ann, ", ", Berlin")),
)
_BLANKS = {"no_break": "\u00a0", "narrow_no_break": "\u202f", "thin": "\u2009", "figure": "\u2007", "em": "\u2003"}
_DASHES = {
    "hyphen": "\u2010",
    "no_break_hyphen": "\u2011",
    "figure_dash": "\u2012",
    "en_dash": "\u2013",
    "minus": "\u2212",
}
_INVISIBLE = {
    "soft_hyphen": "\u00ad",
    "zero_width_space": "\u200b",
    "non_joiner": "\u200c",
    "joiner": "\u2060",
    "bom": "\ufeff",
}
_ESCAPES: dict[str, Callable[[str], str]] = {
    "percent": lambda c: f"%{ord(c):02X}",
    "percent_small": lambda c: f"%{ord(c):02x}",
    "percent_twice": lambda c: f"%25{ord(c):02X}",
    "html_decimal": lambda c: f"&#{ord(c)};",
    "html_hex": lambda c: f"&#x{ord(c):x};",
    "html_padded": lambda c: f"&#{ord(c):05};",
    "html_twice": lambda c: f"&amp;#{ord(c)};",
    "json": lambda c: f"\\u{ord(c):04x}",
    "json_twice": lambda c: f"\\\\u{ord(c):04x}",
    "backslash_x": lambda c: f"\\x{ord(c):02x}",
    "braces": lambda c: f"\\u{{{ord(c):x}}}",
}

FORMATS: tuple[Format, ...] = (
    *(Format("wrapped", name, before=before, behind=behind) for name, before, behind in _WRAPPED),
    *(Format("cell", name, before=before, behind=behind) for name, before, behind in _CELLS),
    *(Format("blank", name, _each(" ", mark)) for name, mark in _BLANKS.items()),
    *(Format("dash", name, _each("-", mark), only=("ssn", "phone_national")) for name, mark in _DASHES.items()),
    *(Format("invisible", f"{name}_inside", _inserted(mark, 3, 9)) for name, mark in _INVISIBLE.items()),
    *(Format("invisible", f"{name}_first", _inserted(mark, 1)) for name, mark in _INVISIBLE.items()),
    Format("invisible", "everywhere", _all(lambda c: c + "\u200b")),
    Format("script", "wide_digits", _digits_of(0xFF10)),
    Format("script", "wide", _wide),
    Format("script", "arabic_digits", _digits_of(0x660), for_numbers=True),
    Format("script", "devanagari_digits", _digits_of(0x966), for_numbers=True),
    Format("script", "bold_digits", _digits_of(0x1D7CE)),
    *(Format("escape", f"{name}_signs", _signs(form)) for name, form in _ESCAPES.items()),
    *(Format("escape", f"{name}_some", _all(form, 3)) for name, form in _ESCAPES.items()),
    Format("escape", "html_no_break", _each(" ", "&nbsp;")),
    Format("escape", "percent_no_break", _each(" ", "%C2%A0")),
    Format("escape", "json_no_break", _each(" ", "\\u00a0")),
    Format("escape", "html_at", _each("@", "&commat;")),
    Format("escape", "query", _signs(_ESCAPES["percent"]), before="https://h.example/f?id=7&mail=", behind="&x=1"),
    *(Format("spaced", name, _spaced(mark), for_numbers=True) for name, mark in (("blank", " "), ("hyphen", "-"))),
    Format("spaced", "no_break", _spaced("\u00a0"), for_numbers=True),
    Format("spaced", "letters", _spaced(" "), only=("iban", "email")),
    Format("spaced", "signs", lambda v: v.replace("@", " @ ").replace(".", " . "), only=("email",)),
    Format("spaced", "double", lambda v: v.replace(" ", "  ") if " " in v else None),
    Format("wrapped_line", "line", _broken("\n"), before="The number is ", behind=" as agreed."),
    Format("wrapped_line", "indented", _broken("\n    "), before="  note: ", behind="\n  next: 3"),
    Format("wrapped_line", "quoted_mail", _broken("\n> "), before="> I wrote ", behind=" to her\n> yesterday"),
    Format("wrapped_line", "windows", _broken("\r\n"), before="Karte, Konto: ", behind="\r\nEnde"),
    *(
        Format("at", name, lambda v, at=at, dot=dot: v.replace("@", at).replace(".", dot), only=("email",))
        for name, at, dot in (
            ("brackets", "[at]", "[dot]"),
            ("parentheses", " (at) ", "."),
            ("both", "(at)", "(dot)"),
            ("words", " AT ", " DOT "),
            ("german", " [ät] ", " [punkt] "),
        )
    ),
)


def format_positives() -> list[Labelled]:
    """Return each kind of value in each format that fits it, two of each; the context is ``class:format``."""
    generator = random.Random(_SEED)
    texts: dict[str, Labelled] = {}
    turn = 0
    for base, form in _pairs():
        for _ in range(2):
            value = base.make(generator)
            changed = form.change(value)
            if changed is None:
                continue
            around = (
                _SURROUNDINGS[turn % len(_SURROUNDINGS)] if form.group not in {"cell", "wrapped_line"} else ("", "")
            )
            turn += 1
            before, behind = around[0] + form.before, form.behind + around[1]
            item = labelled(before, changed, changed, behind, base.name, f"{form.group}:{form.name}")
            texts.setdefault(item.text, item)
    return list(texts.values())


def _pairs() -> Iterator[tuple[Base, Format]]:
    for base in BASES:
        for form in FORMATS:
            if form.only and base.name not in form.only:
                continue
            if form.for_numbers and not base.is_number:
                continue
            if base.name == "mac" and form.group in {"spaced", "wrapped_line", "blank", "dash"}:
                continue
            if base.name in {"token", "aws_key"} and form.group in {"spaced", "blank"}:
                continue
            if base.name == "email" and form.group == "wrapped_line":
                continue
            yield base, form
