"""A file written anew without what a policy forbids: what changes, what stays, what is refused and what is reported."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from codex_ml.data.readers.jsonl import iter_jsonl
from codex_ml.errors import DataError, DiskSpaceError, SafetyError, UserError
from codex_ml.io.atomic import Storage, file_digest
from codex_ml.recipes.data.redact import RedactionOptions, RedactionReport, redact_file
from codex_ml.safety.filters import SafetyFilters
from codex_ml.safety.matching import RuleMatch
from codex_ml.safety.policy import parse_policy

pytestmark = pytest.mark.safety
_POLICY = parse_policy(
    r"""
version: 1
rules:
  - {id: red, kind: regex, description: d, patterns: ['RED[0-9]*']}
  - {id: number, kind: pii, description: d, patterns: ['[0-9]{9,}']}
  - {id: gone, kind: regex, description: d, patterns: [DROP], action: drop}
  - {id: stop, kind: regex, description: d, patterns: [BLOCK], action: block}
""",
    "redaction",
)
_SOUND = b'{"text": "one"}\n'


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Return what writes bytes under a name and gives the path."""

    def written(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return written


def _redact(
    source: Path, output: Path, report: Path | None = None, *, pseudonyms: bool = False, **options
) -> RedactionReport:
    filters = SafetyFilters(_POLICY, pseudonyms=pseudonyms)
    return redact_file(source, output, report, RedactionOptions(**options), filters=filters)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"text": "a RED b"}\n{"text":"c"}\n', b'{"text": "a [REDACTED:red] b"}\n{"text":"c"}\n'),
        (
            b'\xef\xbb\xbf{"t": "RED"}\r\n \t\r\n\n{"t" : "x\\/"}',
            b'\xef\xbb\xbf{"t": "[REDACTED:red]"}\r\n \t\r\n\n{"t" : "x\\/"}',
        ),
        (b'\n\n{"t": "RED", "n": 1.0E2}\n\n', b'\n\n{"t": "[REDACTED:red]", "n": 1.0E2}\n\n'),
        (b'{"n": 123456789012, "m": 1234567}', b'{"n": "[REDACTED:number]", "m": 1234567}'),
        ('{"é": "ü RED  x"}\n'.encode(), '{"é": "ü [REDACTED:red]  x"}\n'.encode()),
        (b'{"a": [{"RED1": 1, "RED2": 2}]}', b'{"a": [{"[REDACTED:red]": 1, "[REDACTED:red]#2": 2}]}'),
    ],
)
def test_redact_file_all_but_the_findings_stays_byte_for_byte(write, content: bytes, expected: bytes) -> None:
    """Line ends, empty lines, byte order mark, missing last line end, numbers, escapes; again nothing changes."""
    source = write("in.jsonl", content)
    output = source.with_name("out.jsonl")
    report = _redact(source, output)
    assert output.read_bytes() == expected
    assert source.read_bytes() == content
    again = _redact(output, source.with_name("again.jsonl"))
    assert source.with_name("again.jsonl").read_bytes() == expected
    assert (again.changed, again.read, again.tally.by_rule) == (0, report.read, {})


def test_redact_file_rows_that_a_rule_drops_are_left_out_and_counted(write) -> None:
    """Each row under one rule; the others keep their order and bytes; the sums add up."""
    source = write("in.jsonl", _SOUND + b'{"text": "DROP RED"}\n{"text": "RED"}\n{"x": {"DROP": 1}}\n' + _SOUND)
    report = _redact(source, source.with_name("out.jsonl")).to_dict()
    assert source.with_name("out.jsonl").read_bytes() == _SOUND + b'{"text": "[REDACTED:red]"}\n' + _SOUND
    assert report["rows"] == {"read": 5, "kept": 3, "changed": 1, "dropped": 2}
    assert report["dropped_by_rule"] == {"gone": 2}
    assert report["findings_by_rule"] == {"gone": 2, "red": 2}
    assert report["findings_by_field"] == {"text": 3, "x.(key)": 1}


