"""Secrets of further vendors, after their public descriptions; some are known by the name before them alone."""

from __future__ import annotations

import string

from safety_set.labelled import ValueType
from safety_set.making import HEX, LETTERS_DIGITS, URL_SAFE, alone, base64_of, drawn, named, password, uuid

_BECH32 = "023456789ACDEFGHJKLMNPQRSTUVWXYZ"

RARE_SECRETS: tuple[ValueType, ...] = (
    alone("mailgun_key", "key-", drawn(HEX, 32)),
    alone("mailchimp_key", drawn(HEX, 32), "-us", drawn("123456789", 2)),
    alone("digitalocean_token", "dop_v1_", drawn(HEX, 64)),
    named("heroku_key", "HEROKU_API_KEY={}", uuid),
    alone("shopify_token", "shpat_", drawn(HEX, 32)),
    alone("square_token", "EAAA", drawn(URL_SAFE, 59), "e"),
    alone(
        "braintree_token",
        "access_token$production$",
        drawn(string.ascii_lowercase + "0123456789", 16),
        "$",
        drawn(HEX, 32),
    ),
    alone("databricks_token", "dapi", drawn(HEX, 32)),
    alone("newrelic_key", "NRAK-", drawn(string.ascii_uppercase + "0123456789", 27)),
    named("datadog_key", "DD_API_KEY={}", drawn(HEX, 32)),
    named("sentry_dsn", "https://{}@o123456.ingest.sentry.io/4501", drawn(HEX, 32)),
    alone("sentry_token", "sntrys_", base64_of(60)),
    alone("grafana_token", "glsa_", drawn(LETTERS_DIGITS, 32), "_", drawn(HEX, 8)),
    alone("atlassian_token", "ATATT3xFfGF0", drawn(URL_SAFE, 170), "=", drawn(HEX.upper(), 8)),
    alone("dropbox_token", "sl.", drawn(URL_SAFE, 134), "d"),
    alone("linear_key", "lin_api_", drawn(LETTERS_DIGITS, 40)),
    alone("notion_token", "ntn_", drawn(LETTERS_DIGITS, 46)),
    alone("postman_key", "PMAK-", drawn(HEX, 24), "-", drawn(HEX, 34)),
    alone("doppler_token", "dp.pt.", drawn(LETTERS_DIGITS, 43)),
    alone("vault_token", "hvs.", drawn(URL_SAFE, 94), "v"),
    alone("terraform_token", drawn(LETTERS_DIGITS, 14), ".atlasv1.", drawn(LETTERS_DIGITS, 67)),
    alone("pulumi_token", "pul-", drawn(HEX, 40)),
    alone("age_key", "AGE-SECRET-KEY-1", drawn(_BECH32, 58)),
    named("cloudflare_token", "CLOUDFLARE_API_TOKEN={}", drawn(LETTERS_DIGITS + "_-", 39), "c"),
    named("fastly_token", "fastly_api_token: {}", drawn(LETTERS_DIGITS, 32)),
    named("okta_token", "okta_token = {}", "00", drawn(LETTERS_DIGITS, 40)),
    alone("airtable_token", "pat", drawn(LETTERS_DIGITS, 14), ".", drawn(HEX, 64)),
    alone("asana_token", "1/", drawn("123456789", 16), ":", drawn(HEX, 32)),
    alone("groq_key", "gsk_", drawn(LETTERS_DIGITS, 52)),
    alone("replicate_token", "r8_", drawn(LETTERS_DIGITS, 37)),
    alone("perplexity_key", "pplx-", drawn(LETTERS_DIGITS, 48)),
    alone("xai_key", "xai-", drawn(LETTERS_DIGITS, 80)),
    alone("supabase_token", "sbp_", drawn(HEX, 40)),
    named("vercel_token", "VERCEL_TOKEN={}", drawn(LETTERS_DIGITS, 24)),
    alone("netlify_token", "nfp_", drawn(LETTERS_DIGITS, 36)),
    alone("rubygems_key", "rubygems_", drawn(HEX, 48)),
    alone("docker_token", "dckr_pat_", drawn(URL_SAFE, 26), "k"),
    alone("artifactory_key", "AKCp", drawn(LETTERS_DIGITS, 69)),
    alone("circleci_token", "CCIPAT_", drawn(LETTERS_DIGITS, 22), "_", drawn(HEX, 40)),
    alone("figma_token", "figd_", drawn(URL_SAFE, 39), "f"),
    named("azure_sas", "https://store.blob.core.windows.net/c?sv=2022-11-02&sig={}", drawn(LETTERS_DIGITS, 43), "%3D"),
    alone("google_access_token", "ya29.a0", drawn(URL_SAFE, 120), "g"),
    named("netrc", "machine api.intern.example login robot password {}", password),
    named("curl_user", "curl -u robot:{} https://api.intern.example/v1", password),
    named("mysql_option", "mysql -h db -u root -p{} shop", drawn(LETTERS_DIGITS, 11), "9"),
    named("password_option", "tool login --user robot --password {}", password),
    named(
        "password_in_prose", "The password for the ward computer is {} since Monday", drawn(LETTERS_DIGITS, 9), "7!k"
    ),
)
