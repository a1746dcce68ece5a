"""Check digits and forms of numbers and addresses."""

from __future__ import annotations

import pytest

from codex_ml.safety import identifiers

pytestmark = pytest.mark.safety


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (identifiers.is_card_number, "4111 1111 1111 1111"),
        (identifiers.is_card_number, "79927398713"),
        (identifiers.is_account_number, "GB82 WEST 1234 5698 7654 32"),
        (identifiers.is_account_number, "BE68-5390-0754-7034"),
        (identifiers.is_telephone_number, "+44 (0)20 7946 0958"),
        (identifiers.is_telephone_number, "0049 30 901820"),
        (identifiers.is_telephone_number, "555-0187 22"),
        (identifiers.is_united_states_tax_number, "219-09-9998"),
        (identifiers.is_united_states_tax_number, "912-71-1234"),
        (identifiers.is_national_number, "X1234567L"),
        (identifiers.is_national_number, "12345678Z"),
        (identifiers.is_national_number, "S1234567D"),
        (identifiers.is_national_number, "AB 12 34 56 C"),
        (identifiers.is_national_number, "756.9217.0769.85"),
        (identifiers.is_document_number, "C01X00T47"),
        (identifiers.is_host_address, "10.20.30.40"),
        (identifiers.is_host_address, "2001:db8:85a3::8a2e:370:7334"),
        (identifiers.is_hardware_address, "3c:5a:b4:1f:0e:9d"),
        (identifiers.is_wallet_address, "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
        (identifiers.is_wallet_address, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
        (identifiers.is_wallet_address, "bc1p5d7rjq7g6rdk2yhzks9smlaqtedr4dekq08ge8ztwac72sfr9rusxg3297"),
    ],
)
def test_check_sound_number_passes(check, text) -> None:
    """Worked examples of the standards and of their issuers."""
    assert check(text)


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (identifiers.is_card_number, "4111 1111 1111 1112"),
        (identifiers.is_card_number, ""),
        (identifiers.is_card_number, "0000 0000"),
        (identifiers.is_account_number, "GB82 WEST 1234 5698 7654 31"),
        (identifiers.is_telephone_number, "123456"),
        (identifiers.is_telephone_number, "+49 1"),
        (identifiers.is_telephone_number, "2024-01-15"),
        (identifiers.is_telephone_number, "1990-1999"),
        (identifiers.is_united_states_tax_number, "666-12-3456"),
        (identifiers.is_united_states_tax_number, "000-12-3456"),
        (identifiers.is_united_states_tax_number, "123-00-4567"),
        (identifiers.is_united_states_tax_number, "912-12-3456"),
        (identifiers.is_national_number, "12345678A"),
        (identifiers.is_national_number, "S1234567A"),
        (identifiers.is_national_number, "GB 12 34 56 C"),
        (identifiers.is_document_number, "12.10.2023"),
        (identifiers.is_host_address, "1.2.3.4"),
        (identifiers.is_host_address, "127.0.0.1"),
        (identifiers.is_host_address, "255.255.255.0"),
        (identifiers.is_host_address, "192.168.1.0"),
        (identifiers.is_host_address, "::1"),
        (identifiers.is_host_address, "12:30:45"),
        (identifiers.is_host_address, "fe::add"),
        (identifiers.is_hardware_address, "00:00:00:00:00:00"),
        (identifiers.is_hardware_address, "1234.5678.9012"),
        (identifiers.is_wallet_address, "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb"),
        (identifiers.is_wallet_address, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5"),
    ],
)
def test_check_other_number_fails(check, text) -> None:
    """A wrong check digit, a date, a mask, a time of day, a version."""
    assert not check(text)


def test_is_card_number_any_single_wrong_digit_is_noticed() -> None:
    """The checksum finds every change of one digit."""
    number = "4111111111111111"
    changed = [
        number[:index] + digit + number[index + 1 :]
        for index in range(len(number))
        for digit in "0123456789"
        if digit != number[index]
    ]
    assert not any(identifiers.is_card_number(other) for other in changed)


def test_is_wallet_key_wrong_character_is_noticed() -> None:
    """The example of the Bitcoin wiki, put together here; another character breaks its check digits."""
    key = "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4" + "dZ1jvhTVqvbTLvyTJ"
    assert identifiers.is_wallet_key(key)
    assert not identifiers.is_wallet_key(key[:-1] + "K")