def test_redact_file_row_that_a_rule_blocks_stops_with_its_line_and_writes_nothing(write, tmp_path: Path) -> None:
    """Also one that blocks because the filters broke down; all such rows are counted, none is shown."""
    source = write("in.jsonl", _SOUND + b'{"text": "PRIVATE BLOCK"}\n{"m": [{"c": "BLOCK"}]}\n')
    with pytest.raises(DataError, match=r"^in\.jsonl:2: the safety policy blocks text \(rule stop\)") as caught:
        _redact(source, tmp_path / "out.jsonl", tmp_path / "report.json")
    assert "in.jsonl:3: the safety policy blocks m[0].c (rule stop)" in caught.value.block()
    assert "PRIVATE" not in caught.value.block()

    def broken(text: str) -> list[RuleMatch]:
        raise RuntimeError(text)

    with pytest.raises(DataError, match=r"^in\.jsonl:1: the safety policy blocks \(key\) \(rule filter_failure\)"):
        redact_file(source, tmp_path / "out.jsonl", filters=SafetyFilters(_POLICY, find=broken))
    assert [item.name for item in tmp_path.iterdir()] == ["in.jsonl"]


def test_redact_file_faulty_lines_are_those_of_the_reader_and_nothing_is_written(write, tmp_path: Path) -> None:
    """Found to the end of the file, named by line; an output that was there stays."""
    source = write("in.jsonl", _SOUND + b"SECRET\n" + b'{"a": 1, "a": 2}\n')
    output = write("out.jsonl", b"before")
    with pytest.raises(DataError, match=r"^in\.jsonl:2: not valid JSON") as caught:
        _redact(source, output, tmp_path / "new" / "report.json", overwrite=True)
    assert "in.jsonl:3: duplicate key" in caught.value.block()
    assert "SECRET" not in caught.value.block()
    assert output.read_bytes() == b"before"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]
    with pytest.raises(DataError, match=r"in\.jsonl:1: the line is longer than 5 bytes"):
        _redact(source, output, overwrite=True, max_line_bytes=5)
    with pytest.raises(DataError, match="does not exist"):
        _redact(tmp_path / "absent.jsonl", output, overwrite=True)


def test_redact_file_report_says_where_and_never_what(write, tmp_path: Path) -> None:
    """Rows, rules, fields, places, digests; keys that are content are not shown."""
    row = {"messages": [{"role": "user", "content": "é RED77"}], "RED5": "RED6", "Ann Miller, 1970": "RED8"}
    source = write("in.jsonl", _SOUND + json.dumps(row).encode() + b"\n\n")
    report = _redact(source, tmp_path / "o" / "out.jsonl", tmp_path / "r" / "report.json")
    written = json.loads((tmp_path / "r" / "report.json").read_bytes())
    assert written == report.to_dict()
    output = tmp_path / "o" / "out.jsonl"
    digests = {name: file_digest(path) for name, path in (("input", source), ("output", output))}
    assert {name: written[name] for name in digests} == {
        "input": {"name": "in.jsonl", "digest": digests["input"], "bytes": source.stat().st_size},
        "output": {"name": "out.jsonl", "digest": digests["output"], "bytes": output.stat().st_size},
    }
    assert (written["policy"], written["policy_digest"]) == ("redaction", _POLICY.digest)
    assert (written["rows"]["read"], written["empty_lines"], written["pseudonyms"]) == (2, 1, False)
    assert written["findings_by_field"] == {
        "(hidden)": 1,
        "(key)": 1,
        "[REDACTED:red]": 1,
        "messages[].content": 1,
    }
    first = {"line": 2, "field": "messages[0].content", "offset": 2, "length": 5, "rule": "red"}
    assert (written["findings"][0], written["not_listed"]) == (first, 0)
    for content in ("RED5", "RED6", "RED7", "RED8", "Ann", "1970"):
        assert content not in json.dumps(written)


def test_redact_file_pseudonyms_are_the_same_for_a_value_in_the_whole_file(write, tmp_path: Path) -> None:
    """In every row and in keys; redacting the result again changes nothing."""
    source = write("in.jsonl", b'{"a": "RED1 RED2"}\n{"RED2": "RED1", "b": "RED3"}\n')
    report = _redact(source, tmp_path / "out.jsonl", pseudonyms=True)
    assert report.changed == 2
    assert (tmp_path / "out.jsonl").read_bytes() == (
        b'{"a": "[REDACTED:red:1] [REDACTED:red:2]"}\n'
        b'{"[REDACTED:red:2]": "[REDACTED:red:1]", "b": "[REDACTED:red:3]"}\n'
    )
    assert _redact(tmp_path / "out.jsonl", tmp_path / "again.jsonl", pseudonyms=True).changed == 0


