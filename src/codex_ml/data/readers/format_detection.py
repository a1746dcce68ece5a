"""What a file or a line that is no JSON Lines looks like, so that its owner is told what to do with it."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
GZIP_MAGIC = b"\x1f\x8b"
ZSTANDARD_MAGIC = b"\x28\xb5\x2f\xfd"

_UNPACK = "unpack it first, and name the file that comes out"
_CONVERT = "convert it to JSON Lines"
_AS_UTF8 = "save it as UTF-8, for example with: iconv -f {0} -t UTF-8 FILE > NEW.jsonl"
_NAME_IT = "name it so: a file is unpacked or converted by its ending ({0})"


class Lookalike(NamedTuple):
    """What something looks like, and what to do."""

    name: str
    fix: str
    why: str = ""


_MAGIC_BYTES = (
    (b"\xff\xfe\x00\x00", Lookalike("UTF-32 text", _AS_UTF8.format("UTF-32"))),
    (b"\x00\x00\xfe\xff", Lookalike("UTF-32 text", _AS_UTF8.format("UTF-32"))),
    (b"\xff\xfe", Lookalike("UTF-16 text", _AS_UTF8.format("UTF-16"))),
    (b"\xfe\xff", Lookalike("UTF-16 text", _AS_UTF8.format("UTF-16"))),
    (GZIP_MAGIC, Lookalike("a gzip archive", _NAME_IT.format(".jsonl.gz"))),
    (ZSTANDARD_MAGIC, Lookalike("a Zstandard archive", _NAME_IT.format(".jsonl.zst"))),
    (b"\xfd7zXZ\x00", Lookalike("an xz archive", _UNPACK)),
    (b"BZh", Lookalike("a bzip2 archive", _UNPACK)),
    (b"PK\x03\x04", Lookalike("a zip archive", _UNPACK)),
    (b"PK\x05\x06", Lookalike("an empty zip archive", _UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", Lookalike("a 7z archive", _UNPACK)),
    (b"Rar!\x1a\x07", Lookalike("a RAR archive", _UNPACK)),
    (b"\x04\x22\x4d\x18", Lookalike("an LZ4 archive", _UNPACK)),
    (b"PAR1", Lookalike("a Parquet file", _NAME_IT.format(".parquet"))),
    (b"ARROW1", Lookalike("an Arrow file", _NAME_IT.format(".arrow"))),
    (b"\xff\xff\xff\xff", Lookalike("an Arrow stream", _NAME_IT.format(".arrow"))),
    (b"ORC", Lookalike("an ORC file", _CONVERT)),
    (b"Obj\x01", Lookalike("an Avro file", _CONVERT)),
    (b"SQLite format 3\x00", Lookalike("an SQLite database", "export the table as JSON Lines")),
    (b"\x89HDF\r\n\x1a\n", Lookalike("an HDF5 file", _CONVERT)),
    (b"\x93NUMPY", Lookalike("a NumPy array", _CONVERT)),
    (b"%PDF-", Lookalike("a PDF document", "extract its text into JSON Lines")),
    (b"{\\rtf", Lookalike("an RTF document", "extract its text into JSON Lines")),
    (b"\x7fELF", Lookalike("a program", "name another file")),
    (b"\x89PNG", Lookalike("a picture", "name another file")),
    (b"\xff\xd8\xff", Lookalike("a picture", "name another file")),
    (b"version https://git-lfs", Lookalike("a Git LFS pointer", "fetch the file itself with: git lfs pull")),
    (b"-----BEGIN", Lookalike("a key or certificate", "name another file")),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_HTML = re.compile(rb"<(!doctype\s+html|html|head|body|title)\b", re.IGNORECASE)
_XML = re.compile(rb"<(\?xml|!--|[A-Za-z][\w.:-]*[\s/>])")
_LONGEST_LINE_LOOKED_AT = 4096
_LONGEST_HINTED = 1 << 20


def look_of_file(head: bytes) -> Lookalike | None:
    """Tell by the first bytes of a file what it is instead of JSON Lines; None where nothing speaks against them.

    Parameters
    ----------
    head : bytes
        The first block.
    """
    for magic, look in _MAGIC_BYTES:
        if head.startswith(magic):
            return look
    if _PICKLE.match(head):
        return Lookalike("a Python pickle", "ask its author for JSON Lines; a pickle is never opened")
    if head[257:262] == b"ustar":
        return Lookalike("a tar archive", _UNPACK)
    return _look_of_wide_text(head) or _look_of_text(head)


def _look_of_wide_text(head: bytes) -> Lookalike | None:
    """Tell text of two or four bytes a character, which has a zero beside each letter of English."""
    start = head[:4]
    if len(start) == 4 and start.count(0) == 3 and (start[0] or start[3]):
        return Lookalike("UTF-32 text", _AS_UTF8.format("UTF-32LE" if start[0] else "UTF-32BE"))
    if len(start) == 4 and start.count(0) == 2 and (start[0] == start[2] == 0 or start[1] == start[3] == 0):
        return Lookalike("UTF-16 text", _AS_UTF8.format("UTF-16BE" if start[0] == 0 else "UTF-16LE"))
    if head[:2] in (b"{\x00", b"\x00{"):
        return Lookalike("UTF-16 text", _AS_UTF8.format("UTF-16BE" if head[0] == 0 else "UTF-16LE"))
    if start and not any(start):
        return Lookalike("binary data", "name another file", "it begins with zero bytes, as after a crash of a disk")
    return None


def _look_of_text(head: bytes) -> Lookalike | None:
    text = head.removeprefix(BYTE_ORDER_MARK).lstrip(b" \t\r\n")
    lines = [line.strip(b" \t\r") for line in text[:_LONGEST_LINE_LOOKED_AT].split(b"\n")]
    first = lines[0]
    if first.startswith(b"["):
        return Lookalike(
            "a JSON array",
            "call it FILE.json and make records of it: codex-ml data prepare --source FILE.json --out DIR",
            "JSON Lines has one object a line and no brackets around them",
        )
    if first.startswith(b"{"):
        return _look_of_object(text, first)
    if _HTML.match(first):
        return Lookalike("an HTML page", "download the file itself; this is a page about it, or an error of the server")
    if _XML.match(first):
        return Lookalike("XML", _CONVERT)
    if first.startswith(b"```"):
        return Lookalike("Markdown", "leave out the lines with ```")
    for separator, name, ending in ((b"\t", "a table with tabs", ".tsv"), (b",", "CSV", ".csv")):
        counts = [line.count(separator) for line in lines[:3] if line]
        if len(counts) > 1 and counts[0] and counts[0] == counts[1] and b"{" not in first:
            return Lookalike(name, _NAME_IT.format(ending))
    return None


def _look_of_object(text: bytes, first: bytes) -> Lookalike | None:
    """Detect an object over several lines, and objects between carriage returns."""
    if first == b"{" or _spans_lines(text):
        return Lookalike(
            "pretty-printed JSON",
            "write one object a line, for example with: jq -c . FILE > NEW.jsonl",
            "an object begins on line 1 and does not end there",
        )
    if b"\n" not in text and re.match(rb"[^\r]*\}\r+\s*\{", text):
        return Lookalike(
            "text with the line ends of an old Mac (\\r)",
            "convert it, for example with: tr '\\r' '\\n' < FILE > NEW.jsonl",
            "lines end at \\n here",
        )
    return None


def _spans_lines(text: bytes) -> bool:
    """Tell whether the first object ends on another line than it began."""
    line_end = text.find(b"\n")
    if line_end < 0 or not text[line_end + 1 :].strip():
        return False
    try:
        _, end = json.JSONDecoder().raw_decode(text.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return False
    # Counted in characters, of which there are never more than bytes.
    return "\n" in text.decode("utf-8", errors="replace")[:end]


def hint_for_line(text: str, position: int) -> str:
    """Return what a line that is not valid JSON looks like, without any of its content; empty where nothing is known.

    Parameters
    ----------
    text : str
        The line.
    position : int
        Where the parser stopped, in characters.
    """
    if len(text) > _LONGEST_HINTED:
        return ""
    start, rest = text.lstrip(), text[position:].lstrip()
    for is_so, hint in (
        (text.startswith("\ufeff"), "it has a byte order mark, which is allowed on the first line only"),
        ("\x00" in text, "the line holds NUL bytes, as after a crash of a disk or in UTF-16"),
        (start.startswith(("//", "/*", "#")), "JSON has no comments: leave the line out"),
        (start.startswith("{'"), "it looks like a Python dict: write lines with json.dumps, which has double quotes"),
        (rest.startswith(("'", "None", "True", "False")), "it looks like Python: write lines with json.dumps"),
        (rest.startswith("{"), "the line has several objects: write each on its own line"),
        (rest == ",", "the line ends with a comma: JSON Lines has none between records"),
        (rest.startswith(("//", "/*")), "JSON has no comments"),
        (rest.startswith(("}", "]")) and text[:position].rstrip().endswith(","), _TRAILING_COMMA),
        (rest.startswith(",") and text[:position].rstrip().endswith(","), "two commas follow each other"),
        (bool(re.match(r"[A-Za-z_$][\w$]*\s*:", rest)), "JSON requires keys in double quotes (this is JSON5)"),
        (not start.startswith("{") and start.endswith("}"), "there is text before the object: remove it"),
        (not rest or '"' in text[position : position + 1], _CUT_OFF),
    ):
        if is_so:
            return hint
    return ""


_TRAILING_COMMA = "JSON has no comma before a closing bracket"
_CUT_OFF = "the line may have been cut off, or a quote is missing"
