"""What a preview says of a record is what training does with it, and it shows nothing that the policy forbids."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from codex_ml.config.compose import compose
from codex_ml.config.schema.root import TrainConfig
from codex_ml.config.validate import validate_train
from codex_ml.data.dataset import build_dataset
from codex_ml.data.inspect.offsets import make_manifest, manifest_path
from codex_ml.errors import DataError
from codex_ml.io.atomic import Storage
from codex_ml.models.registry import load_tokenizer
from codex_ml.recipes.data.preview import PreviewedRecord, preview_records, texts_of
from codex_ml.recipes.preparation import open_filters
from tiers import examples


def _write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _config(model: Path, file: Path, *overrides: str) -> TrainConfig:
    return validate_train(
        compose("train", overrides=overrides, extra_values={"model.path": model, "data.path": file}, environment={})
    )


def _preview(model: Path, file: Path, *overrides: str, **options: object) -> list[PreviewedRecord]:
    return list(preview_records(_config(model, file, *overrides), file, **{"count": 100, **options}))


def test_preview_records_tokens_are_those_of_training(tiny_llama_directory: Path, tmp_path: Path) -> None:
    """Ids and supervision of every record, filtered and cut, equal the data set that a run would train on."""
    rows = [
        {"prompt": f"ask {number} joe{number}@acme.org ", "completion": "answer é🎉 " * (number % 5 + 1)}
        for number in range(12)
    ]
    file = _write(tmp_path / "data.jsonl", *rows)
    overrides = ("data.max_length_tokens=40", "data.on_overlong=truncate_completion", "data.split.ratios=[1.0,0.0,0.0]")
    config = _config(tiny_llama_directory, file, *overrides)
    dataset = build_dataset(
        config.data, load_tokenizer(config.model), open_filters(config.safety).apply, lambda *_: None, ["train"]
    )
    expected = [(list(record.input_ids), list(record.supervised)) for record in dataset.require("train")]
    shown = _preview(tiny_llama_directory, file, *overrides)
    assert [
        ([token.token_id for token in record.tokens], [token.supervised for token in record.tokens]) for record in shown
    ] == expected
    assert all("redacted by the safety policy (rules: email)" in record.outcome for record in shown)
    assert any("cut off (data.on_overlong=truncate_completion)" in record.outcome for record in shown)


def test_preview_records_conversation_shows_control_tokens_and_learned_turns(
    tiny_llama_directory: Path, tmp_path: Path
) -> None:
    """Text of all tokens together is the rendered conversation; what is special is marked as such."""
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}] * 2
    (record,) = _preview(tiny_llama_directory, _write(tmp_path / "chat.jsonl", {"messages": turns}))
    learned = "".join(token.text for token in record.tokens if token.supervised)
    assert learned.count("yo") == 2
    assert "hi" not in learned
    special = [token for token in record.tokens if token.special]
    assert special
    assert {token.text for token in special} <= {
        token.content
        for token in load_tokenizer(_config(tiny_llama_directory, tmp_path).model).added_tokens_decoder.values()
    }


def test_preview_records_secret_across_two_fields_is_not_shown(tiny_llama_directory: Path, tmp_path: Path) -> None:
    """Each field is harmless, both together are an address: the text is shown redacted, and no token of it."""
    row = {"prompt": "write to joe@", "completion": "acme.org"}
    (record,) = _preview(tiny_llama_directory, _write(tmp_path / "data.jsonl", row))
    assert record.tokens == ()
    assert "[REDACTED:email]" in record.plain
    assert "acme.org" not in record.plain


def test_preview_records_bypass_shows_no_more_than_the_policy(tiny_llama_directory: Path, tmp_path: Path) -> None:
    """With the filters off for the data, training sees the address and the screen still does not."""
    row = {"prompt": "write to ", "completion": "joe@acme.org"}
    file = _write(tmp_path / "data.jsonl", row)
    (record,) = _preview(tiny_llama_directory, file, "safety.enabled=false", "safety.bypass_reason=test")
    assert "redacted by the safety policy" not in record.outcome
    assert "joe@acme.org" not in record.plain + "".join(token.text for token in record.tokens)


@pytest.mark.parametrize(
    ("action", "said"), [("drop", "dropped by the safety policy"), ("block", "blocks it and stops the run")]
)
def test_preview_records_dropped_or_blocked_record_shows_only_why(
    tiny_llama_directory: Path, tmp_path: Path, action: str, said: str
) -> None:
    """Nothing of such a record is shown, only the rule."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "version: 1\nrules:\n  - id: word\n    kind: phrase\n    description: a word\n"
        f"    phrases: [forbidden]\n    action: {action}\n"
    )
    file = _write(tmp_path / "data.jsonl", {"prompt": "a", "completion": "forbidden word"})
    (record,) = _preview(tiny_llama_directory, file, f"safety.policy={policy}")
    assert said in record.outcome
    assert "rules: word" in record.outcome
    assert (record.tokens, record.plain) == ((), "")


