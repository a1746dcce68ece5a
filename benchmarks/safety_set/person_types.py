"""What names a person, an account or a host: addresses, telephone numbers, cards, national numbers, wallets."""

from __future__ import annotations

import random
import string
from collections.abc import Callable

from safety_set.check_digits import account, bitcoin_address, card, date_digits, digits, segwit_address, standard
from safety_set.labelled import ValueType
from safety_set.making import HEX, Make, drawn, joined

_FIRST = ("jane", "omar", "li", "sofia", "kofi", "ines", "piotr", "anna.maria", "m", "j_r")
_LAST = ("doe", "haddad", "wei", "rossi", "mensah", "garcia", "nowak", "lund", "okafor", "smith")
_DOMAINS = ("klinik-nord.de", "mail.example.com", "uni.edu", "firma.co.uk", "posta.it", "hopital.fr", "bank.ch")
_WORDS = (
    "river",
    "stone",
    "candle",
    "forest",
    "metal",
    "pencil",
    "winter",
    "garden",
    "silver",
    "ocean",
    "basket",
    "humble",
)


def _type(name: str, make: Make, form: str = "{}", *, common: bool = False) -> ValueType:
    def pair(generator: random.Random) -> tuple[str, str]:
        value = make(generator)
        return form.replace("{}", value), value

    return ValueType(name, pair, common)


def _mail(generator: random.Random, tag: str = "") -> str:
    return f"{generator.choice(_FIRST)}.{generator.choice(_LAST)}{tag}@{generator.choice(_DOMAINS)}"


def _pattern(form: str) -> Make:
    """Return what fills ``#`` with digits and ``+`` (after the first place) with digits from 2 to 9."""

    def make(generator: random.Random) -> str:
        return "".join(
            generator.choice("0123456789") if c == "#" else generator.choice("23456789") if c == "N" else c
            for c in form
        )

    return make


def _grouped(make: Make, size: int, separator: str) -> Make:
    def grouped(generator: random.Random) -> str:
        text = make(generator)
        return separator.join(text[place : place + size] for place in range(0, len(text), size))

    return grouped


def _card(prefix: str, length: int) -> Make:
    return lambda generator: card(generator, prefix, length)


def _account(country: str, form: str) -> Make:
    return lambda generator: account(generator, country, form)


def _standard(module: str, form: str, reshape: Callable[[str], str] = str) -> Make:
    return lambda generator: reshape(standard(generator, module, form))


def _dated(module: str, before: str, form: str, behind: str, reshape: Callable[[str], str] = str) -> Make:
    return lambda generator: reshape(standard(generator, module, before + date_digits(generator, form) + behind))


def _social_security(generator: random.Random) -> str:
    area = generator.choice([*range(1, 666), *range(667, 900)])
    return f"{area:03}-{generator.randint(1, 99):02}-{generator.randint(1, 9999):04}"


def _address_v4(generator: random.Random) -> str:
    network = generator.choice(("10.20", "192.168", "172.16", "81.169", "203.104"))
    return f"{network}.{generator.randint(1, 254)}.{generator.randint(1, 254)}"


def _address_v6(generator: random.Random) -> str:
    return "2001:db8:" + ":".join("".join(generator.choices(HEX, k=4)) for _ in range(6))


def _singapore(generator: random.Random) -> str:
    body = digits(generator, 7)
    total = sum(int(digit) * weight for digit, weight in zip(body, (2, 7, 6, 5, 4, 3, 2), strict=True))
    return f"S{body}{'JZIHGFEDCBA'[total % 11]}"


COMMON_PERSONAL: tuple[ValueType, ...] = (
    _type("email", _mail, common=True),
    _type("email_tagged", lambda g: _mail(g, "+" + g.choice(("news", "2024", "ward7"))), common=True),
    _type(
        "email_unicode",
        lambda g: f"{g.choice(('jörg', 'zoë', 'łukasz'))}@{g.choice(('bücher.de', 'müller.ch'))}",
        common=True,
    ),
    _type("email_link", _mail, "mailto:{}", common=True),
    _type("email_brackets", _mail, "Doe, J. <{}>", common=True),
    *(
        _type(f"phone_{country}", _pattern(form), common=True)
        for country, form in (
            ("de", "+49 30 9018###"),
            ("de_compact", "+4915112345N##"),
            ("gb", "+44 20 7946 0###"),
            ("fr", "+33 6 12 34 N# ##"),
            ("us", "+1 212 555 01##"),
            ("us_brackets", "(415) N55-01##"),
            ("us_hyphens", "312-N55-01##"),
            ("us_dots", "206.N55.01##"),
            ("us_country", "+1 (617) N55-01##"),
            ("in", "+91 98765 4N###"),
            ("es", "+34 612 34 5# ##"),
            ("it", "+39 06 6982 N###"),
            ("ch", "+41 44 668 18 ##"),
            ("jp", "+81 3 5253 N###"),
            ("br", "+55 11 91234-N###"),
            ("fr_national", "06 12 34 N# ##"),
        )
    ),
    _type("phone_named", _pattern("030 1234N##"), "Phone: {}", common=True),
    _type("phone_named_tel", _pattern("0171 23N####"), "Tel. {}", common=True),
    _type("card_visa", _card("4", 16), common=True),
    _type("card_visa_spaced", _grouped(_card("4", 16), 4, " "), common=True),
    _type("card_mastercard_hyphens", _grouped(_card("53", 16), 4, "-"), common=True),
    _type("card_mastercard_new", _card("2221", 16), common=True),
    _type("card_amex", _card("37", 15), common=True),
    _type("card_discover", _card("6011", 16), common=True),
    _type("card_diners", _card("36", 14), common=True),
    _type("card_jcb", _card("3530", 16), common=True),
    *(
        _type(f"iban_{country.lower()}", _account(country, form), common=True)
        for country, form in (
            ("DE", "n" * 18),
            ("GB", "aaaa" + "n" * 14),
            ("FR", "n" * 23),
            ("NL", "aaaa" + "n" * 10),
            ("BE", "n" * 12),
            ("CH", "n" * 17),
            ("PL", "n" * 24),
            ("NO", "n" * 11),
        )
    ),
    *(
        _type(f"iban_{country.lower()}_spaced", _grouped(_account(country, form), 4, " "), common=True)
        for country, form in (("DE", "n" * 18), ("ES", "n" * 20), ("IT", "a" + "n" * 22), ("AT", "n" * 16))
    ),
    _type("us_social_security", _social_security, common=True),
    _type("us_social_security_named", _social_security, "SSN: {}", common=True),
)

