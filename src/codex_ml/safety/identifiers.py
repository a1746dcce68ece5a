"""Checks that a match must pass: check digits, national identifiers, entropy."""

from __future__ import annotations

import hashlib
import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from importlib import import_module

from codex_ml.safety import identifiers

# python-stdnum's names of the numbers that have check digits and a form that other numbers rarely have.
_NATIONAL_NUMBERS = (
    *("fr.nir", "es.dni", "es.nie", "it.codicefiscale", "be.nn", "se.personnummer", "fi.hetu", "no.fodselsnummer"),
    *("pl.pesel", "ch.ssn", "br.cpf", "br.cnpj", "in_.pan", "in_.aadhaar", "kr.rrn", "cn.ric", "mx.curp", "ie.pps"),
    *("au.abn", "cl.rut", "ar.cuit", "ca.sin"),
)
# Numbers of the kinds that have no check digits worth the name; their form is checked by the pattern.
_FORMS = re.compile(
    r"[ABCEGHJ-PRSTW-Z][ABCEGHJ-NPRSTW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]"  # national insurance, United Kingdom
    r"|[0-9]{6}-[1-8][0-9]{6}"  # resident registration, Korea: no check digit since 2020
)
# Prefixes never given out (HM Revenue & Customs, NIM39110).
_UNUSED_INSURANCE_PREFIXES = frozenset({"BG", "GB", "KN", "NK", "NT", "TN", "ZZ"})
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


@cache
def standard_check(name: str) -> Callable[[str], bool] | None:
    """Return python-stdnum's check of a kind of number, or None when it knows none of this name."""
    try:
        # allowed: no-dynamic-import no-dynamic-attribute, only modules of stdnum, by a checked name
        check = getattr(import_module(f"stdnum.{name}"), "is_valid", None)
    except ImportError:
        return None
    return None if check is None else lambda text: bool(check(text))


def is_card_number(text: str) -> bool:
    """Tell whether digits pass the check of payment cards (ISO/IEC 7812-1, annex B), and are not all one digit."""
    digits = [int(character) for character in reversed(text) if character in "0123456789"]
    total = sum(digits[::2]) + sum(_DOUBLED[digit] for digit in digits[1::2])
    return total % 10 == 0 and len(set(digits)) > 1


def is_account_number(text: str) -> bool:
    """Tell whether a text has the check digits of an IBAN (ISO 13616); its length is for the pattern to know."""
    from stdnum.iso7064 import mod_97_10

    compact = re.sub(r"[ -]", "", text).upper()
    return bool(mod_97_10.is_valid(compact[4:] + compact[:4]))


def is_telephone_number(text: str) -> bool:
    """Tell whether digits can be a telephone number: seven to fifteen (ITU-T E.164), and as many as the country has."""
    digits = re.sub(r"[^0-9]", "", re.split(r"[xX]|ext", text)[0])
    if not 7 <= len(digits) <= 15 or len(set(digits)) < 2:
        return False
    if _DATE.fullmatch(text.strip()):
        return False
    if not text.startswith(("+", "00")):
        return True
    import phonenumbers

    international = "+" + (digits[2:] if text.startswith("00") else digits)
    # "+44 (0)20": the zero is dialled inside the country only.
    without_zero = re.sub(r"\(0([0-9]*)\)", r"\1", text)
    for candidate in (international, without_zero if text.startswith("+") else international):
        try:
            if phonenumbers.is_possible_number(phonenumbers.parse(candidate)):
                return True
        except phonenumbers.NumberParseException:
            continue
    return False


def is_united_states_tax_number(text: str) -> bool:
    """Tell whether nine digits can be a social security or individual taxpayer number of the United States."""
    digits = re.sub(r"[^0-9]", "", text)
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    if len(digits) != 9 or group == "00" or serial == "0000" or len(set(digits)) < 3:
        return False
    if area.startswith("9"):
        number = int(group)
        return 50 <= number <= 65 or 70 <= number <= 88 or 90 <= number <= 92 or 94 <= number <= 99
    return area not in {"000", "666"} and digits != "123456789"


def is_national_number(text: str) -> bool:
    """Tell whether a text is the number of a person in one of the countries that the packaged policy knows."""
    if _FORMS.fullmatch(text):
        return _is_form_in_use(text)
    if re.fullmatch(r"[STFGM][0-9]{7}[A-Z]", text):
        return _is_singapore_number(text)
    if re.fullmatch(r"[2-6][0-9]{3} [0-9]{5} [0-9]", text):
        return _is_australian_medicare_number(text)
    return any(check is not None and check(text) for check in map(standard_check, _kinds_of(text)))


