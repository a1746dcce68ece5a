"""Tests of who may talk to the service."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from codex_ml.errors import UserError
from codex_ml.serve.access import TOKEN_VARIABLE, BearerToken, check_binding, names_loopback, read_token

WORDS = "only-for-this-test"


def test_admits_right_token_passes() -> None:
    """The token is admitted, with the scheme in any case."""
    token = BearerToken(WORDS, source="test")
    assert token.admits(f"Bearer {WORDS}")
    assert token.admits(f"bearer {WORDS}")


@pytest.mark.parametrize("header", [None, "", "Bearer", f"Basic {WORDS}", WORDS, f"Bearer {WORDS}x", "Bearer \u00e9"])
def test_admits_anything_else_is_refused(header: str | None) -> None:
    """A missing, wrong or oddly shaped header is refused without an error."""
    assert not BearerToken(WORDS, source="test").admits(header)


def test_token_text_of_object_hides_secret() -> None:
    """Neither repr nor str shows the token."""
    token = BearerToken(WORDS, source="test")
    assert WORDS not in f"{token!r} {token}"


@pytest.mark.parametrize("secret", ["", "short", "sixteen letters and spaces", "\u00e9" * 20])
def test_token_unusable_is_refused_without_showing_it(secret: str) -> None:
    """The error names the source only."""
    with pytest.raises(UserError) as caught:
        BearerToken(secret, source="token.txt")
    assert "token.txt" in caught.value.block()
    assert not secret or secret not in caught.value.block()


def test_read_token_from_file_or_variable_is_read(tmp_path: Path) -> None:
    """A file goes before a variable; neither named means no token."""
    path = tmp_path / "token"
    path.write_text(WORDS + "\n")
    from_file = read_token(path, "ELSEWHERE", {})
    from_variable = read_token(None, "ELSEWHERE", {"ELSEWHERE": WORDS})
    assert from_file is not None
    assert from_file.admits(f"Bearer {WORDS}")
    assert from_variable is not None
    assert from_variable.admits(f"Bearer {WORDS}")
    assert read_token(None, None, {}) is None


def test_read_token_nothing_named_takes_the_known_variable() -> None:
    """A container is given its token so; compose sets it empty where the machine has none."""
    known = read_token(None, None, {TOKEN_VARIABLE: WORDS})
    assert known is not None
    assert known.admits(f"Bearer {WORDS}")
    assert read_token(None, None, {TOKEN_VARIABLE: ""}) is None
    other = read_token(None, "ELSEWHERE", {TOKEN_VARIABLE: WORDS, "ELSEWHERE": WORDS[::-1]})
    assert other is not None
    assert not other.admits(f"Bearer {WORDS}")


def test_read_token_absent_or_unreadable_is_user_error(tmp_path: Path) -> None:
    """Named and not there is an error; bytes of a bad file are not shown."""
    bad = tmp_path / "bad"
    bad.write_bytes(b"hidden-part\xff")
    for path in (tmp_path / "absent", bad):
        with pytest.raises(UserError) as caught:
            read_token(path, None, {})
        assert "hidden-part" not in caught.value.block()
        assert caught.value.__cause__ is None
    with pytest.raises(UserError):
        read_token(None, "ELSEWHERE", {})


def test_read_token_pipe_device_or_long_file_is_refused(tmp_path: Path) -> None:
    """Reading does not block and has a size limit; the error names the option that needs no file."""
    pipe, device, long = tmp_path / "pipe", tmp_path / "device", tmp_path / "long"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    long.write_text("a" * 5000)
    reading, writing = os.pipe()
    os.write(writing, WORDS.encode())
    os.close(writing)
    substituted = Path(f"/dev/fd/{reading}")
    for path, why in ((pipe, "a named pipe"), (device, "a device"), (long, "4096 bytes"), (substituted, "pipe")):
        with pytest.raises(UserError) as caught:
            read_token(path, None, {})
        assert why in caught.value.why
        assert "--token-variable" in caught.value.fix
    os.close(reading)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_check_binding_beyond_loopback_needs_token(host: str) -> None:
    """Every other address needs a token and is fine with one."""
    with pytest.raises(UserError):
        check_binding(host, None)
    check_binding(host, BearerToken(WORDS, source="test"))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_check_binding_loopback_needs_none(host: str) -> None:
    """Loopback works without a token."""
    check_binding(host, None)


@pytest.mark.parametrize("header", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:80", "[::1]", "127.0.0.1"])
def test_names_loopback_own_names_pass(header: str) -> None:
    """The names that a client on this machine uses pass."""
    assert names_loopback(header)


@pytest.mark.parametrize(
    "header",
    [None, "", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "[::1", "[::1]x", "localhost:x"],
)
def test_names_loopback_rebound_name_is_refused(header: str | None) -> None:
    """A foreign or broken name is refused."""
    assert not names_loopback(header)
