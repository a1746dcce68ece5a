"""What the packaged policy finds, and what it must leave alone."""

from __future__ import annotations

import pytest

from codex_ml.safety.filters import SafetyFilters

pytestmark = pytest.mark.safety

# Secrets are put together here, so that no scanner takes this file for a leak.
KEY = "-----BEGIN {0}PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7x\nq2w3e4r5\n-----END {0}PRIVATE KEY-----"
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJ0123456789KLMNOPQRSTUVWXYZ"


@pytest.mark.parametrize(
    ("rule_id", "text", "expected"),
    [
        ("private_key", f"a {KEY.format('RSA ')} b", "a {} b"),
        ("private_key", f"a {KEY.format('')} b", "a {} b"),
        ("private_key", f"a {KEY.format('OPENSSH ')} b {KEY.format('EC ')} c", "a {} b {} c"),
        ("private_key", "a -----BEGIN PRIVATE KEY-----\nMIIEpAIBAAKCAQEA cut off here", "a {}"),
        ("aws_access_key", "id AKIA" + "ABCDEFGH12345678" + ".", "id {}."),
        (
            "aws_secret_key",
            "aws_secret_access" + "_key = " + "wJalrXUtnFEMI/K7MDENG+bPxRfiCYabcdefghij",
            "aws_secret_access_key = {}",
        ),
        ("github_token", "ghp_" + LETTERS[:36], "{}"),
        ("github_token", "use github_pat_" + LETTERS[:22] + "_" + LETTERS[:59] + " now", "use {} now"),
        ("gitlab_token", "glpat-" + LETTERS[:20], "{}"),
        ("slack_token", "xoxb-" + "123456789012-" + LETTERS[:24], "{}"),
        (
            "slack_token",
            "https://hooks.slack.com/services/" + "T00000000/B00000000/" + LETTERS[:24],
            "https://hooks.slack.com/services/{}",
        ),
        ("stripe_key", "sk_live_" + LETTERS[:24], "{}"),
        ("openai_key", "sk-" + LETTERS[:48], "{}"),
        ("openai_key", "sk-proj-" + LETTERS[:48], "{}"),
        ("anthropic_key", "sk-ant-api03-" + LETTERS[:60], "{}"),
        ("google_api_key", "AIza" + LETTERS[:35], "{}"),
        ("huggingface_token", "hf_" + LETTERS[:34], "{}"),
        ("npm_token", "npm_" + LETTERS[:36], "{}"),
        ("pypi_token", "pypi-AgEIcHlwaS5vcmc" + LETTERS, "{}"),
        ("json_web_token", "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0In0." + LETTERS[:43], "{}"),
        ("basic_auth_url", "postgres://admin:" + "hunter2" + "@localhost/db", "postgres://admin:{}@localhost/db"),
        ("email", "write to Jane.Doe+x@mail.example.co.uk, please", "write to {}, please"),
        ("email", "<jörg@bücher.de>", "<{}>"),
        ("phone", "call +44 20 7946 0958 now", "call {} now"),
        ("phone", "+1 (212) 555-0187", "{}"),
        ("phone", "+4930901820.", "{}."),
        ("phone", "(212) 555-0187 or +1 212 555 0187 100 times", "{} or {} 100 times"),
        ("phone_national", "212-555-0187 or 212.555.0187 or 1-212-555-0187", "{} or {} or {}"),
        ("phone_labelled", "Phone: 7946 0958", "Phone: {}"),
        ("phone_labelled", "my phone number is 5550123456", "my phone number is {}"),
        ("payment_card", "card 4111 1111 1111 1111, 5500-0000-0000-0004 and 340000000000009", "card {}, {} and {}"),
        ("payment_card", "30000000000004 6011000000000004 3530111333300000", "{} {} {}"),
        ("confidential_marking", "This is Strictly\n  Confidential!", "This is {}!"),
        ("confidential_marking", "INTERNAL USE ONLY - DO NOT DISTRIBUTE", "{} - {}"),
    ],
)
def test_default_policy_finds_what_it_protects(
    default_filters: SafetyFilters, rule_id: str, text: str, expected: str
) -> None:
    """Each rule marks its own kind and leaves the words around it."""
    marker = f"[REDACTED:{rule_id}]"
    filtered = default_filters.apply(text)
    assert filtered.text == expected.replace("{}", marker)
    assert filtered.action == "redact"
    assert {finding.rule_id for finding in filtered.findings} == {rule_id}


