"""Negatives that look like secrets or numbers of persons: identifiers, digests, versions, dates, near misses."""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Callable

from safety_set.check_digits import account, card, digits
from safety_set.making import HEX, LETTERS_DIGITS, uuid

Make = Callable[[random.Random], str]


def _hex(count: int) -> Make:
    return lambda generator: "".join(generator.choices(HEX, k=count))


def _base64(count: int) -> Make:
    return lambda generator: base64.b64encode(generator.randbytes(count)).decode()


def _wrong_card(generator: random.Random) -> str:
    number = card(generator, generator.choice(("4", "51", "6011")), 16)
    return number[:-1] + str((int(number[-1]) + generator.randint(1, 9)) % 10)


def _wrong_account(generator: random.Random) -> str:
    number = account(generator, "DE", "n" * 18)
    return f"DE{(int(number[2:4]) + generator.randint(1, 9)) % 97 + 2:02}{number[4:]}"


def _version(generator: random.Random) -> str:
    return ".".join(str(generator.randint(0, 19)) for _ in range(generator.choice((3, 4))))


def _date(generator: random.Random) -> str:
    year, month, day = generator.randint(1980, 2029), generator.randint(1, 12), generator.randint(1, 28)
    forms = (
        f"{year}-{month:02}-{day:02}",
        f"{day:02}.{month:02}.{year}",
        f"{month}/{day}/{year}",
        f"{year}{month:02}{day:02}",
    )
    return generator.choice(forms)


def _time(generator: random.Random) -> str:
    return f"{generator.randint(0, 23):02}:{generator.randint(0, 59):02}:{generator.randint(0, 59):02}"


def _amount(generator: random.Random) -> str:
    return f"{generator.randint(1, 999)},{generator.randint(0, 999):03},{generator.randint(0, 999):03}"


def _book(generator: random.Random) -> str:
    body = "978" + digits(generator, 9)
    check = -sum(int(d) * (3 if place % 2 else 1) for place, d in enumerate(body)) % 10
    return f"{body[:3]}-{body[3]}-{body[4:7]}-{body[7:12]}-{check}"


