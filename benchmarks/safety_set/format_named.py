"""Values after further names and in further layouts, webhooks, and vendor tokens similar to the known ones."""

from __future__ import annotations

import random
from collections.abc import Callable

from safety_set.check_digits import digits
from safety_set.labelled import Labelled, labelled
from safety_set.making import HEX, LETTERS_DIGITS, password, uuid

_SEED = 20_261_131
_TURNS = 3


def _number(count: int) -> Callable[[random.Random], str]:
    return lambda generator: generator.choice("123456789") + digits(generator, count - 1)


def _insured(generator: random.Random) -> str:
    return generator.choice("ABCDEFGHKLMNPRSTW") + digits(generator, 9)


def _pension(generator: random.Random) -> str:
    return f"{digits(generator, 2)} {generator.randint(10, 28)}0675 {generator.choice('ABCMS')} {digits(generator, 3)}"


def _text(alphabet: str, count: int) -> Callable[[random.Random], str]:
    return lambda generator: (
        "".join(generator.choices(alphabet, k=count - 2)) + generator.choice("abcdef") + generator.choice("123456789")
    )


def _slack_path(generator: random.Random) -> str:
    team, channel = ("".join(generator.choices("ABCDEFGHJKMNPQ0123456789", k=count)) for count in (8, 10))
    return f"T{team}/B{channel}/{_text(LETTERS_DIGITS, 24)(generator)}"