@pytest.mark.parametrize(
    "text",
    [
        "Natalia sold 48/2 = <<48/2=24>>24 clips in May. She sold 48+24 = <<48+24=72>>72 clips.\n#### 72",
        "1000-200-300=500, 1200 - 350 - 1000, 100*100*1000, 5+123456789012=x, (100) 200-3000=..., $212.555.0187",
        "On 2024-05-01 at 10:15:30, from 01.02.2023 to 31/12/2025; 1995-96; 2001-2002-2003",
        "There were 1234567890 people, 12 345 678 grains, 3.14159265358979 and 4111111111111112.",
        "tracking number 1234 5678 9012 3456, order 4000000000000000, version 10.15.7.1234, mask 255.255.255.0",
        "table: 1-10015132-11\nQ: SELECT COUNT School FROM 1-10015132-11 WHERE No. = '3'",
        "AKIA" + "IOSFODNN7" + "EXAMPLE and wJalrXUtnFEMI/K7MDENG",
        "git@github.com:owner/repository.git, @decorator, user@host, a@b, 5 @ 3.50 each",
        "sk-learn, hf_hub_download, npm_config_registry, pypi-server, eyJ, ghp_short, AIzaShort",
        "http://localhost:8080/@user, https://example.com/a:b, see https://a.example/x@y",
        "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
        "He spoke confidentially of internal users only; distribute them, do not distributed.",
        "The phone costs $120 and the mobile plan 12 - 15 a month. Call me at 5.",
        "1e-10 0x7f 6.022e23 0123456789abcdef0123456789abcdef",
    ],
)
def test_default_policy_leaves_ordinary_text_alone(default_filters: SafetyFilters, text: str) -> None:
    """Arithmetic, dates, counts, tables, placeholders and near misses pass untouched."""
    filtered = default_filters.apply(text)
    assert (filtered.text, filtered.findings, filtered.action) == (text, (), "keep")


@pytest.mark.parametrize(
    "text",
    [
        "a" * 200_000,
        "a" * 100_000 + "@",
        "a@" * 50_000,
        "a.b" * 50_000 + "@",
        "x@" + "a." * 50_000,
        "1" * 200_000,
        "1-" * 100_000,
        "+1 " * 60_000,
        "(123) " * 30_000,
        "://" * 50_000,
        "://a:" * 40_000,
        "eyJ" * 50_000,
        "eyJaaaaaaaa." * 15_000,
        "-----BEGIN PRIVATE KEY-----" * 5_000,
        "-----BEGIN " * 10_000 + "PRIVATE KEY",
        "phone " * 30_000,
        "4111 " * 40_000,
        "do not " * 30_000,
        "sk-" * 60_000,
    ],
    ids=lambda text: f"{text[:12]}x{len(text)}",
)
def test_default_policy_hostile_text_is_read_in_bounded_time(default_filters: SafetyFilters, text: str) -> None:
    """No pattern backtracks out of hand on a text made to provoke it."""
    assert default_filters.apply(text).action in {"keep", "redact"}


@pytest.mark.parametrize(
    ("before", "secret", "behind"),
    [
        ("curl -u alice:", "Fr0stbite9x", " http://a && curl -u bob:x1"),
        ("sshpass -p ", "Fr0stbite9x", " ssh -p 22222 h"),
        ("redis-cli -a ", "Fr0stbite9x", " && rsync -a folder host:"),
        ("api_key=", "rhR8kQ2vZx7LmN4tYc9Wb3Fs6Jd", " next"),
        ("password=", "reD9xLk2", ""),
        ("postgres://app:", "Zk8!example77Q", "@db/x"),
        ("DB_PASSWORD=", "insert_9Ks8dj2", ""),
        ("password: '", "abc(def)9X2", "'"),
        ("passwd: ", "!PVMgti3nFSS6BE3x", " (retry 2)"),
        ("key_AKIA", "QWERTYUIOPASDFGH", "_prod"),
        ("card ", "4111\u00a01111\u00a01111\u00a01111", ""),
        ("ping ", "8.8.8.8", ""),
        ("at ", "10.0.0.5", ""),
        ("[REDACTED:email:", "44051401359", "]"),
        ("call ", "+1 212 555 0187", " 100 times"),
        ("password reset to ", "Welcome2024!", ""),
        ("Password (PACS): ", "Welcome2024!", ""),
        ("Password for ward PC: ", "Welcome2024!", ""),
        ('temporary password "', "Welcome2024!", '" was issued'),
        ("<password>", "Zx91kkQw7", "</password>"),
        ('"auth": "', "fYTCEfpr5GedgdpPEi9Zhgyh1cwEsGhR63sRhB==", '"'),
        ("glpat-", "aB3dE6gH9jK2mN5pQ8s-", " next"),
        ("first\\nTel. ", "4154556095", "\\nlast"),
        ("Hospital no. ", "K4471902", ""),
        ("Patienten-ID: ", "4471120", ""),
        ("", "+49 30 901820", " / +49 30 901821"),
    ],
)
def test_default_policy_marks_the_whole_secret_and_no_more(
    default_filters: SafetyFilters, before: str, secret: str, behind: str
) -> None:
    """What a review and the labelled set showed: first characters, earlier options, words of placeholders, spaces."""
    shown = default_filters.redact(before + secret + behind)
    assert secret not in shown
    assert not any(secret[:length] in shown.removeprefix(before).split("[")[0] for length in range(1, 4))


