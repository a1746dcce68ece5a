"""Luhn's checksum."""

from __future__ import annotations

import pytest

from codex_ml.safety.matching import passes_luhn

pytestmark = pytest.mark.safety


@pytest.mark.parametrize("number", ["4111 1111 1111 1111", "79927398713", "0-0 18"])
def test_passes_luhn_valid_numbers_pass(number: str) -> None:
    """The worked example of the patent and the usual test card pass; separators do not count."""
    assert passes_luhn(number)


@pytest.mark.parametrize("number", ["4111 1111 1111 1112", "79927398710", "", "0000", "no digits"])
def test_passes_luhn_other_numbers_fail(number: str) -> None:
    """A wrong check digit fails; so does nothing, and nothing but zeros."""
    assert not passes_luhn(number)


def test_passes_luhn_any_single_wrong_digit_is_noticed() -> None:
    """The checksum finds every change of one digit."""
    number = "4111111111111111"
    changed = [
        number[:index] + digit + number[index + 1 :]
        for index in range(len(number))
        for digit in "0123456789"
        if digit != number[index]
    ]
    assert not any(passes_luhn(other) for other in changed)