def _kinds_of(text: str) -> tuple[str, ...]:
    """Return the kinds whose form a text has: a check digit says little where twenty kinds are tried."""
    for form, kinds in _KINDS_BY_FORM:
        if form.fullmatch(text):
            return kinds
    return _NATIONAL_NUMBERS


_KINDS_BY_FORM: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(form), kinds)
    for form, kinds in (
        (r"[0-9]{8}[ -]?[A-Z]", ("es.dni",)),
        (r"[XYZ][ -]?[0-9]{7}[ -]?[A-Z]", ("es.nie",)),
        (r"[A-Za-z]{6}[0-9A-Za-z]{10}", ("it.codicefiscale",)),
        (r"[A-Z]{5}[0-9]{4}[A-Z]", ("in_.pan",)),
        (r"[A-Z]{4}[0-9]{6}[A-Z]{6}[A-Z0-9]{2}", ("mx.curp",)),
        (r"[0-9]{7}[A-W][A-IW]", ("ie.pps",)),
        (r"[0-9]{2}\.[0-9]{2}\.[0-9]{2}-[0-9]{3}\.[0-9]{2}", ("be.nn",)),
        (r"756\.[0-9.]+", ("ch.ssn",)),
        (r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", ("br.cpf",)),
        (r"[0-9]{2}\.[0-9]{3}\.[0-9]{3}/[0-9]{4}-[0-9]{2}", ("br.cnpj",)),
        (r"[0-9]{1,2}\.[0-9]{3}\.[0-9]{3}-[0-9Kk]", ("cl.rut",)),
        (r"[0-9]{2}-[0-9]{8}-[0-9]", ("ar.cuit",)),
        (r"[0-9]{2} [0-9]{3} [0-9]{3} [0-9]{3}", ("au.abn",)),
        (r"[0-9]{3}-[0-9]{3}-[0-9]{3}", ("ca.sin",)),
        (r"[2-9][0-9]{3}[ -][0-9]{4}[ -][0-9]{4}", ("in_.aadhaar",)),
        (r"[0-9]{6} ?[0-9]{5}", ("no.fodselsnummer", "pl.pesel")),
        (r"(?:[0-9]{2})?[0-9]{6}[-+][0-9]{4}", ("se.personnummer",)),
        (r"[0-9]{6}[-+A-Z][0-9]{3}[0-9A-Z]", ("fi.hetu",)),
        (r"[0-9]{17}[0-9Xx]", ("cn.ric",)),
        (r"[12][0-9 AB]{14,}", ("fr.nir",)),
    )
)


def is_document_number(text: str) -> bool:
    """Tell whether what follows the name of a document can be its number: six digits or more, and no date."""
    digits = re.sub(r"[^0-9]", "", text)
    return len(digits) >= 6 and len(set(digits)) > 1 and _DATE.fullmatch(text.strip()) is None