@pytest.mark.parametrize(
    "text",
    [
        "The password is 8-characters long, and case-sensitive.",
        "The password was reset2023 times too often",
        "sshpass is not curl -u user: -p",
        "Section 555 555 5555 of the list",
        "metformin 500-500-1000 mg, then 250-500-1000 mg; NDC 0071-0155-23; specimen 943 476 5919 received",
        "CVC 101 inserted, CVC 118 ml; kernel 5.15.0.91, numpy 1.26.2.1",
        "version 10.1.2.3 and release 10.0.0.1",
        "12345678A " * 300,
    ],
)
def test_default_policy_leaves_what_a_review_found_changed(default_filters: SafetyFilters, text: str) -> None:
    """Prose and near misses stay, also by the hundred."""
    assert default_filters.redact(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "see item (a) foo.bar, section (a) Smith.Jones, option (a) config.yaml",
        "list [a] obj.method() and vector[a] matrix.shape",
        "arrive AT 5.30, run AT 10.15",
        "git checkout deploy-test-22ea1c649c82946aa6e479e1ffd321e4a318b1b0",
        "image: registry/app-prod-22ea1c649c82946aa6e479e1ffd321e4a318b1b0",
        "test-454349e422f05297191ead13e21d3db520e5abef52055e4964b82fb213f593a1",
        "def test_getUserByIdReturns404WhenMissingFromCache():",
        "/cio-guide-to-cloud-computing-2023-edition and /gsk-annual-report-2023-final-version-en",
        "fc_bayern_muenchen_2023_24_kader_liste, nvapi-reference-guide-release-535-public",
        "PIN 4700 uF, ADC PIN 1023 max, Pin 1234 connects to GND, PIN 110001 Delhi",
        "#define PIN 4821\n",
        "PIN\n2024 budget overview, Pin\n1001 is the ground",
        "red cell 4500000 per ul, cell 12345|cell 99999",
        "Password\nHTTP/1.1\n\nPasswort\nAES-256-GCM\n",
    ],
)
def test_default_policy_leaves_lists_digests_and_names_of_pages(default_filters: SafetyFilters, text: str) -> None:
    """List letters such as (a) are no at sign, and vendor prefixes also occur in ordinary names."""
    assert default_filters.redact(text) == text


@pytest.mark.parametrize(
    "secret",
    [
        "jo.doe(a)example.com",
        "jo doe [at] clinic dot example",
        "jo AT clinic DOT example",
        "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",
        "nvapi-8Hq2LzKx7Vn4Rw1Yp6Tb3Jc5Md9Fs0Ga-x_Lk2Qw",
        "acme_secret_22ea1c649c82946aa6e479e1ffd321e4a318b1b0",
        "pat_22ea1c649c82946aa6e479e1ffd321e4a318b1b0",
        "test_aB3dE6gH9jK2mN5pQ8sT1vW4xY7z",
        "PIN 4821;",
        "meine PIN 4821",
        "PIN\n4821\n",
        "Konto: 532013000",
        "Vers.-Nr. A123456780",
        "cell 415 555 3814",
    ],
)
def test_default_policy_finds_values_that_are_near_those_texts(default_filters: SafetyFilters, secret: str) -> None:
    """The exceptions for ordinary texts do not cover real values of the same form."""
    assert secret not in default_filters.redact(f"use {secret}\n")
