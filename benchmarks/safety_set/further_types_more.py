"""The second half of the further types."""

from __future__ import annotations

import random
import string

from safety_set.further_types import (
    FURTHER_TYPES,
    belgian_account,
    curp,
    discord,
    fiscal_code,
    french_number,
    insurance,
    norwegian_account,
    personal,
    sentry,
    service_account,
    short_v6,
    spaced,
    spanish_account,
    web_token,
)
from safety_set.labelled import ValueType
from safety_set.making import HEX, LETTERS_DIGITS, UPPER_DIGITS, URL_SAFE, alone, drawn, named, password

ALL_FURTHER: tuple[ValueType, ...] = (
    *FURTHER_TYPES,
    # Named in the brief, absent from the set.
    ValueType("gcp_service_account", service_account, is_common=False),
    alone("google_refresh_token", "1//0", drawn(LETTERS_DIGITS, 1), drawn(URL_SAFE, 98), "k"),
    named("paypal_secret", "PAYPAL_CLIENT_SECRET={}", "E", drawn(LETTERS_DIGITS, 79)),
    named("au_medicare_named", "Medicare number: {}", lambda g: _medicare(g)),
    # True forms that the set's makers pass by.
    alone("json_web_token_other_headers", web_token, common=True),
    alone("discord_bot_token_true", discord, common=True),
    alone("sentry_token_true", sentry),
    alone("github_user_server_token", "ghu_", drawn(LETTERS_DIGITS, 36), common=True),
    alone("github_refresh_token", "ghr_", drawn(LETTERS_DIGITS, 76), common=True),
    alone("openai_service_key", "sk-svcacct-", drawn(URL_SAFE, 74), "T3BlbkFJ", drawn(URL_SAFE, 73), "A", common=True),
    alone("anthropic_admin_key", "sk-ant-admin01-", drawn(URL_SAFE, 93), "AA", common=True),
    alone("gitlab_runner_token", "glrt-", drawn(URL_SAFE, 19), "x"),
    alone("stripe_long_live_key", "sk_live_51", drawn(LETTERS_DIGITS, 97), common=True),
    alone("square_secret", "sq0csp-", drawn(URL_SAFE, 42), "e"),
    alone("notion_old_token", "secret_", drawn(LETTERS_DIGITS, 43)),
    alone("grafana_cloud_token", "glc_eyJ", drawn(LETTERS_DIGITS, 96)),
    alone("heroku_new_key", "HRKU-AA", drawn(URL_SAFE, 57), "x"),
    alone("shopify_shared_secret", "shpss_", drawn(HEX, 32)),
    named("mailgun_signing_named", "MAILGUN_API_KEY={}", drawn(HEX, 32), "-", drawn(HEX, 8), "-", drawn(HEX, 8)),
    named(
        "slack_workflow_webhook",
        "https://hooks.slack.com/workflows/{}",
        "T",
        drawn(UPPER_DIGITS, 10),
        "/A",
        drawn(UPPER_DIGITS, 10),
        "/",
        drawn("123456789", 18),
        "/",
        drawn(LETTERS_DIGITS, 24),
    ),
    named("password_json_key", '{"db_password": "{}"}', password, common=True),
    named("password_python", 'PASSWORD = "{}"', password, common=True),
    named("password_colon_arrow", "'password' => '{}'", password, common=True),
    named("password_xml", "<password>{}</password>", drawn(LETTERS_DIGITS, 11), "!7", common=True),
    named("docker_config_auth", '"auth": "{}"', drawn(LETTERS_DIGITS, 38), "=="),
    named("registry_npmrc", "//registry.npmjs.org/:_authToken={}", drawn(HEX, 32)),
    # Persons: people's own digits, and more than one man.
    personal("iban_es_national", lambda g: spaced(spanish_account(g)), common=True),
    personal("iban_be_national", belgian_account, common=True),
    personal("iban_no_national", norwegian_account, common=True),
    personal("it_fiscal_code_any", fiscal_code),
    personal("mx_curp_any", curp),
    personal("gb_national_insurance_compact", insurance),
    personal("fr_nir_spaced", french_number),
    personal("ip_v6_short", short_v6, "Failed password for root from {} port 40212"),
    personal("phone_gb_national", lambda g: f"020 7946 0{g.randrange(100, 999)}", "Call me on {}", common=True),
    personal("phone_bare_ten", lambda g: f"415{g.randrange(2, 9)}55{g.randrange(1000, 9999)}", "cell {}", common=True),
    personal("phone_double_zero", lambda g: f"0049 30 9018{g.randrange(100, 999)}", common=True),
    personal(
        "email_short",
        lambda g: f"{g.choice(string.ascii_lowercase)}{g.randrange(9)}@{g.choice('abcxyz')}.io",
        common=True,
    ),
    personal("email_apostrophe", lambda g: f"sean.o'{g.choice(('neill', 'brien', 'hara'))}@tcd.ie", common=True),
)


def _medicare(generator: random.Random) -> str:
    body = f"{generator.randrange(2, 7)}{generator.randrange(10**7):07}"
    check = sum(int(d) * w for d, w in zip(body, (1, 3, 7, 9, 1, 3, 7, 9), strict=True)) % 10
    return f"{body[:4]} {body[4:]}{check} {generator.randrange(1, 9)}"
