"""Terminal output: control characters are escaped, JSON stays valid, and a lost result is an error."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from codex_ml.errors import OutputError
from codex_ml.io.terminal import drop_output, visible, visible_json, visible_name, write_message, write_result

# ESC, BEL, DEL, CSI (C1), two marks that change the text direction, a tag, half a surrogate pair, CR.
CONTROLS = "\x1b\x07\x7f\x9b\u202e\u2066\U000e0041\udce9\r"


@pytest.mark.parametrize("mark", CONTROLS)
def test_visible_control_character_of_any_kind_is_written_as_its_code(mark: str) -> None:
    """No terminal interprets it, and a reader can identify it."""
    shown = visible(f"a{mark}b")
    assert shown.isprintable()
    assert shown == f"a{ascii(mark)[1:-1]}b"


def test_visible_name_line_end_begins_no_line_of_its_own() -> None:
    """A text may have several lines; a name may not, or it could imitate a line of the toolkit."""
    assert visible("a\n\tb") == "a\n\tb"
    assert visible_name(Path("a\nvalid: b\t")) == "a\\nvalid: b\\t"


def test_visible_json_is_json_with_readable_letters_and_no_control_character() -> None:
    """The escapes follow JSON, not Python, so parsing returns the same value."""
    value = {"näme 漢": [CONTROLS, "line\nend"], "ok": None}
    text = visible_json(value)
    assert "näme 漢" in text
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == value


@pytest.fixture
def full_stream() -> Iterator[TextIO]:
    """Return a stream on a full device."""
    with Path("/dev/full").open("w", encoding="utf-8") as stream:
        yield stream
        # The text that a test left in the buffer cannot be written either.
        drop_output(stream)


def test_write_result_without_room_is_an_error_of_its_own(full_stream: TextIO) -> None:
    """A lost result is an error that names standard output."""
    with pytest.raises(OutputError, match="No space left"):
        write_result("a result", stream=full_stream)


def test_write_message_without_room_is_dropped(full_stream: TextIO) -> None:
    """A full disk under the error stream does not end a run."""
    write_message("a message", stream=full_stream)


def test_open_standard_streams_closed_ones_are_the_null_device_and_no_file_gets_their_number(tmp_path) -> None:
    """The next opened file has a descriptor above 2, in this process and in child processes."""
    program = (
        "import os, subprocess, sys\n"
        "from codex_ml.io.terminal import open_standard_streams\n"
        "open_standard_streams()\n"
        "number = os.open('data', os.O_WRONLY | os.O_CREAT)\n"
        "print('lost'); print('lost', file=sys.stderr); assert sys.stdin.read() == ''\n"
        "subprocess.run(['sh', '-c', 'echo lost; echo lost >&2'], check=True)\n"
        "os.write(number, str(number).encode())\n"
    )
    closed = 'exec "$@" <&- >&- 2>&-'
    done = subprocess.run(["sh", "-c", closed, "sh", sys.executable, "-c", program], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert int((tmp_path / "data").read_text("utf-8")) > 2


def test_open_standard_streams_library_text_on_the_error_stream_is_made_visible() -> None:
    """Logs, warnings and tracebacks of libraries bypass our functions but are escaped; a progress bar still works."""
    program = (
        "import logging, sys\n"
        "from codex_ml.io.terminal import open_standard_streams\n"
        "open_standard_streams()\n"
        "logging.getLogger('library').error('bad \\x1b[31m\\x9b\\u202e')\n"
        "sys.stderr.write('\\r10%\\r20%\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stderr.decode() == "bad \\x1b[31m\\x9b\\u202e\n\r10%\r20%\n"
