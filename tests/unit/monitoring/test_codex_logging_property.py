"""Properties of rotation and rewinding for random records, sizes and interruptions."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from codex_ml.monitoring.codex_logging import NdjsonWriter, ndjson_files, no_redaction, read_ndjson, truncate_after_step
from tiers import examples

texts = st.lists(st.text(max_size=60), max_size=25)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@examples(60)
@given(texts=texts, max_bytes=st.integers(1, 400), reopen=st.integers(1, 6), torn=st.binary(max_size=30))
def test_rotation_random_sizes_no_line_lost_cut_or_doubled(
    texts: list[str], max_bytes: int, reopen: int, torn: bytes
) -> None:
    """Whatever the sizes, and with the writer killed in mid-line every few records, all lines come back once."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.ndjson"
        for start in range(0, len(texts), reopen):
            with NdjsonWriter(path, max_bytes, redact=no_redaction) as writer:
                for number, text in enumerate(texts[start : start + reopen], start=start):
                    writer.write({"number": number, "text": text})
            with path.open("ab") as handle:
                handle.write(torn.replace(b"\n", b""))
        assert [(r["number"], r["text"]) for r in read_ndjson(path)] == list(enumerate(texts))
        for file in ndjson_files(path)[:-1]:
            content = file.read_bytes()
            assert content.endswith(b"\n")
            assert len(content) <= max_bytes or content.count(b"\n") == 1


@examples(40)
@given(
    steps=st.lists(st.none() | st.integers(0, 20), max_size=25),
    cut=st.integers(0, 20),
    max_bytes=st.integers(60, 400),
)
def test_truncate_after_step_random_steps_keeps_exactly_the_rest(
    steps: list[int | None], cut: int, max_bytes: int
) -> None:
    """Only lines of later steps go, in their order, and doing it twice changes nothing."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.ndjson"
        with NdjsonWriter(path, max_bytes, redact=no_redaction) as writer:
            for step in steps:
                writer.write({} if step is None else {"step": step})
        kept = [step for step in steps if step is None or step <= cut]
        assert truncate_after_step(path, cut) == len(steps) - len(kept)
        assert [record.get("step") for record in read_ndjson(path)] == kept
        assert truncate_after_step(path, cut) == 0


@examples(80)
@given(value=json_values)
def test_write_any_json_value_is_one_strict_json_line(value: object) -> None:
    """Any value makes one line that a strict reader takes."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.ndjson"
        with NdjsonWriter(path, redact=no_redaction) as writer:
            writer.write({"value": value})
        content = path.read_bytes()
        assert content.count(b"\n") == 1

        def refuse(name: str) -> None:
            raise AssertionError(f"{name} is not JSON")

        assert "value" in json.loads(content, parse_constant=refuse)