_CASES: tuple[tuple[str, tuple[str, ...], Callable[[random.Random], str]], ...] = (
    (
        "insured_number",
        (
            "KVNR: {}",
            "KV-Nr. {}",
            "KVNr {}",
            "Versichertennr.: {}",
            "Krankenversichertennummer {}",
            "kvnr={}",
            "**KVNR:** {}",
            '"kvnr": "{}"',
            "| KVNR | {} |",
            "KVNR\n{}",
            "Versicherten-Nr.: {}",
        ),
        _insured,
    ),
    (
        "pension_number",
        ("Rentenversicherungsnummer: {}", "RVNR: {}", "SV-Nummer: {}", "Versicherungsnummer: {}", "SVNR {}"),
        _pension,
    ),
    (
        "bank_account",
        (
            "Kontonummer: {}",
            "Konto-Nr.: {}",
            "Kto.-Nr. {}",
            "Kontonr. {}",
            "Kto: {}",
            "account number: {}",
            "Account No. {}",
            "acct # {}",
            "konto_nr={}",
            '"accountNumber": "{}"',
            "**Kontonummer:** {}",
            "Kontonummer {}, BLZ 37040044",
            "Kontonummer\n{}",
            "bank account {}",
        ),
        _number(9),
    ),
    (
        "routing_number",
        ("routing number: {}", "Routing No. {}", "ABA routing number {}"),
        lambda g: "021" + digits(g, 6),
    ),
    (
        "pin",
        (
            "PIN: {}",
            "PIN {}",
            "PIN-Code: {}",
            "PIN lautet {}",
            "my PIN is {}",
            "pin={}",
            '"pin": "{}"',
            "Geheimzahl: {}",
            "**PIN:** {}",
            "PIN\n{}",
            "Karten-PIN: {}",
            "card PIN {}",
            "SIM-PIN: {}",
        ),
        lambda g: g.choice("123456789") + digits(g, 3),
    ),
    ("puk", ("PUK: {}", "PUK-Code {}", "SIM PUK: {}"), _number(8)),
    (
        "one_time_code",
        (
            "TAN: {}",
            "Your verification code is {}",
            "OTP: {}",
            "Ihr Bestätigungscode lautet {}",
            "one-time code: {}",
            "2FA code: {}",
            "mTAN: {}",
            "security code: {}",
            "Ihr Einmalcode: {}",
        ),
        _number(6),
    ),
    (
        "password_below",
        (
            "Password:\n{}",
            "Passwort:\n{}\n",
            "password\n{}",
            "Your new password:\n\n    {}\n",
            "Kennwort\n--------\n{}",
            "**Password**\n{}",
            "Password:\r\n{}",
            "Password:\n> {}",
            "## Passwort\n{}",
            "Password:\n`{}`",
            "Passwort lautet:\n{}",
            "- user: ann\n- password:\n  {}",
            "<b>Passwort:</b><br>{}",
            "Password:\n```\n{}\n```",
            "<td>Password</td><td>{}</td>",
            "| Passwort | {} |",
            "**Passwort:** {}",
            "Password (new):\n{}",
        ),
        password,
    ),
    (
        "patient_number",
        ("Patientennummer: {}", "Pat.-Nr. {}", "Fallnr.: {}", "Fall-Nr. {}", "MRN: {}", "patient no {}", "Pat-ID: {}"),
        _number(8),
    ),
    (
        "document_number",
        ("Ausweisnummer: {}", "Reisepassnummer: {}", "Passport no: {}", "Führerscheinnummer: {}", "Ausweis-Nr. {}"),
        lambda g: "L01X" + digits(g, 4) + g.choice("23456789"),
    ),
    (
        "tax_number",
        ("Steuernummer: {}", "Steuer-Nr. {}", "St.-Nr.: {}"),
        lambda g: f"{digits(g, 2)}/{digits(g, 3)}/{digits(g, 5)}",
    ),
    (
        "phone_label",
        (
            "Rufnummer: {}",
            "Tel.-Nr.: {}",
            "Telefonnummer: {}",
            "Handynummer {}",
            "Mobilnummer: {}",
            "**Tel.:** {}",
            "Phone\n{}",
        ),
        lambda g: "0171 " + _number(7)(g),
    ),
    (
        "webhook",
        (
            "https://discord.com/api/v10/webhooks/{}",
            "https://ptb.discord.com/api/webhooks/{}",
            "https://canary.discordapp.com/api/webhooks/{}",
        ),
        lambda g: f"{_number(18)(g)}/{_text(LETTERS_DIGITS + '-_', 68)(g)}",
    ),
    (
        "webhook_teams",
        (
            "https://acme.webhook.office.com/webhookb2/{}",
            "https://outlook.office.com/webhook/{}",
            "https://outlook.office365.com/webhook/{}",
        ),
        lambda g: f"{uuid(g)}@{uuid(g)}/IncomingWebhook/{_text(HEX, 32)(g)}/{uuid(g)}",
    ),
    (
        "webhook_slack",
        ("https://hooks.slack-gov.com/services/{}", "hooks.slack.com/services/{}"),
        _slack_path,
    ),
    (
        "webhook_chat",
        ("https://chat.googleapis.com/v1/spaces/AAAAqLxyz12/messages?key=k&token={}",),
        _text(LETTERS_DIGITS + "-_", 43),
    ),
    (
        "webhook_zapier",
        ("https://hooks.zapier.com/hooks/catch/{}", "https://hooks.zapier.com/hooks/catch/{}/"),
        lambda g: f"{digits(g, 7)}/{_text(LETTERS_DIGITS.lower(), 7)(g)}",
    ),
    (
        "webhook_make",
        ("https://hook.eu1.make.com/{}", "https://hook.integromat.com/{}"),
        _text("abcdefghijklmnop0123456789", 32),
    ),
    ("webhook_ifttt", ("https://maker.ifttt.com/trigger/door/with/key/{}",), _text(LETTERS_DIGITS + "-_", 22)),
    ("webhook_mattermost", ("https://chat.firma.example/hooks/{}",), _text("abcdefghijklmnopqrstuvwxyz0123456789", 26)),
    (
        "webhook_lark",
        ("https://open.feishu.cn/open-apis/bot/v2/hook/{}", "https://open.larksuite.com/open-apis/bot/v2/hook/{}"),
        uuid,
    ),
    ("webhook_dingtalk", ("https://oapi.dingtalk.com/robot/send?access_token={}",), _text(HEX, 64)),
    ("webhook_wecom", ("https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key={}",), uuid),
)
_TOKENS: tuple[tuple[str, str, str, int], ...] = (
    *(("xoxc-", "digits-", "abcdef0123456789", 64), ("xoxd-", "", LETTERS_DIGITS, 80), ("lsv2_pt_", "", HEX, 42)),
    *(("pcsk_", "", LETTERS_DIGITS, 60), ("tvly-", "", LETTERS_DIGITS, 32), ("nvapi-", "", LETTERS_DIGITS, 64)),
    *(("sk-lf-", "", HEX, 36), ("phx_", "", LETTERS_DIGITS, 44), ("rnd_", "", LETTERS_DIGITS, 28)),
    *(("cio", "", LETTERS_DIGITS, 32), ("mlsn.", "", HEX, 64), ("sha256~", "", LETTERS_DIGITS, 43)),
    *(("tfp_", "", LETTERS_DIGITS, 44), ("ABSK", "", LETTERS_DIGITS, 110), ("live_", "", LETTERS_DIGITS, 30)),
    *(("rzp_live_", "", LETTERS_DIGITS, 24), ("sk_org_", "", LETTERS_DIGITS, 32), ("gho-", "", LETTERS_DIGITS, 36)),
    *(("glpat_", "", LETTERS_DIGITS, 24), ("acme_live_", "", LETTERS_DIGITS, 32), ("acme_sk_", "", LETTERS_DIGITS, 40)),
    *(("acme-api-", "", LETTERS_DIGITS, 36), ("sk-live-", "", LETTERS_DIGITS, 40), ("pat_", "", LETTERS_DIGITS, 40)),
    *(("re_", "resend", LETTERS_DIGITS, 24), ("AQ.Ab8R", "", LETTERS_DIGITS, 44), ("rpa_", "", LETTERS_DIGITS, 40)),
    *(("shippo_live_", "", HEX, 40), ("APP_USR-", "", HEX, 40), ("FLWSECK_TEST-", "", HEX, 32)),
    *(
        ("access_token_", "", LETTERS_DIGITS, 40),
        ("api-key-", "", LETTERS_DIGITS, 32),
        ("ops_", "", LETTERS_DIGITS, 80),
    ),
)
_SURROUNDINGS = (("", ""), ("Please use ", " from now on."), ("Notiz vom 3. Mai\n", "\nEnde"), ("value: ", "\n"))


def named_positives() -> list[Labelled]:
    """Return values with their names, webhooks and tokens, three of each; every call returns the same."""
    generator = random.Random(_SEED)
    texts: dict[str, Labelled] = {}
    turn = 0
    for name, forms, make in _CASES:
        for form in forms:
            for _ in range(_TURNS):
                value = make(generator)
                before, behind = (
                    _SURROUNDINGS[turn % 3] if not name.startswith("password") else ("", "\nEnde" if turn % 2 else "")
                )
                turn += 1
                item = labelled(before, form.replace("{}", value), value, behind, name, "named:" + name)
                texts.setdefault(item.text, item)
    for prefix, kind, alphabet, count in _TOKENS:
        for _ in range(_TURNS):
            body = _text(alphabet, count)(generator)
            if kind == "digits-":
                body = f"{digits(generator, 12)}-{digits(generator, 12)}-{body}"
            if kind == "resend":
                body = f"{_text(LETTERS_DIGITS, 8)(generator)}_{body}"
            before, behind = _SURROUNDINGS[turn % len(_SURROUNDINGS)]
            turn += 1
            item = labelled(before, prefix + body, prefix + body, behind, "vendor_token", f"token:{prefix}")
            texts.setdefault(item.text, item)
    return list(texts.values())