def is_address(text: str) -> bool:
    """Tell whether a text is an IP address that can name one host: no loopback, mask, network or broadcast."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        return True
    first, *_, last = (int(part) for part in text.split("."))
    return first not in {0, 255} and last not in {0, 255}


def is_host_address(text: str) -> bool:
    """Tell whether an IP address can name one host, and is by its form no version and no scope of C++."""
    if not is_address(text):
        return False
    if ":" not in text:
        parts = [int(part) for part in text.split(".")]
        # What begins with a small number is a version or a section more often than a host, but for the private ones.
        return parts[0] == 10 or parts[0] > 20
    groups = [group for group in text.split(":") if group]
    # Pairs of digits are a time of day or the beginning of a fingerprint.
    return len(groups) >= 3 and len(text) >= 8 and any(map(str.isdigit, text)) and max(map(len, groups)) > 2


def is_hardware_address(text: str) -> bool:
    """Tell whether a text is the address of one network interface: not all equal, and no row of small decimals."""
    digits = re.sub(r"[^0-9A-Fa-f]", "", text)
    if len(set(digits.lower())) <= 2:
        return False
    return "." not in text or any(character.isalpha() for character in digits)


def is_wallet_address(text: str) -> bool:
    """Tell whether a text is a Bitcoin address by its check digits (base58check; BIP 173 and BIP 350)."""
    if text.lower().startswith("bc1"):
        return _bech32_polymod(text.lower()) in {1, 0x2BC830A3}
    return _is_base58check(text, 25, {0x00, 0x05})


def is_wallet_key(text: str) -> bool:
    """Tell whether a text is a Bitcoin private key in wallet import format by its check digits."""
    return _is_base58check(text, 37, {0x80, 0xEF}) or _is_base58check(text, 38, {0x80, 0xEF})


def _is_base58check(text: str, byte_count: int, versions: set[int]) -> bool:
    number = 0
    for character in text:
        number = number * 58 + _BASE58.index(character)
    if number >= 1 << (8 * byte_count):
        return False
    data = number.to_bytes(byte_count, "big")
    digest = hashlib.sha256(hashlib.sha256(data[:-4]).digest()).digest()
    return data[0] in versions and digest[:4] == data[-4:]


def _bech32_polymod(address: str) -> int:
    """Return the checksum of an address: 1 for version 0 (BIP 173), another constant for later ones (BIP 350)."""
    prefix, data = address[:2], address[3:]
    values = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + [_BECH32.index(c) for c in data]
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            checksum ^= generator if top >> bit & 1 else 0
    return checksum


def _is_form_in_use(text: str) -> bool:
    if text[0].isdigit():
        return 1 <= int(text[2:4]) <= 12 and 1 <= int(text[4:6]) <= 31
    return text[:2] not in _UNUSED_INSURANCE_PREFIXES


def _is_singapore_number(text: str) -> bool:
    """Check the last letter of an identity card of Singapore: weights and tables of the Immigration Authority."""
    total = sum(int(digit) * weight for digit, weight in zip(text[1:8], (2, 7, 6, 5, 4, 3, 2), strict=True))
    total += {"S": 0, "F": 0, "T": 4, "G": 4, "M": 3}[text[0]]
    if text[0] == "M":
        return "XWUTRQPNJLK"[10 - total % 11] == text[8]
    return ("JZIHGFEDCBA" if text[0] in "ST" else "XWUTRQPNMLK")[total % 11] == text[8]


def _is_australian_medicare_number(text: str) -> bool:
    digits = [int(character) for character in text if character.isdigit()]
    total = sum(digit * weight for digit, weight in zip(digits[:8], (1, 3, 7, 9, 1, 3, 7, 9), strict=True))
    return total % 10 == digits[8]


_DATE = re.compile(
    r"(?:19|20)[0-9]{2}[-/. ](?:0?[1-9]|1[0-2])[-/. ](?:0?[1-9]|[12][0-9]|3[01])"
    r"|(?:0?[1-9]|[12][0-9]|3[01])[-/. ](?:0?[1-9]|[12][0-9]|3[01])[-/. ](?:19|20)?[0-9]{2}"
    r"|(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])|(?:19|20)[0-9]{2} ?- ?(?:19|20)[0-9]{2}"
)


Check = Callable[[str], bool]

# python-stdnum has the check digits of some two hundred kinds of number: "us.ssn", "iban", "fr.nir".
_STDNUM_NAME = re.compile(r"^[a-z][a-z_]{1,15}(?:\.[a-z_]{1,24})?$")


def require_check(name: str) -> None:
    """Raise a `ValueError` when no check has this name."""
    if name in _CHECKS:
        return
    if not (
        name.startswith("stdnum.") and _STDNUM_NAME.match(name[7:]) and identifiers.standard_check(name[7:]) is not None
    ):
        known = ", ".join(sorted(_CHECKS))
        raise ValueError(f"no check is named {name!r}; there are {known}, and stdnum.NAME for python-stdnum's modules")


def check_of(name: str) -> Check:
    """Return a check by its name; the name has passed `require_check`."""
    found = _CHECKS.get(name) or identifiers.standard_check(name.removeprefix("stdnum."))
    assert found is not None
    return found


def is_varied(text: str) -> bool:
    """Tell whether a token is no placeholder such as ``xxxxxxxx``: a few characters over and over."""
    body = re.sub(r"[^A-Za-z0-9]", "", text)
    if len(body) < 8:
        return True
    tail = body[-max(8, len(body) * 2 // 3) :].lower()
    # Sixteen digits are all that a long hexadecimal token can have.
    return len(set(tail)) > max(2, min(7, len(tail) // 8))


def looks_random(text: str) -> bool:
    """Tell whether a value of 16 characters and more could have been drawn at random: a key, and not a name or path."""
    if len(text) < 16 or not is_varied(text) or not text.isprintable():
        return False
    if _is_reference(text) or _UUID.fullmatch(text):
        return False
    has_letter = any(character.isalpha() for character in text)
    has_digit = any(character.isdigit() for character in text)
    return has_letter and (has_digit or _mixes_cases(text)) and _entropy_bits(text) >= 3.0


def _mixes_cases(text: str) -> bool:
    """Tell whether capitals occur among lower-case letters as often as in random text, and not only at word starts."""
    return 0.3 <= sum(character.isupper() for character in text) / len(text) <= 0.7


def looks_like_password(text: str) -> bool:
    """Tell whether a value assigned to a password is one: no reference, call, type, placeholder or plain word."""
    if (
        len(text) < 5
        or len(set(text)) < 4
        or not text.isprintable()
        or _is_reference(text)
        or _PLAIN_VALUE.fullmatch(text)
    ):
        return False
    return not _PLACEHOLDER.fullmatch(text)


def has_all_classes(text: str) -> bool:
    """Tell whether a text has small letters, capitals and digits, as passwords have that a rule for them demands."""
    return any(map(str.islower, text)) and any(map(str.isupper, text)) and any(map(str.isdigit, text))


def has_three_classes(text: str) -> bool:
    """Tell whether a text of eight characters and more has three of: small letters, capitals, digits, signs."""
    classes = (str.islower, str.isupper, str.isdigit, lambda character: not character.isalnum())
    return len(text) >= 8 and sum(any(map(of_class, text)) for of_class in classes) >= 3


def is_own_value(text: str) -> bool:
    """Tell whether a quoted value assigned to a password is one: also a plain word, but no placeholder."""
    if len(text) < 5 or len(set(text)) < 3 or _is_reference(text) or _PLACEHOLDER.fullmatch(text):
        return False
    return text.lower() not in _WORDS_OF_SCHEMAS and " " not in text


def _is_reference(text: str) -> bool:
    """Tell whether a value names where the secret is, as ``config.key`` or ``${KEY}``, and is none itself."""
    if _TEMPLATE.search(text):
        return True
    return bool(_DOTTED_NAME.fullmatch(text)) and not re.search(r"\d{3}", text)


_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TEMPLATE = re.compile(
    r"^\$[({A-Za-z_]|^%[({]|^%[A-Z_]+%?$|^![a-z]+$|^@[\w./-]+$|^&[a-z]+$|\{\{|^<.*>?$|^\[.*\]?$|^[\w.]+\([^)]*\)$|^\*+$"
    r"|\$\{|^[a-z][a-z0-9+]*://\S*/"
)
_DOTTED_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*(?:(?:\.|->|::)[A-Za-z_][A-Za-z_0-9]*)+|[A-Z]+(?:_[A-Z]+)+")
# Letters and joints alone, or a number: words and variable names are far more frequent there than passwords.
_PLAIN_VALUE = re.compile(
    r"[A-Za-z_\-./:]+|[0-9.]{1,5}|[\W_]+"
    r"|[0-9]+-[a-z-]+|[a-z]+-[a-z-]+[0-9]?|[a-z]+(?:19|20)[0-9]{2}"
    r"|(?:[a-z]+_)?(?:password|passwd|passphrase|pass|pwd|pw|value|input|arg|param|field|text|string|var|line)_?[0-9]"
)
# Words and signs alone: a password may hold such a word beside others.
_PLACEHOLDER = re.compile(
    r"(?i)[^0-9]*(?:example|placeholder|your[_\-]|changeme|change[_\-]me|redacted|x{4}|\*{3}|\.{3}|insert|replace|dummy|<|>|"
    r"hidden|secret_here|_here$|\bnull\b|undefined)[^0-9]*[0-9]{0,2}"
)
_WORDS_OF_SCHEMAS = frozenset(
    {"authentication", "authorization", "confirmation", "confirmpassword", "currentpassword", "forgotpassword"}
    | {"newpassword", "notrequired", "oldpassword", "resetpassword", "unauthorized", "unspecified", "userpassword"}
)


def _entropy_bits(text: str) -> float:
    """Return Shannon's entropy of the characters of a text, in bits a character."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())


_CHECKS: dict[str, Check] = {
    "card": identifiers.is_card_number,
    "iban": identifiers.is_account_number,
    "phone": identifiers.is_telephone_number,
    "us_tax": identifiers.is_united_states_tax_number,
    "national_id": identifiers.is_national_number,
    "id_number": identifiers.is_document_number,
    "host": identifiers.is_host_address,
    "address": identifiers.is_address,
    "mac": identifiers.is_hardware_address,
    "wallet": identifiers.is_wallet_address,
    "wallet_key": identifiers.is_wallet_key,
    "varied": is_varied,
    "random": looks_random,
    "password": looks_like_password,
    "all_classes": has_all_classes,
    "three_classes": has_three_classes,
    "own_value": is_own_value,
}