def test_redact_file_options_choose_policy_and_pseudonyms(write, tmp_path: Path) -> None:
    """As the command gives them; a policy that cannot be used is refused before the file is opened."""
    text = "version: 1\nrules:\n  - {id: word, kind: phrase, description: d, phrases: [forbidden thing]}\n"
    policy = write("mine.yaml", text.encode())
    source = write("in.jsonl", b'{"a": "a forbidden thing"}\n')
    report = redact_file(source, tmp_path / "out.jsonl", None, RedactionOptions(str(policy), pseudonyms=True))
    assert (tmp_path / "out.jsonl").read_bytes() == b'{"a": "a [REDACTED:word:1]"}\n'
    assert (report.policy, report.pseudonyms) == ("mine", True)
    with pytest.raises(SafetyError):
        redact_file(tmp_path / "absent", tmp_path / "o.jsonl", None, RedactionOptions("no-such-policy"))


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_redact_file_packed_files_are_read_and_written(write, packed: str, tmp_path: Path) -> None:
    """By their names, in both directions; the reader takes what was written."""
    content = b"".join(b'{"text": "RED %d"}\r\n' % number for number in range(50))
    pack = gzip.compress if packed == ".gz" else zstandard.ZstdCompressor().compress
    source = write(f"in.jsonl{packed}", pack(content))
    _redact(source, tmp_path / "plain.jsonl")
    assert (tmp_path / "plain.jsonl").read_bytes() == content.replace(b"RED", b"[REDACTED:red]")
    report = _redact(source, tmp_path / f"out.jsonl{packed}")
    assert report.output["digest"] == file_digest(tmp_path / f"out.jsonl{packed}")
    lines = list(iter_jsonl(tmp_path / f"out.jsonl{packed}"))
    assert [line.value["text"] for line in lines] == [f"[REDACTED:red] {number}" for number in range(50)]