RARE_PERSONAL: tuple[ValueType, ...] = (
    _type("gb_national_insurance", joined("AB ", _pattern("## ## ##"), " C")),
    _type("gb_nhs_named", _standard("gb.nhs", "9#########", lambda n: f"{n[:3]} {n[3:6]} {n[6:]}"), "NHS number: {}"),
    _type("ca_sin_named", _standard("ca.sin", "1########", lambda n: f"{n[:3]} {n[3:6]} {n[6:]}"), "SIN {}"),
    _type("fr_nir", _standard("fr.nir", "1850575116###" + "##")),
    _type("de_tax_named", _standard("de.idnr", "8###########"[:11]), "Steuer-ID: {}"),
    _type("es_dni", _standard("es.dni", "########@")),
    _type("es_nie", _standard("es.nie", "X#######@")),
    _type("it_fiscal_code", _standard("it.codicefiscale", "RSSMRA85T10A56#@")),
    _type("nl_bsn_named", _standard("nl.bsn", "1########"), "BSN: {}"),
    _type(
        "be_national", _dated("be.nn", "", "yymmdd", "#####", lambda n: f"{n[:2]}.{n[2:4]}.{n[4:6]}-{n[6:9]}.{n[9:]}")
    ),
    _type("se_personal", _dated("se.personnummer", "", "yymmdd", "-####")),
    _type("fi_personal", _dated("fi.hetu", "", "ddmmyy", "-###@")),
    _type("no_birth_number", _dated("no.fodselsnummer", "", "ddmmyy", "#####")),
    _type("pl_pesel", _dated("pl.pesel", "", "yymmdd", "#####")),
    _type("br_cpf", _standard("br.cpf", "###########", lambda n: f"{n[:3]}.{n[3:6]}.{n[6:9]}-{n[9:]}")),
    _type("br_cnpj", _standard("br.cnpj", "########0001##", lambda n: f"{n[:2]}.{n[2:5]}.{n[5:8]}/{n[8:12]}-{n[12:]}")),
    _type("in_pan", joined(drawn("ABCDEFGHK", 3), "P", drawn("BCDFGHK", 1), _pattern("NNNN"), drawn("ABCDEFGHK", 1))),
    _type("in_aadhaar", _standard("in_.aadhaar", "2###########", lambda n: f"{n[:4]} {n[4:8]} {n[8:]}")),
    _type("sg_nric", _singapore),
    _type("au_tax_named", _standard("au.tfn", "#########", lambda n: f"{n[:3]} {n[3:6]} {n[6:]}"), "TFN: {}"),
    _type("kr_resident", _dated("kr.rrn", "", "yymmdd", "1######", lambda n: f"{n[:6]}-{n[6:]}")),
    _type("cn_resident", _standard("cn.ric", "11010519900307####")),
    _type("ch_social_security", _standard("ch.ssn", "756##########", lambda n: f"756.{n[3:7]}.{n[7:11]}.{n[11:]}")),
    _type("mx_curp", _standard("mx.curp", "HEGG560427MVZRRL0#")),
    _type("passport_named", joined("C01X", _pattern("####N")), "Passport No. {}"),
    _type("ip_v4_log", _address_v4, "Accepted publickey for robot from {} port 50122"),
    _type("ip_v4_ssh", _address_v4, "ssh admin@{}"),
    _type("ip_v4_host", _address_v4, "host: {}"),
    _type("ip_v6", _address_v6, "listening on {}"),
    _type("mac_colons", lambda g: ":".join("".join(g.choices(HEX, k=2)) for _ in range(6))),
    _type("mac_hyphens", lambda g: "-".join("".join(g.choices(HEX.upper(), k=2)) for _ in range(6))),
    _type("bitcoin_legacy", lambda g: bitcoin_address(g, 0)),
    _type("bitcoin_script", lambda g: bitcoin_address(g, 5)),
    _type("bitcoin_segwit", segwit_address),
    _type("ethereum", joined("0x", drawn(string.hexdigits[:16], 40))),
    _type("seed_phrase_named", lambda g: " ".join(g.choices(_WORDS, k=12)), "seed phrase: {}"),
)