# Name of the kind, texts around ``{}``, and how the value is made. None of it is a secret or names a person.
VALUES: tuple[tuple[str, tuple[str, ...], Make], ...] = (
    ("uuid", ("request {} took 12 ms", '{"id": "{}"}', "DELETE FROM jobs WHERE id = '{}';", "see ticket {}."), uuid),
    ("git_hash", ("commit {}", "fixed in {}, please pull", "git checkout {}", "index {}..0000000 100644"), _hex(40)),
    ("short_hash", ("Merge {} into main", "since {} the test is green", "cherry-pick of {}"), _hex(7)),
    ("sha256", ("sha256:{}", "{}  model.safetensors", "digest: sha256:{}", "expected sha256 {}"), _hex(64)),
    ("md5", ("md5sum {} data.csv", "ETag: {}", "fingerprint md5 {}"), _hex(32)),
    ("integrity", ('"integrity": "sha512-{}"', "    --hash=sha512-{}", 'integrity="sha384-{}"'), _base64(64)),
    (
        "picture",
        ('<img src="data:image/png;base64,iVBORw0KGgo{}">', "![dot](data:image/gif;base64,R0lGOD{})"),
        _base64(90),
    ),
    ("certificate", ("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----",), _base64(144)),
    (
        "public_key",
        ("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{} laptop"),
        _base64(48),
    ),
    (
        "version",
        ("version {}", "requires numpy=={}", "upgrade to {} today", "release {} is out", "firmware v{}"),
        _version,
    ),
    ("date", ("on {} we met", "due {}", "from {} on", "| {} | done |", "backup-{}.tar"), _date),
    ("time", ("at {} sharp", "[{}] started", "finished {} later", "{} – {}"), _time),
    ("amount", ("the sum of {} euros", "revenue {} USD", "{} people live there", "a total of {}"), _amount),
    ("isbn", ("ISBN {}", "ISBN-13: {}", "the book (ISBN {}) is out of print"), _book),
    ("card_near_miss", ("sample {}", "value {} fails the check", "row {}"), _wrong_card),
    ("iban_near_miss", ("sample {}", "the form said {}, which cannot be"), _wrong_account),
    ("invalid_area", ("code 000-{}", "code 666-{}"), lambda g: f"{g.randint(10, 99)}-{g.randint(1000, 9999)}"),
    ("decimal", ("pi is about 3.{}", "loss = 0.{}", "x = 1.{}e-05"), lambda g: digits(g, g.randint(8, 40))),
    ("long_integer", ("2**200 = {}", "20! is {} or so", "n={};"), lambda g: "1" + digits(g, g.randint(24, 50))),
    (
        "sum",
        ("{}", "compute {}"),
        lambda g: f"{g.randint(10, 999)} + {g.randint(10, 999)} - {g.randint(1, 99)} = {g.randint(10, 999)}",
    ),
    (
        "marked_sum",
        ("He has <<{}>> left.",),
        lambda g: f"{g.randint(10, 99)}*{g.randint(10, 99)}={g.randint(100, 9999)}",
    ),
    (
        "coordinates",
        ("at {}", "geo:{}"),
        lambda g: f"{g.randint(-89, 89)}.{digits(g, 6)},{g.randint(-179, 179)}.{digits(g, 6)}",
    ),
    ("range", ("pages {}", "between {}"), lambda g: f"{g.randint(100, 999)}-{g.randint(1000, 1999)}"),
    (
        "score",
        ("it ended {}", "sets: {}"),
        lambda g: f"{g.randint(0, 7)}-{g.randint(0, 7)}, {g.randint(0, 7)}-{g.randint(0, 7)}",
    ),
    ("colour", ("color: #{};", "fill #{} and go"), _hex(6)),
    ("memory_address", ("at 0x{}", "segfault at 0x{} ip"), _hex(12)),
    ("doi", ("doi:10.1038/s{}", "https://doi.org/10.1145/{}"), lambda g: f"{g.randint(10000, 99999)}.{digits(g, 7)}"),
    ("arxiv", ("arXiv:{}",), lambda g: f"{g.randint(10, 24)}{g.randint(1, 12):02}.{digits(g, 5)}"),
    (
        "order_number",
        ("order {}", "invoice no. {}", "tracking number 1Z{}"),
        lambda g: digits(g, g.choice((6, 8, 9, 17))),
    ),
    ("netmask", ("mask 255.255.{}.0", "netmask 255.255.255.{}"), lambda g: g.choice(("0", "128", "192", "240", "252"))),
    ("loopback", ("listen on 127.0.0.{}", "bind 0.0.0.0:{}"), lambda g: str(g.randint(1, 9))),
    ("network", ("route 10.{}.0.0 via eth0", "the 192.168.{}.0/24 network"), lambda g: str(g.randint(0, 99))),
    ("csv_numbers", ("a,b,c\n{}\n{}\n",), lambda g: ",".join(str(g.randint(0, 99999)) for _ in range(6))),
    ("float_list", ("[{}]", '{"embedding": [{}]}'), lambda g: ", ".join(f"{g.uniform(-1, 1):.6f}" for _ in range(6))),
    ("dna", (">seq1\n{}\n", "primer {}"), lambda g: "".join(g.choices("ACGT", k=60))),
    ("chemistry", ("InChI=1S/C{}H{}O2", "C{}H{}N4O2"), lambda g: str(g.randint(4, 20))),
    (
        "word_row",
        ("keys: {}", "{}"),
        lambda g: " ".join("".join(g.choices(string.ascii_lowercase, k=6)) for _ in range(8)),
    ),
    (
        "identifier",
        ("row {}", "user_id={}", "bucket part-{}.parquet"),
        lambda g: f"{g.randint(10000, 99999)}-{''.join(g.choices(HEX, k=4))}",
    ),
    ("placeholder_row", ("ghp_{}", "sk-{}", "xoxb-{}", "AKIA{}"), lambda g: g.choice("xX0*") * g.choice((16, 36, 40))),
    (
        "short_prefix",
        ("hf_{}", "npm_{}", "glpat-{}", "sk-{}"),
        lambda g: "".join(g.choices(string.ascii_lowercase, k=6)),
    ),
    ("youtube", ("https://youtu.be/{}", "?v={}"), lambda g: "".join(g.choices(LETTERS_DIGITS, k=11))),
)
