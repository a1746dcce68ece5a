"""Properties of divided files: nothing lost, nothing moved, nothing torn apart, every line as it stood."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hypothesis import assume, given
from hypothesis import strategies as st

from codex_ml.data.splits.command import SplitOptions, split_file
from codex_ml.errors import DataError
from tiers import examples

common = examples(40)
texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('\u2028\u2029\x85\r\n"'), max_size=5)
records = st.lists(st.tuples(st.integers(0, 8), texts, st.booleans()), min_size=8, max_size=50)
line_ends = st.lists(st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\r\n \t\n"]), min_size=1, max_size=7)
NAMES = ("first", "second", "third")


def _line(group: int, text: str, ascii_only: bool) -> bytes:
    return json.dumps({"group": group, "text": text}, ensure_ascii=ascii_only).encode("utf-8")


def _divide(content: bytes, options: SplitOptions) -> dict[str, list[bytes]]:
    """Return the lines of each file, ends included; a split that would be empty is of no interest here."""
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "data.jsonl"
        source.write_bytes(content)
        try:
            split_file(source, Path(directory) / "out", options)
        except DataError as error:
            if "no record falls into" not in error.what:
                raise
            assume(False)
        files = {name: (Path(directory) / "out" / f"{name}.jsonl").read_bytes() for name in options.names}
    return {name: [line + b"\n" for line in content.split(b"\n")[:-1]] for name, content in files.items()}


def _options(seed: int, grouped: bool, exact_sizes: bool) -> SplitOptions:
    return SplitOptions((0.5, 0.3, 0.2), NAMES, seed, "group" if grouped else None, exact_sizes)


@common
@given(records, line_ends, st.booleans(), st.booleans(), st.integers(0, 99), st.booleans(), st.booleans())
def test_split_file_union_is_the_input_line_by_line(
    rows: Sequence[tuple[int, str, bool]],
    ends: Sequence[bytes],
    marked: bool,
    last_end: bool,
    seed: int,
    grouped: bool,
    exact_sizes: bool,
) -> None:
    """With CRLF, a byte order mark, empty lines and no last line end: the same lines as often, in the same order."""
    lines = [_line(*row) for row in rows]
    content = b"\xef\xbb\xbf" if marked else b""
    expected = []
    for index, line in enumerate(lines):
        end = ends[index % len(ends)] if last_end or index < len(lines) - 1 else b""
        content += line + end
        expected.append(line + (b"\r\n" if end.startswith(b"\r") else b"\n"))
    written = _divide(content, _options(seed, grouped, exact_sizes))
    assert Counter(line for part in written.values() for line in part) == Counter(expected)
    for part in written.values():
        remaining = iter(expected)
        assert all(line in remaining for line in part)


@common
@given(records, st.integers(0, 99), st.booleans(), st.booleans(), st.randoms(use_true_random=False))
def test_split_file_shuffled_records_do_not_move_and_groups_stay_whole(
    rows: list[tuple[int, str, bool]], seed: int, grouped: bool, exact_sizes: bool, random: object
) -> None:
    """The place in the file decides nothing; what belongs together never stands in two files."""
    lines = [_line(*row) for row in rows]
    options = _options(seed, grouped, exact_sizes)
    before = _divide(b"\n".join(lines), options)
    random.shuffle(lines)
    after = _divide(b"\n".join(lines), options)
    for name in NAMES:
        assert Counter(before[name]) == Counter(after[name])
    for key in ("group", None) if grouped else (None,):
        seen = [{line if key is None else json.loads(line)[key] for line in part} for part in before.values()]
        assert sum(map(len, seen)) == len(set.union(*seen))


@common
@given(records, records, st.integers(0, 99), st.booleans())
def test_split_file_appended_records_move_no_other(
    rows: list[tuple[int, str, bool]], more: list[tuple[int, str, bool]], seed: int, grouped: bool
) -> None:
    """What stood in a file begins that file still when the source has grown."""
    lines, further = [_line(*row) for row in rows], [_line(*row) for row in more]
    options = _options(seed, grouped, exact_sizes=False)
    before = _divide(b"\n".join(lines), options)
    after = _divide(b"\n".join(lines + further), options)
    for name in NAMES:
        assert after[name][: len(before[name])] == before[name]
