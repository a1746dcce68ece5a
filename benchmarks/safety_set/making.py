"""Short ways to say how a value is made: a prefix and characters drawn at random, alone or after a name."""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Callable

from safety_set.labelled import ValueType

HEX = "0123456789abcdef"
LETTERS_DIGITS = string.ascii_letters + string.digits
URL_SAFE = LETTERS_DIGITS + "-_"
UPPER_DIGITS = string.ascii_uppercase + string.digits

Make = Callable[[random.Random], str]


def drawn(alphabet: str, count: int) -> Make:
    """Return what draws ``count`` characters."""
    return lambda generator: "".join(generator.choices(alphabet, k=count))


def joined(*parts: str | Make) -> Make:
    """Return what puts texts and drawn parts together."""
    return lambda generator: "".join(part if isinstance(part, str) else part(generator) for part in parts)


def alone(name: str, *parts: str | Make, common: bool = False) -> ValueType:
    """Return a type whose value is known by itself."""
    make = joined(*parts)

    def pair(generator: random.Random) -> tuple[str, str]:
        value = make(generator)
        return value, value

    return ValueType(name, pair, common)


def named(name: str, form: str, *parts: str | Make, common: bool = False) -> ValueType:
    """Return a type whose value stands in a form that names it; ``{}`` in the form is the value."""
    make = joined(*parts)

    def pair(generator: random.Random) -> tuple[str, str]:
        value = make(generator)
        return form.replace("{}", value), value

    return ValueType(name, pair, common)


def base64_of(byte_count: int) -> Make:
    """Return what writes random bytes in base64."""
    return lambda generator: base64.b64encode(generator.randbytes(byte_count)).decode()


def uuid(generator: random.Random) -> str:
    """Return a random UUID."""
    text = "".join(generator.choices(HEX, k=32))
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


def password(generator: random.Random) -> str:
    """Return a password of the kind people choose: a word with digits and a sign, or a row of all classes."""
    if generator.random() < 0.5:
        word = generator.choice(("Sommer", "tiger", "Blue", "monkey", "Falke", "winter", "Rocket", "dragon"))
        return f"{word}{generator.randrange(10, 9999)}{generator.choice('!#%+*-_.?')}{generator.choice('aXz9')}"
    return "".join(generator.choices(LETTERS_DIGITS + "!#%+*-_", k=generator.randint(9, 16))) + generator.choice("3xQ")
