"""What the options of `runs verify` take: a digest in both its spellings, and nothing else."""

from __future__ import annotations

import pytest

from codex_ml.cli.runs.checks import given_digest
from codex_ml.errors import UserError

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize("text", [f"sha256:{HEX}", HEX, HEX.upper(), f" {HEX}\n"])
def test_given_digest_bare_or_prefixed_is_the_same(text: str) -> None:
    """Digests are kept on paper and in mails, with the prefix and without."""
    assert given_digest(text) == f"sha256:{HEX}"


def test_given_digest_not_given_is_none() -> None:
    """Nothing is compared."""
    assert given_digest(None) is None


@pytest.mark.parametrize("text", ["", "sha256:", HEX[1:], f"{HEX}0", f"md5:{HEX}", HEX.replace("a", "x")])
def test_given_digest_anything_else_is_a_usage_error(text: str) -> None:
    """A digest that was copied badly is no tampering."""
    with pytest.raises(UserError, match="is no SHA-256 digest") as caught:
        given_digest(text)
    assert caught.value.exit_code == 2
    assert caught.value.why
    assert caught.value.fix
