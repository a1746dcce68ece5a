"""Private keys as they stand in files: PEM, OpenSSH, PGP; whole, cut off, and on one line."""

from __future__ import annotations

import base64
import random

from safety_set.labelled import ValueType

_DASHES = "-" * 5


def key_block(kind: str, *, headers: str = "", newline: str = "\n", lines: int = 6, cut: bool = False) -> ValueType:
    """Return a type of private key block; ``cut`` leaves out its last lines."""
    name = f"{kind.strip().lower().replace(' ', '_') or 'pkcs8'}_private_key"
    name += "_truncated" if cut else "_escaped" if newline != "\n" else ""
    block = " BLOCK" if kind.startswith("PGP") else ""

    def pair(generator: random.Random) -> tuple[str, str]:
        body = [base64.b64encode(generator.randbytes(48)).decode() for _ in range(lines)]
        begin, end = (f"{_DASHES}{word} {kind}PRIVATE KEY{block}{_DASHES}" for word in ("BEGIN", "END"))
        text = newline.join([begin, *([headers, ""] if headers else []), *body, *([] if cut else [end])])
        return text, text

    return ValueType(name, pair, is_common=True)


KEY_BLOCKS = (
    key_block("RSA "),
    key_block("EC "),
    key_block("OPENSSH "),
    key_block(""),
    key_block("ENCRYPTED "),
    key_block("DSA ", headers="Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0A1B2C3D4E5F60718293A4B5C6D7E8F9"),
    key_block("PGP ", headers="Version: GnuPG v2"),
    key_block("RSA ", newline="\\n"),
    key_block("EC ", cut=True),
)
