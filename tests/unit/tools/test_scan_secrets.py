"""The secret scan."""

from __future__ import annotations

import gzip
import subprocess
import zipfile
from pathlib import Path

import pytest

from scan_secrets import (
    ALLOW_LIST,
    main,
    problems_of,
    read_allow_list,
    secret_matcher,
    secrets_in,
    secrets_in_file,
)

pytestmark = pytest.mark.safety

# Put together here, so that this file holds none.
TOKEN = "ghp_" + "a1B2" * 9


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a git work tree with one harmless file and a folder for the allow list."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / "tools").mkdir()
    (tmp_path / "a.txt").write_text("nothing\n")
    return tmp_path


def test_secrets_in_planted_token_gives_place_and_no_text() -> None:
    """Line, rule and fingerprint are known; the secret itself is in none of it."""
    (secret,) = secrets_in(f"one\ntoken = {TOKEN}\n", "a.txt", secret_matcher()[0])
    assert (secret.path, secret.line, secret.rule_id) == ("a.txt", 2, "github_token")
    assert TOKEN not in repr(secret)


def test_secret_rules_hold_secrets_only() -> None:
    """An e-mail address in a file is no secret; a private key is."""
    matcher, rule_count = secret_matcher()
    assert rule_count > 40
    assert [match.rule.id for match in matcher.find(f"{TOKEN} jane@example.com")] == ["github_token"]


@pytest.mark.parametrize(
    "content",
    [
        f"key: {TOKEN}\n".encode(),
        b"\xff\x00\xfe" + TOKEN.encode(),
        f"key: {TOKEN}\n".encode("utf-16"),
        f"key: {TOKEN}\n".encode("utf-16-le"),
        f"key: {TOKEN}\n".encode("utf-16-be"),
        f"key: {TOKEN}\n".encode("utf-32"),
        f"key: {TOKEN}\n".encode("utf-32-be"),
    ],
    ids=["text", "binary", "UTF-16", "UTF-16-LE", "UTF-16-BE", "UTF-32", "UTF-32-BE"],
)
def test_main_planted_token_fails_without_showing_it(
    content: bytes, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Text and binary files are read alike."""
    (checkout / "b.bin").write_bytes(content)
    assert main(["--root", str(checkout)]) == 1
    output = capsys.readouterr().out
    assert "b.bin:1: github_token" in output
    assert TOKEN not in output


def test_main_packed_token_is_found_and_can_be_allowed(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The report names the member of the archive."""
    with zipfile.ZipFile(checkout / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes/key.txt", f"one\n{TOKEN}\n")
    assert main(["--root", str(checkout)]) == 1
    output = capsys.readouterr().out
    assert "b.zip!notes/key.txt:2: github_token" in output
    assert TOKEN not in output
    (checkout / ALLOW_LIST).write_text("b.zip!notes/key.txt github_token *\n")
    assert main(["--root", str(checkout)]) == 0


def test_main_archive_that_cannot_be_read_fails(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that was not scanned does not count as clean."""
    (checkout / "b.gz").write_bytes(gzip.compress(TOKEN.encode())[:-12])
    assert main(["--root", str(checkout)]) == 1
    assert "b.gz: not scanned" in capsys.readouterr().out


def test_secrets_in_file_same_secret_in_two_readings_is_named_once() -> None:
    """A file with a NUL byte is read with and without it."""
    (secret,) = secrets_in_file(b"\0" + f"\n{TOKEN}\n".encode(), "a.bin", secret_matcher()[0])
    assert secret.line == 2


def test_main_allowed_token_passes_until_it_is_gone(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is listed may stay; an entry that allows nothing any more is itself a problem."""
    (checkout / "b.txt").write_text(TOKEN)
    fingerprint = secrets_in(TOKEN, "b.txt", secret_matcher()[0])[0].fingerprint
    (checkout / ALLOW_LIST).write_text(f"b.txt github_token {fingerprint}  # made up\n")
    assert main(["--root", str(checkout)]) == 0
    (checkout / "b.txt").write_text("none")
    assert main(["--root", str(checkout)]) == 1
    assert "allows nothing" in capsys.readouterr().out


def test_problems_of_star_allows_one_rule_in_one_file() -> None:
    """A star stands for every find of that rule there, and for nothing elsewhere."""
    secrets = [*secrets_in(TOKEN, "b.txt", secret_matcher()[0]), *secrets_in(TOKEN, "c.txt", secret_matcher()[0])]
    (problem,) = problems_of(secrets, {("b.txt", "github_token", "*")})
    assert problem.startswith("c.txt:1:")


def test_read_allow_list_broken_line_is_an_error() -> None:
    """A line that is understood by halves would allow more than was meant."""
    with pytest.raises(ValueError, match=":2: expected path"):
        read_allow_list("# comment\nb.txt github_token\n")
