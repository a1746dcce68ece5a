"""Numbers with right check digits, made at random: cards, accounts, national numbers, wallets."""

from __future__ import annotations

import hashlib
import random
from importlib import import_module

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def digits(generator: random.Random, count: int) -> str:
    """Return digits drawn at random."""
    return "".join(generator.choices("0123456789", k=count))


def card(generator: random.Random, prefix: str, length: int) -> str:
    """Return a card number with the right last digit (ISO/IEC 7812-1, annex B)."""
    body = prefix + digits(generator, length - len(prefix) - 1)
    total = 0
    for position, digit in enumerate(reversed(body)):
        value = int(digit) * (2 if position % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return body + str(-total % 10)


def account(generator: random.Random, country: str, form: str) -> str:
    """Return an IBAN; ``form`` has ``n`` for a digit and ``a`` for a letter after the check digits (ISO 13616)."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    body = "".join(generator.choice(letters) if c == "a" else generator.choice("0123456789") for c in form)
    number = "".join(str(int(c, 36)) for c in body + country + "00")
    return f"{country}{98 - int(number) % 97:02}{body}"


def standard(generator: random.Random, module: str, form: str) -> str:
    """Return a number of ``form`` (``#`` a digit) that python-stdnum takes; found by trying."""
    # allowed: no-dynamic-import, only modules of stdnum, named in the tables of this benchmark
    is_valid = import_module(f"stdnum.{module}").is_valid
    for _ in range(200_000):
        candidate = "".join(generator.choice("0123456789") if c == "#" else c for c in form)
        if "@" in candidate:
            candidate = candidate.replace("@", generator.choice("ABCDEFGHJKLMNPQRSTVWXYZ"))
        if is_valid(candidate):
            return candidate
    raise ValueError(f"no number of {module} has the form {form}")


def date_digits(generator: random.Random, form: str) -> str:
    """Return a date between 1950 and 1999 as digits; ``form`` is of ``y``, ``m``, ``d`` in pairs."""
    year, month, day = generator.randint(50, 99), generator.randint(1, 12), generator.randint(1, 28)
    return form.replace("yy", f"{year:02}").replace("mm", f"{month:02}").replace("dd", f"{day:02}")


def bitcoin_address(generator: random.Random, version: int) -> str:
    """Return an address of the old form (base58check)."""
    data = bytes([version]) + generator.randbytes(20)
    data += hashlib.sha256(hashlib.sha256(data).digest()).digest()[:4]
    number = int.from_bytes(data, "big")
    text = ""
    while number:
        number, rest = divmod(number, 58)
        text = BASE58[rest] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def segwit_address(generator: random.Random) -> str:
    """Return an address of the new form, version 0 (BIP 173)."""
    data = [0, *(generator.randrange(32) for _ in range(32))]
    # Thirty-two groups of five bits are twenty bytes: none is padding.
    prefix = [3, 3, 0, 2, 3]
    check = _polymod([*prefix, *data, 0, 0, 0, 0, 0, 0]) ^ 1
    return "bc1" + "".join(
        _BECH32[value] for value in [*data, *((check >> 5 * (5 - place)) & 31 for place in range(6))]
    )


def _polymod(values: list[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for place, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            checksum ^= generator if top >> place & 1 else 0
    return checksum