def test_redact_file_table_becomes_lines_and_no_table_is_written(write, tmp_path: Path) -> None:
    """Rows become JSON, as for a split; a name of a table would lie about what is in the file."""
    source = write("in.csv", b"q,a\nx RED,y\n")
    _redact(source, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == b'{"a":"y","q":"x [REDACTED:red]"}\n'
    with pytest.raises(UserError, match=r"--output: out\.csv is the name of a table"):
        _redact(source, tmp_path / "out.csv")


def _link(source: Path, other: Path) -> None:
    other.symlink_to(source)


@pytest.mark.parametrize("make", [_link, lambda source, other: os.link(source, other)])
def test_redact_file_output_that_is_the_input_is_refused(write, tmp_path: Path, make) -> None:
    """By name, link and hard link, with --overwrite too; so is a report, and the policy."""
    source = write("in.jsonl", b'{"text": "RED"}\n')
    other = tmp_path / "other.jsonl"
    make(source, other)
    for output, report in ((source, None), (other, None), (tmp_path / "out", other), (tmp_path / "out", source)):
        with pytest.raises(UserError, match=r"and --input name one file"):
            _redact(source, output, report, overwrite=True)
    with pytest.raises(UserError, match=r"--report and --output name one file"):
        _redact(source, tmp_path / "out", tmp_path / "." / "out")
    policy = write("policy.yaml", b"version: 1")
    with pytest.raises(UserError, match=r"--output and --policy name one file"):
        _redact(source, policy, policy=str(policy), overwrite=True)
    assert source.read_bytes() == b'{"text": "RED"}\n'
    assert policy.read_bytes() == b"version: 1"
    assert not (tmp_path / "out").exists()


def test_redact_file_existing_files_stay_unless_asked(write, tmp_path: Path) -> None:
    """Output and report; links, pipes and directories stay in any case."""
    source = write("in.jsonl", b'{"text": "RED"}\n')
    output, report = write("out.jsonl", b"before"), write("report.json", b"before")
    with pytest.raises(UserError, match=r"--output: .*out\.jsonl exists"):
        _redact(source, output)
    with pytest.raises(UserError, match=r"--report: .*report\.json exists"):
        _redact(source, tmp_path / "new.jsonl", report)
    assert not (tmp_path / "new.jsonl").exists()
    _redact(source, output, report, overwrite=True)
    assert output.read_bytes() == b'{"text": "[REDACTED:red]"}\n'
    assert json.loads(report.read_bytes())["output"]["name"] == "out.jsonl"
    (tmp_path / "d").mkdir()
    with pytest.raises(UserError, match="is a directory"):
        _redact(source, tmp_path / "d", overwrite=True)
    (tmp_path / "link").symlink_to(output)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name, why in (("link", "it is a link"), ("dangling", "it is a link"), ("pipe", "pipe")):
        for output, report in ((tmp_path / name, None), (tmp_path / "new.jsonl", tmp_path / name)):
            with pytest.raises(UserError, match="is not written over") as caught:
                _redact(source, output, report, overwrite=True)
            assert why in caught.value.why
    assert not (tmp_path / "new.jsonl").exists()


def test_redact_file_report_that_cannot_be_made_is_said_before_anything_is_read(write, tmp_path: Path) -> None:
    """Not after an hour of reading; nothing is left."""
    source = write("in.jsonl", b"no record at all\n")
    with pytest.raises(DataError, match="cannot be made"):
        _redact(source, tmp_path / "out.jsonl", source / "report.json")
    assert [item.name for item in tmp_path.iterdir()] == ["in.jsonl"]


def test_redact_file_report_is_in_place_before_the_output(write, tmp_path: Path) -> None:
    """Whoever sees the output finds its report, also when the process ends between the two."""
    renamed: list[str] = []

    class Recording(Storage):
        def replace(self, source: Path, target: Path) -> None:
            renamed.append(target.name)
            super().replace(source, target)

    source = write("in.jsonl", _SOUND)
    out, report = tmp_path / "out.jsonl", tmp_path / "report.json"
    redact_file(source, out, report, filters=SafetyFilters(_POLICY), storage=Recording())
    assert renamed == ["report.json", "out.jsonl"]


class _WatchedDisk(Storage):
    """Does something else when the file comes to be forced to the disk, or says that it has little room."""

    def __init__(self, on_fsync: Callable[[], object] = lambda: None, free: int = 1 << 40) -> None:
        self._on_fsync = on_fsync
        self._free = free

    def fsync(self, descriptor: int) -> None:
        self._on_fsync()
        super().fsync(descriptor)

    def free_bytes(self, path: Path) -> int:
        return min(self._free, super().free_bytes(path))


def test_redact_file_output_that_appears_meanwhile_stays(write, tmp_path: Path) -> None:
    """Whoever made it while the file was read keeps it."""
    source, output = write("in.jsonl", _SOUND), tmp_path / "out.jsonl"

    def make() -> None:
        output.write_bytes(b"of another")

    with pytest.raises(UserError, match="exists"):
        redact_file(source, output, filters=SafetyFilters(_POLICY), storage=_WatchedDisk(make))
    assert output.read_bytes() == b"of another"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_redact_file_disk_that_is_too_small_is_said_first(write, tmp_path: Path) -> None:
    """Before a line is read."""
    source = write("in.jsonl", b"no record at all\n")
    with pytest.raises(DiskSpaceError, match="the disk is too small"):
        redact_file(source, tmp_path / "out.jsonl", filters=SafetyFilters(_POLICY), storage=_WatchedDisk(free=1 << 20))


def test_redact_file_progress_is_told_of_every_row(write, tmp_path: Path) -> None:
    """Sound ones and faulty ones, where they begin."""
    told: list[tuple[Path, int]] = []
    source = write("in.jsonl", _SOUND + b"\n" + b"no record\n" + _SOUND)
    with pytest.raises(DataError):
        redact_file(
            source,
            tmp_path / "out.jsonl",
            filters=SafetyFilters(_POLICY),
            progress=lambda path, offset: told.append((path, offset)),
        )
    assert told == [(source, 0), (source, 17), (source, 27)]


def test_redact_file_behind_a_faulty_line_nothing_is_written_any_more(write, tmp_path: Path) -> None:
    """The rest is read for its faults alone: a large file that is refused costs no disk."""
    written: list[int] = []

    class Counting(Storage):
        def write(self, descriptor: int, data: bytes | memoryview) -> int:
            written.append(len(data))
            return super().write(descriptor, data)

    source = write("in.jsonl", b"no record\n" + b'{"text": "%0300000d"}\n' * 3 % (1, 2, 3))
    with pytest.raises(DataError):
        redact_file(source, tmp_path / "out.jsonl", filters=SafetyFilters(_POLICY), storage=Counting())
    assert written == []