def test_preview_records_overlong_says_what_the_run_would_do(tiny_llama_directory: Path, tmp_path: Path) -> None:
    """An error and a drop, in words; a long record is cut in the middle for the screen unless all of it is wanted."""
    file = _write(tmp_path / "data.jsonl", {"prompt": "a ", "completion": "b c d e " * 400})
    (record,) = _preview(tiny_llama_directory, file)
    assert "stops the run: the record has" in record.outcome
    (record,) = _preview(tiny_llama_directory, file, "data.on_overlong=drop")
    assert record.outcome.startswith("dropped: ")
    (record,) = _preview(tiny_llama_directory, file, "data.max_length_tokens=10000")
    (every,) = _preview(tiny_llama_directory, file, "data.max_length_tokens=10000", whole=True)
    assert (every.left_out, every.head) == (0, len(every.tokens))
    assert record.left_out == len(every.tokens) - 600
    assert [*record.tokens] == [*every.tokens[: record.head], *every.tokens[record.head + record.left_out :]]


def test_preview_records_number_is_the_same_with_and_without_a_manifest(
    tiny_llama_directory: Path, tmp_path: Path
) -> None:
    """The seventh record, read through or by seeking; by seeking, what stands before it may be anything."""
    rows = [{"prompt": f"p{number} ", "completion": f"c{number}"} for number in range(9)]
    file = _write(tmp_path / "data.jsonl", *rows)
    (through,) = _preview(tiny_llama_directory, file, number=7)
    make_manifest(file, manifest_path(file), Storage())
    (sought,) = _preview(tiny_llama_directory, file, number=7)
    assert through.name == "data.jsonl:7"
    assert sought.name.startswith("data.jsonl, record 7 at byte ")
    assert (through.tokens, through.outcome) == (sought.tokens, sought.outcome)
    for manifest_is_there in (True, False):
        with pytest.raises(DataError):
            _preview(tiny_llama_directory, file, number=10)
        if manifest_is_there:
            manifest_path(file).unlink()


def test_preview_records_faulty_line_is_an_error_only_where_it_comes_first(
    tiny_llama_directory: Path, tmp_path: Path
) -> None:
    """Two good records, then a bad line: the two are shown, a third is not."""
    file = _write(tmp_path / "data.jsonl", *({"text": str(number)} for number in range(4)))
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[:2], "{bad\n", *lines[2:]]))
    assert len(_preview(tiny_llama_directory, file, count=2)) == 2
    with pytest.raises(DataError, match=r"data\.jsonl:3"):
        _preview(tiny_llama_directory, file, count=3)


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet=st.sampled_from("ab é🎉漢字\n\ufffd\u0301 <|end|>"), max_size=80))
def test_texts_of_any_text_joined_is_the_text(tiny_tokenizer, text: str) -> None:
    """Characters of several tokens come whole with the last of them, and nothing is lost or doubled."""
    ids = tiny_tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def decode(some: list[int]) -> str:
        return tiny_tokenizer.decode(list(some), clean_up_tokenization_spaces=False)

    assert "".join(texts_of(ids, frozenset(), decode)) == decode(ids)


def test_texts_of_replacement_characters_is_shown_by_each_and_in_linear_time(tiny_tokenizer) -> None:
    """A text that holds U+FFFD itself is shown as it goes: its tokens are looked at in short stretches alone."""
    text = "\ufffd" * 200 + "é\ufffd🎉" * 20
    ids = tiny_tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    looked_at: list[int] = []

    def decode(some: list[int]) -> str:
        looked_at.append(len(some))
        return tiny_tokenizer.decode(list(some), clean_up_tokenization_spaces=False)

    texts = list(texts_of(ids, frozenset(), decode))
    assert "".join(texts) == text
    assert max(map(len, texts)) == 1
    assert max(looked_at) < 30
