"""The checks a policy may name: what a matched text must be to count as found."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable

from codex_ml.safety import identifiers

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
    """Tell whether capitals stand among small letters as often as chance puts them there, and not at heads of words."""
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
# Letters and joints alone, or a number: words and names of variables stand there far more often than passwords do.
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
