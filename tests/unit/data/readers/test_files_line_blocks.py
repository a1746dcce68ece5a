"""Lines cut out of blocks: the same as cut out of the whole, with a bound on memory."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codex_ml.data.readers.files import lines_of
from tiers import examples


class _Dripping(io.BytesIO):
    """A stream that gives a few bytes at a time, however many are asked for."""

    def __init__(self, content: bytes, most: int) -> None:
        super().__init__(content)
        self._most = most

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(self._most, size or self._most))


def _cut(content: bytes, most: int) -> list[tuple[int, bytes | None, bytes]]:
    """Return what `lines_of` promises, worked out on the whole content at once."""
    expected: list[tuple[int, bytes | None, bytes]] = []
    offset = 0
    for line in content.split(b"\n"):
        has_end = offset + len(line) < len(content)
        if not line and not has_end:
            break
        is_pair = has_end and line.endswith(b"\r")
        raw = line[:-1] if is_pair else line
        expected.append((offset, raw if len(raw) <= most else None, b"\r\n" if is_pair else b"\n" if has_end else b""))
        offset += len(line) + 1
    return expected


@examples(300)
@given(st.text("ab\r\n", max_size=40).map(str.encode), st.integers(1, 9), st.integers(0, 8))
def test_lines_of_any_blocks_equal_the_whole(content: bytes, block_bytes: int, most: int) -> None:
    """Wherever the borders of blocks fall: offsets, bytes, line ends, and what is too long."""
    taken: list[bytes] = []
    found = list(lines_of(_Dripping(content, block_bytes), taken.append, most))
    assert b"".join(taken) == content
    expected = _cut(content, most)
    assert [(offset, raw) for offset, raw, _ in found] == [(offset, raw) for offset, raw, _ in expected]
    # The end of a line that is not kept is not looked at closely.
    assert [end for _, raw, end in found if raw is not None] == [end for _, raw, end in expected if raw is not None]


@pytest.mark.parametrize("content", [b"x" * 5_000_000, b"x" * 5_000_000 + b"\ny\n"])
def test_lines_of_endless_line_is_not_kept(content: bytes) -> None:
    """A line far beyond the bound is passed over block by block; the next one is found."""
    found = list(lines_of(io.BytesIO(content), lambda _block: None, 1000))
    assert found[0][:2] == (0, None)
    assert [raw for _, raw, _ in found[1:]] == ([b"y"] if content.endswith(b"\n") else [])
