"""Types that the first set leaves out, and true forms that it varies too little, after public descriptions."""

from __future__ import annotations

import base64
import json
import random

from stdnum.it import codicefiscale

from safety_set.check_digits import date_digits, digits, standard
from safety_set.labelled import ValueType
from safety_set.making import HEX, LETTERS_DIGITS, URL_SAFE, Make, alone, drawn, named

_DASHES = "-" * 5
_SIGNS = "-_"


def _signed(name: str, *parts: str | Make, common: bool = True) -> ValueType:
    """Return a type whose last character is a hyphen or an underscore, as one in 32 of the URL-safe ones is."""
    return alone(name, *parts, drawn(_SIGNS, 1), common=common)


def _encoded(content: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content, separators=(",", ":")).encode()).decode().rstrip("=")


def web_token(generator: random.Random) -> str:
    """Return a JSON web token with one of the headers that providers write."""
    algorithm, length = generator.choice((("HS512", 64), ("RS256", 256), ("ES256", 64)))
    order = generator.choice((("alg", "kid", "typ"), ("typ", "alg"), ("kid", "alg")))
    values = {"alg": algorithm, "typ": "JWT", "kid": "".join(generator.choices(HEX, k=8))}
    signature = base64.urlsafe_b64encode(generator.randbytes(length)).decode().rstrip("=")
    body = _encoded({"iss": "https://login.example", "sub": str(generator.randrange(10**9)), "admin": True})
    return f"{_encoded({key: values[key] for key in order})}.{body}.{signature}"


def discord(generator: random.Random) -> str:
    """Return a bot token: user number in base64, a time, a signature."""
    user = base64.b64encode(str(generator.randrange(10**17, 10**18)).encode()).decode()
    return f"{user}.G{''.join(generator.choices(LETTERS_DIGITS, k=5))}.{''.join(generator.choices(URL_SAFE, k=38))}"


def sentry(generator: random.Random) -> str:
    """Return an organisation token: its content in base64, and a secret."""
    content = _encoded({"iat": 1_700_000_000 + generator.randrange(10**7), "url": "https://sentry.io", "org": "ward"})
    return f"sntrys_{content}_{base64.b64encode(generator.randbytes(32)).decode().rstrip('=')}"


def service_account(generator: random.Random) -> tuple[str, str]:
    """Return a service account of Google as JSON, and its private key."""
    body = [base64.b64encode(generator.randbytes(48)).decode() for _ in range(5)]
    begin, end = (f"{_DASHES}{word} PRIVATE KEY{_DASHES}" for word in ("BEGIN", "END"))
    value = "\\n".join([begin, *body, end])
    return f'{{"type": "service_account", "private_key": "{value}\\n"}}', value


def spanish_account(generator: random.Random) -> str:
    """Return a Spanish IBAN with the check digits of bank and account too."""
    bank, number = digits(generator, 8), digits(generator, 10)
    checks = [11 - sum(int(d) * w for d, w in zip(part, _WEIGHTS, strict=True)) % 11 for part in ("00" + bank, number)]
    return _with_check("ES", bank + "".join(str({10: 1, 11: 0}.get(c, c)) for c in checks) + number)


_WEIGHTS = (1, 2, 4, 8, 5, 10, 9, 7, 3, 6)


def _with_check(country: str, body: str) -> str:
    number = "".join(str(int(c, 36)) for c in body + country + "00")
    return f"{country}{98 - int(number) % 97:02}{body}"


def belgian_account(generator: random.Random) -> str:
    """Return a Belgian IBAN with its national check digits."""
    body = digits(generator, 10)
    return _with_check("BE", f"{body}{int(body) % 97 or 97:02}")


def norwegian_account(generator: random.Random) -> str:
    """Return a Norwegian IBAN with its national check digit."""
    while True:
        body = digits(generator, 10)
        check = -sum(int(d) * w for d, w in zip(body, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2), strict=True)) % 11
        if check < 10:
            return _with_check("NO", f"{body}{check}")


def spaced(text: str) -> str:
    """Return a text in groups of four."""
    return " ".join(text[place : place + 4] for place in range(0, len(text), 4))


def fiscal_code(generator: random.Random) -> str:
    """Return an Italian fiscal code with its check letter."""
    letters = "".join(generator.choices("BCDFGLMNPRSTV", k=6))
    year, day = generator.randint(50, 99), generator.choice((generator.randint(1, 28), generator.randint(41, 68)))
    body = f"{letters}{year}{generator.choice('ABCDEHLMPRST')}{day:02}H501"
    return body + str(codicefiscale.calc_check_digit(body))


def curp(generator: random.Random) -> str:
    """Return a Mexican population code with its check digit."""
    names = generator.choice("BCGLMPR") + generator.choice("AEIOU") + "".join(generator.choices("GHLNRT", k=2))
    state = generator.choice(("DF", "JC", "VZ", "NL", "OC"))
    inner = "".join(generator.choices("BCGLMNRST", k=3))
    date = date_digits(generator, "yymmdd")
    return standard(generator, "mx.curp", f"{names}{date}{generator.choice('HM')}{state}{inner}0#")


def insurance(generator: random.Random) -> str:
    """Return a British national insurance number without spaces."""
    prefix = generator.choice("ABCEGHJKLMNPRSTWXYZ") + generator.choice("ABCEGHJKLMPRSTWXYZ")
    return f"{prefix}{digits(generator, 6)}{generator.choice('ABCD')}"


def french_number(generator: random.Random) -> str:
    """Return a French social security number with its key."""
    month, department = generator.randint(1, 12), generator.randint(21, 95)
    body = f"{generator.choice('12')}{generator.randint(50, 99)}{month:02}{department}{digits(generator, 6)}"
    number = f"{body}{97 - int(body) % 97:02}"
    return f"{number[0]} {number[1:3]} {number[3:5]} {number[5:7]} {number[7:10]} {number[10:13]} {number[13:]}"


def short_v6(generator: random.Random) -> str:
    """Return an IPv6 address with a gap."""
    first, last = ("".join(generator.choices(HEX[1:], k=k)) for k in (4, 3))
    return f"2a0{generator.randrange(10)}:{first}::{last}:{generator.randrange(1, 99)}"


def personal(name: str, make: Make, form: str = "{}", *, common: bool = False) -> ValueType:
    """Return a type whose value may stand in a form."""
    return named(name, form, make, common=common)


FURTHER_TYPES: tuple[ValueType, ...] = (
    # The last character of a URL-safe token is a sign now and then: no word border stands behind it.
    _signed("gitlab_token_signed_end", "glpat-", drawn(URL_SAFE, 19)),
    _signed("google_api_key_signed_end", "AIza", drawn(URL_SAFE, 34)),
    _signed("google_oauth_secret_signed_end", "GOCSPX-", drawn(URL_SAFE, 27)),
    _signed("sendgrid_key_signed_end", "SG.", drawn(URL_SAFE, 22), ".", drawn(URL_SAFE, 42)),
    _signed("telegram_bot_token_signed_end", drawn("123456789", 10), ":AA", drawn(URL_SAFE, 32)),
    _signed("pypi_token_signed_end", "pypi-" + "AgEIcHlwaS5vcmc", drawn(URL_SAFE, 139)),
    _signed("vault_token_signed_end", "hvs.", drawn(URL_SAFE, 94), common=False),
    _signed("docker_token_signed_end", "dckr_pat_", drawn(URL_SAFE, 26), common=False),
    _signed("figma_token_signed_end", "figd_", drawn(URL_SAFE, 39), common=False),
)
