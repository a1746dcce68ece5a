"""Makes files that are malformed or awkward, each with what its content deserves; the tests beside it read them all.

A case says how many records the file has (`good`), which lines are no records and why (`bad`), how many lines are
empty, or, for a file that is refused as a whole, words of the reason.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator

import zstandard
from tests.unit.data.malformed_case import END, ROW, Case
from tests.unit.data.malformed_formats import delimited, other_formats, tables


def all_cases() -> list[Case]:
    """Return every case; the file name begins with a number, so that no two are equal."""
    makers = (
        _sound,
        _bad_lines,
        _mixed,
        _ends,
        _marks,
        _encodings,
        other_formats,
        _packed,
        tables,
        delimited,
        _noise,
    )
    cases = [case for maker in makers for case in maker()]
    return [
        Case(f"{number:03}-{case.name}", case.content, case.good, case.bad, case.empty, case.refused)
        for number, case in enumerate(cases)
    ]


def _completion(text: bytes) -> bytes:
    return b'{"prompt": "a", "completion": ' + text + b"}"


SOUND = (
    _completion(b'"x\\u2028y"'),
    _completion('"x\u2028\u2029\u0085"'.encode()),
    _completion('"😀 \ufffd \U0010ffff"'.encode()),
    _completion(b'"\\ud83d\\ude00"'),
    _completion(b'"\\u0000\\u001f\\u007f"'),
    _completion(b'"\x7f"'),
    _completion(b'"\\\\ \\/ \\" \\b\\f\\n\\r\\t"'),
    _completion(b'"' + b"x" * 100_000 + b'"'),
    _completion('"\ufeff"'.encode()),
    _completion(b'"{\\"a\\": [1,]}"'),
    _completion(b'"<html>"'),
    _completion(b'"NaN"'),
    b' \t{"prompt": "a", "completion": "b"}\t ',
    b'{\r"prompt"\t:\r"a","completion":"b"}',
    b'{"prompt": "a", "completion": "b", "": 1}',
    b'{"prompt": "a", "completion": "b", "\\u0001\\n": 1}',
    b'{"prompt": "a", "completion": "b", "n": -0}',
    b'{"prompt": "a", "completion": "b", "n": -0.0e-0}',
    b'{"prompt": "a", "completion": "b", "n": 1e-9999}',
    b'{"prompt": "a", "completion": "b", "n": 1.7976931348623157e308}',
    b'{"prompt": "a", "completion": "b", "n": 18446744073709551616}',
    b'{"prompt": "a", "completion": "b", "n": ' + b"9" * 308 + b"}",
    b'{"prompt": "a", "completion": "b", "n": 0.' + b"1" * 9000 + b"}",
    b'{"prompt": "a", "completion": "b", "n": ' + b"[" * 63 + b"]" * 63 + b"}",
    b'{"prompt": "a", "completion": "b", "n": [[], {}, null, true, false]}',
    b'{"prompt": "a", "completion": "b", ' + b", ".join(b'"k%d": 1' % n for n in range(5000)) + b"}",
    b'{"\\u0070rompt": "a", "completion": "b"}',
    b'{"prompt": "", "completion": "b"}',
    b'{"prompt": "a", "completion": "b", "a": {"a": {"a": 1}}}',
)


def _sound() -> Iterator[Case]:
    for index, line in enumerate(SOUND):
        yield Case(f"sound-{index}.jsonl", line + END, good=1)
        yield Case(f"sound-{index}-among-others.ndjson", ROW + END + line + b"\r\n" + ROW, good=3)


BAD = (
    (b"nonsense", "bad_json"),
    (b"{", "bad_json"),
    (b"}", "bad_json"),
    (b'{"prompt"', "bad_json"),
    (b'{"prompt": "a", "completion": "b"', "bad_json"),
    (b'{"prompt": "a", "completion": "b', "bad_json"),
    (b'{"prompt": "a" "completion": "b"}', "bad_json"),
    (b'{"prompt": "a", "completion": "b",}', "bad_json"),
    (b'{"prompt": "a",, "completion": "b"}', "bad_json"),
    (b'{"prompt": "a", "completion": ["b",]}', "bad_json"),
    (b'{"prompt": "a", "completion": "b"},', "bad_json"),
    (b'{"prompt": "a", "completion": "b"};', "bad_json"),
    (ROW + ROW, "bad_json"),
    (ROW + b" " + ROW, "bad_json"),
    (ROW + b" // note", "bad_json"),
    (b"// note", "bad_json"),
    (b"# note", "bad_json"),
    (b'{/* note */ "prompt": "a", "completion": "b"}', "bad_json"),
    (b"{'prompt': 'a', 'completion': 'b'}", "bad_json"),
    (b"{prompt: 'a', completion: 'b'}", "bad_json"),
    (b'{"prompt": None, "completion": "b"}', "bad_json"),
    (b'{"prompt": True, "completion": "b"}', "bad_json"),
    (b'{"prompt": undefined, "completion": "b"}', "bad_json"),
    (b'{"prompt": "a\tb", "completion": "b"}', "bad_json"),
    (b'{"prompt": "a\x00b", "completion": "b"}', "bad_json"),
    (b'{"prompt": "a\x0cb", "completion": "b"}', "bad_json"),
    (b'{"prompt": "a\rb", "completion": "b"}', "bad_json"),
    (b'{"prompt": "\\x41", "completion": "b"}', "bad_json"),
    (b'{"prompt": "\\u12", "completion": "b"}', "bad_json"),
    (b'{"prompt": "\\', "bad_json"),
    (b'{"prompt": 01, "completion": "b"}', "bad_json"),
    (b'{"prompt": +1, "completion": "b"}', "bad_json"),
    (b'{"prompt": .5, "completion": "b"}', "bad_json"),
    (b'{"prompt": 1., "completion": "b"}', "bad_json"),
    (b'{"prompt": 0x10, "completion": "b"}', "bad_json"),
    (b'{"prompt": 1_000, "completion": "b"}', "bad_json"),
    (b'{1: "a", "completion": "b"}', "bad_json"),
    (b"2024-01-01 INFO " + ROW, "bad_json"),
    (b"1\t" + ROW, "bad_json"),
    (b"data: " + ROW, "bad_json"),
    (b"\x1e" + ROW, "bad_json"),
    (b"\x0c", "bad_json"),
    (b"\x0b" + ROW, "bad_json"),
    ("\u00a0".encode() + ROW, "bad_json"),
    ("\ufeff".encode() + ROW, "bad_json"),
    (b"\x00" * 10, "bad_json"),
    (b"\x00" + ROW, "bad_json"),
    (b"<p>text</p>", "bad_json"),
    (b"{}}", "bad_json"),
    (b'{"prompt": "a", "prompt": "a", "completion": "b"}', "doubled_key"),
    (b'{"prompt": "a", "\\u0070rompt": "c", "completion": "b"}', "doubled_key"),
    (b'{"prompt": "a", "completion": "b", "x": {"y": 1, "y": 1}}', "doubled_key"),
    (b'{"prompt": "a", "completion": "b", "": 1, "": 2}', "doubled_key"),
    (b'{"prompt": "a", "completion": "b", "n": NaN}', "bad_number"),
    (b'{"prompt": "a", "completion": "b", "n": Infinity}', "bad_number"),
    (b'{"prompt": "a", "completion": "b", "n": -Infinity}', "bad_number"),
    (b'{"prompt": "a", "completion": "b", "n": 1e400}', "bad_number"),
    (b'{"prompt": "a", "completion": "b", "n": -1e999999999}', "bad_number"),
    (b'{"prompt": "a", "completion": "b", "n": 1' + b"0" * 309 + b"}", "bad_number"),
    (b'{"prompt": "a", "completion": "b", "n": -1' + b"0" * 4299 + b"}", "bad_number"),
    (b'{"prompt": "a", "completion": "b", "n": ' + b"1" * 4301 + b"}", "bad_number"),
    (b'{"prompt": "a", "completion": "b", "n": ' + b"1" * 100_000 + b"}", "bad_number"),
    (b'{"prompt": "a", "completion": "b", "n": 1' + b"0" * 9000 + b".5}", "bad_number"),
    (b'{"prompt": "\\ud800", "completion": "b"}', "lone_surrogate"),
    (b'{"prompt": "\\udc00\\ud800", "completion": "b"}', "lone_surrogate"),
    (b'{"prompt": "\\uD83Dx", "completion": "b"}', "lone_surrogate"),
    (b'{"prompt": "a", "completion": "b", "\\udfff": 1}', "lone_surrogate"),
    (b"\xff", "bad_encoding"),
    (b'{"prompt": "\xff", "completion": "b"}', "bad_encoding"),
    (b'{"prompt": "\xc0\xaf", "completion": "b"}', "bad_encoding"),
    (b'{"prompt": "\xe0\x80\xaf", "completion": "b"}', "bad_encoding"),
    (b'{"prompt": "\xed\xa0\x80", "completion": "b"}', "bad_encoding"),
    (b'{"prompt": "\xed\xa0\xbd\xed\xb8\x80", "completion": "b"}', "bad_encoding"),
    (b'{"prompt": "\xf4\x90\x80\x80", "completion": "b"}', "bad_encoding"),
    (b'{"prompt": "\xf8\x88\x80\x80\x80", "completion": "b"}', "bad_encoding"),
    (b'{"prompt": "\xc3", "completion": "b"}', "bad_encoding"),
    (b'{"prompt": "caf\xe9", "completion": "b"}', "bad_encoding"),
    (b'{"prompt": "\x93a\x94", "completion": "b"}', "bad_encoding"),
    (b'{"prompt": "a", "completion": "b\xf0\x9f\x98', "bad_encoding"),
    (b"[]", "not_an_object"),
    (b"[" + ROW + b"]", "not_an_object"),
    (b'"text"', "not_an_object"),
    (b"1", "not_an_object"),
    (b"-0.0", "not_an_object"),
    (b"true", "not_an_object"),
    (b"null", "not_an_object"),
    (b'{"prompt": ' + b"[" * 64 + b"]" * 64 + b"}", "too_deep"),
    (b'{"a":' * 65 + b"1" + b"}" * 65, "too_deep"),
    (b"[" * 100_000, "too_deep"),
    (b'{"a":' * 30_000, "too_deep"),
    (b'{"prompt": ' + b"[" * 5000 + b"]" * 5000 + b"}", "too_deep"),
    (b'{"prompt": "' + b"x" * 300_000 + b'"}', "too_long_line"),
    (b" " * 300_000, "too_long_line"),
    (b"{}", "bad_shape"),
    (b'{"prompt": "a"}', "bad_shape"),
    (b'{"completion": "b"}', "bad_shape"),
    (b'{"prompt": 1, "completion": "b"}', "bad_shape"),
    (b'{"prompt": null, "completion": "b"}', "bad_shape"),
    (b'{"prompt": "a", "completion": ["b"]}', "bad_shape"),
    (b'{"prompt": {}, "completion": "b"}', "bad_shape"),
    (b'{"prompt": "a", "completion": ""}', "bad_shape"),
    (b'{"prompt": "a", "completion": " \\n"}', "bad_shape"),
    (b'{"Prompt": "a", "Completion": "b"}', "bad_shape"),
    (b'{"prompt ": "a", "completion": "b"}', "bad_shape"),
    (b'{"text": "a"}', "bad_shape"),
)


def _bad_lines() -> Iterator[Case]:
    for index, (line, reason) in enumerate(BAD):
        yield Case(f"bad-{index}-{reason}.jsonl", ROW + END + line + END + ROW + END, good=2, bad={2: reason})
        # A last line without an end is one like others; what is cut off there is most often the rest of a record.
        yield Case(f"bad-{index}-{reason}-last.jsonl", ROW + b"\r\n" + ROW + END + line, good=2, bad={3: reason})


def _mixed() -> Iterator[Case]:
    chooser = random.Random(5)
    for index in range(30):
        lines, bad, empty, good = [ROW], {}, 0, 1
        for number in range(2, chooser.randrange(4, 40)):
            kind = chooser.random()
            if kind < 0.5:
                lines.append(chooser.choice([ROW, *SOUND]))
                good += 1
            elif kind < 0.8:
                line, bad[number] = chooser.choice(BAD)
                lines.append(line)
            else:
                lines.append(chooser.choice([b"", b" ", b"\t \t"]))
                empty += 1
        end = chooser.choice([END, b"\r\n"])
        yield Case(f"mixed-{index}.jsonl", end.join([*lines, b""]), good, bad, empty)


def _ends() -> Iterator[Case]:
    yield Case("no-last-end.jsonl", ROW, good=1)
    yield Case("pair-ends.jsonl", (ROW + b"\r\n") * 3, good=3)
    yield Case("mixed-ends.jsonl", ROW + b"\r\n" + ROW + b"\n" + ROW + b"\r", good=3)
    yield Case("doubled-return.jsonl", (ROW + b"\r\r\n") * 2, good=2)
    yield Case("many-empty.jsonl", b"\n" * 1000 + ROW + b"\n" * 1000, good=1, empty=1999)
    yield Case("blank-ends.jsonl", b"  \n\t\r\n" + ROW + b"\n \n ", good=1, empty=4)
    yield Case("next-line.jsonl", ROW + b"\xc2\x85" + ROW, bad={1: "bad_json"})
    yield Case("line-separator.jsonl", ROW + "\u2028".encode() + ROW + END + ROW, good=1, bad={1: "bad_json"})
    for name, content in (
        ("empty.jsonl", b""),
        ("one-end.jsonl", b"\n"),
        ("blank.jsonl", b" \n\t\n\r\n   "),
        ("mark-only.jsonl", b"\xef\xbb\xbf"),
        ("mark-and-ends.jsonl", b"\xef\xbb\xbf\r\n\n"),
    ):
        yield Case(name, content, refused="holds no record")
    yield Case("old-mac.jsonl", b"\r".join([ROW] * 3) + b"\r", refused="line ends of an old Mac")


def _marks() -> Iterator[Case]:
    mark = b"\xef\xbb\xbf"
    yield Case("mark.jsonl", mark + ROW + END, good=1)
    yield Case("mark-and-empty.jsonl", mark + b"\n" + ROW + END, good=1, empty=1)
    yield Case("two-marks.jsonl", mark + mark + ROW + END + ROW, good=1, bad={1: "bad_json"})
    yield Case("mark-inside.jsonl", ROW + END + mark + ROW + END, good=1, bad={2: "bad_json"})
    yield Case("mark-second-after-empty.jsonl", b"\n" + mark + ROW + END + ROW, good=1, bad={2: "bad_json"}, empty=1)
    yield Case("mark-at-end.jsonl", ROW + END + mark, good=1, bad={2: "bad_json"})
    yield Case("half-a-mark.jsonl", b"\xef\xbb" + ROW + END + ROW, good=1, bad={1: "bad_encoding"})


def _encodings() -> Iterator[Case]:
    text = ROW.decode() + "\n" + '{"prompt": "é", "completion": "ü"}\n'
    for encoding, name in (
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32", "UTF-32"),
        ("utf-32-le", "UTF-32"),
        ("utf-32-be", "UTF-32"),
    ):
        yield Case(f"{encoding}.jsonl", text.encode(encoding), refused=f"looks like {name} text")
    for encoding in ("latin-1", "cp1252", "cp437", "mac-roman"):
        yield Case(f"{encoding}.jsonl", text.encode(encoding), good=1, bad={2: "bad_encoding"})
    yield Case("ebcdic.jsonl", text.encode("cp500"), bad={1: "bad_encoding"})


def _packed() -> Iterator[Case]:
    rows = (ROW + END) * 50
    for ending, pack in (("gz", gzip.compress), ("zst", zstandard.ZstdCompressor(write_checksum=True).compress)):
        name = f"packed.jsonl.{ending}"
        yield Case(name, pack(rows), good=50)
        yield Case(f"bare.{ending}", pack(rows), good=50)
        yield Case(f"upper.JSONL.{ending.upper()}", pack(rows), good=50)
        yield Case(name, pack(rows) + pack(rows), good=100)
        yield Case(name, pack(rows[:17]) + pack(b"") + pack(rows[17:]), good=50)
        yield Case(name, pack(ROW + b"\nnonsense\n\n" + ROW), good=2, bad={2: "bad_json"}, empty=1)
        yield Case(name, pack(rows)[:-1], refused="is cut off")
        yield Case(name, pack(rows)[: len(pack(rows)) // 2], refused="is cut off")
        yield Case(name, pack(rows) + b"garbage", refused="something behind its end")
        yield Case(name, rows, refused="is no")
        yield Case(name, b"", refused="holds no record")
        yield Case(name, pack(b""), refused="holds no record")
        yield Case(name, pack(b"\n\n"), refused="holds no record")
        yield Case(name, pack(b" " * 40_000_000), refused="holds far more than it should")
        yield Case(name, pack(rows)[:-5] + b"\xff" * 5, refused="is (damaged|cut off)")
    yield Case("padded.jsonl.gz", gzip.compress(rows, mtime=0) + b"\x00" * 1000, good=50)
    yield Case("zst-as.jsonl.gz", zstandard.compress(rows), refused="looks like a Zstandard archive")
    yield Case("gz-as.jsonl.zst", gzip.compress(rows, mtime=0), refused="looks like a gzip archive")


def _noise() -> Iterator[Case]:
    """Give sound lines with one byte turned into another; most are faults, and which one is not foretold."""
    chooser = random.Random(11)
    for index in range(60):
        line = bytearray(chooser.choice(SOUND)[:400])
        line[chooser.randrange(len(line))] = chooser.choice([0x00, 0x0D, 0x22, 0x5C, 0x7B, 0x7D, 0xC3, 0xED, 0xFF])
        yield Case(f"noise-{index}.jsonl", ROW + END + bytes(line) + END + ROW + END, good=-1)
