"""Raw files read row by row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.data.prepare.config import PreparerConfig
from codex_ml.data.prepare.files import Row, read_source
from codex_ml.data.problems import LineFault
from codex_ml.errors import DataError


def _text(path: Path, unit: str) -> list[str]:
    config = PreparerConfig.model_validate({"kind": "text", "unit": unit})
    rows = list(read_source(path, config))
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    for row in rows:
        assert isinstance(row.value, dict)
        # Each lies where it says, byte for byte: nothing of a text is trimmed or changed.
        part = row.value["text"].encode()
        assert content[row.offset : row.offset + len(part)] == part
    return [row.value["text"] for row in rows if isinstance(row.value, dict)]


@pytest.mark.parametrize(
    ("content", "unit", "expected"),
    [
        ("a\nb\n\n\nc \n", "paragraph", ["a\nb", "c "]),
        ("a\r\nb\r\n \t\r\nc", "paragraph", ["a\r\nb", "c"]),
        ("\n\n  \na", "paragraph", ["a"]),
        ("  a\n\n  b\n", "paragraph", ["  a", "  b"]),
        ("a\u2028b\x0c\n\nc", "paragraph", ["a\u2028b\x0c", "c"]),
        ("a\n\n b \r\nc", "line", ["a", " b ", "c"]),
        ("a\rb\n", "line", ["a\rb"]),
        ("\ufeffa\n", "line", ["a"]),
        ("a\n\nb\n", "file", ["a\n\nb\n"]),
        (" \n\n", "file", []),
        ("", "paragraph", []),
    ],
)
def test_read_source_text_units_stand_as_in_the_file(
    tmp_path: Path, content: str, unit: str, expected: list[str]
) -> None:
    """Borders are line ends and blank lines; what is between them keeps every byte."""
    file = tmp_path / "a.txt"
    file.write_bytes(content.encode())
    assert _text(file, unit) == expected


@given(st.text(alphabet="ab \t\r\n\u00e9\u2028", max_size=60), st.sampled_from(["paragraph", "line", "file"]))
def test_read_source_text_loses_nothing_but_blank_space(
    tmp_path_factory: pytest.TempPathFactory, content: str, unit: str
) -> None:
    """Whatever the text, what stands in no record is line ends and blanks between them."""
    file = tmp_path_factory.mktemp("text") / "a.txt"
    file.write_bytes(content.encode())
    parts = _text(file, unit)
    rest = content.removeprefix("\ufeff")
    for part in parts:
        before, found, rest = rest.partition(part)
        assert found == part
        assert before.strip() == ""
    assert rest.strip() == ""


def test_read_source_text_that_is_no_utf_8_names_the_byte(tmp_path: Path) -> None:
    """Nothing is replaced or guessed."""
    file = tmp_path / "a.txt"
    file.write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"a.txt: byte 3 is not UTF-8"):
        list(read_source(file, PreparerConfig(kind="text")))


def test_read_source_json_list_inside_a_document_is_found(tmp_path: Path) -> None:
    """An element that is no object is a fault of its own row."""
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"data": {"items": [{"text": "a"}, 3]}}), encoding="utf-8")
    rows = list(read_source(file, PreparerConfig(records_at="data.items")))
    assert rows[0] == Row(1, 0, {"text": "a"})
    assert isinstance(rows[1].value, LineFault)
    with pytest.raises(DataError, match="is no list of records"):
        list(read_source(file, PreparerConfig()))
    with pytest.raises(DataError, match=r"holds nothing at 'data\.rows'"):
        list(read_source(file, PreparerConfig(records_at="data.rows")))


def test_read_source_records_at_with_lines_is_refused(tmp_path: Path) -> None:
    """An option that would do nothing is an error."""
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "a"}\n', encoding="utf-8")
    assert list(read_source(file, PreparerConfig())) == [Row(1, 0, {"text": "a"})]
    with pytest.raises(DataError, match=r"is no \.json file"):
        list(read_source(file, PreparerConfig(records_at="data")))
