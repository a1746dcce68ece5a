"""Prompts, conversations and files of prompts answered by a whole model behind the default policy."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from codex_ml.config.schema.root import GenerateConfig
from codex_ml.data.tokenization.tokenizer import RecordTokenizer
from codex_ml.errors import CodexError, DataError, UserError
from codex_ml.io.atomic import Storage
from codex_ml.recipes.answering import Answerer, GenerateDependencies, open_answerer
from codex_ml.recipes.generate import (
    AnswerFile,
    answer_file,
    answer_prompt,
    check_answer_file,
    hold_conversation,
    row_seed,
)
from codex_ml.runs.listing import BASE, Target

SECRET = "ann.example@hospital.example.org"
PROMPTS = ("The night nurse", "Two trains leave the valley before the rain begins", "How", "ünï")


class Heard:
    """What a job wrote and said."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.lines: list[str] = []

    @property
    def text(self) -> str:
        """All that was written."""
        return "".join(self.pieces)

    def dependencies(self, storage: Storage | None = None) -> GenerateDependencies:
        """Return collaborators that let it be heard."""
        return GenerateDependencies(
            storage=storage or Storage(),
            emit=self.lines.append,
            clock=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            who=lambda: "ann",
        )


@pytest.fixture
def heard() -> Heard:
    """Return an empty one."""
    return Heard()


@pytest.fixture
def config(tmp_path: Path, tiny_llama_directory: Path) -> Callable[..., GenerateConfig]:
    """Return what makes a config; keyword arguments are sections."""

    def make(**sections: Any) -> GenerateConfig:
        return GenerateConfig.model_validate(
            {
                "run": {"output_dir": str(tmp_path / "runs")},
                "model": {"path": str(tiny_llama_directory)},
                **sections,
                "generation": {"max_new_tokens": 12, **sections.get("generation", {})},
            }
        )

    return make


@pytest.fixture
def answerer(config: Callable[..., GenerateConfig], heard: Heard) -> Iterator[Answerer]:
    """Return the base model, greedy."""
    with open_answerer(config(), Target(BASE, None, {}), heard.dependencies()) as opened:
        yield opened


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON Lines."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.splitlines()]


def written(path: Path, values: list[dict[str, Any]]) -> Path:
    """Write rows."""
    path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), "utf-8")
    return path


def test_answer_file_rows_are_those_of_one_prompt_after_the_other(
    answerer: Answerer, heard: Heard, tmp_path: Path
) -> None:
    """Order, text and counts; rows may bring an answer of their own, which nobody reads."""
    source = written(tmp_path / "in.jsonl", [{"prompt": prompt, "id": f"row {prompt}"} for prompt in PROMPTS])
    files = check_answer_file(AnswerFile(source, tmp_path / "out.jsonl"))
    report = answer_file(answerer, files, heard.dependencies())
    alone = []
    for prompt in PROMPTS:
        one = Heard()
        answer_prompt(answerer, prompt, one.pieces.append, one.lines.append)
        alone.append(one.text)
    found = rows(files.output)
    assert [row["text"] + ("" if row["text"].endswith("\n") else "\n") for row in found] == alone
    assert [row["record_id"] for row in found] == [f"in.jsonl:{number}" for number in range(1, 5)]
    assert [row["id"] for row in found] == [f"row {prompt}" for prompt in PROMPTS]
    assert sum(row["generated_tokens"] for row in found) == report["generated_tokens"]
    assert json.loads(files.report.read_bytes()) == report
    assert report["rows"] == {"answered": 4, "prompts_redacted": 0, "texts_redacted": 0}
    assert not (tmp_path / "runs" / "generation").exists()


def test_answer_file_shapes_with_and_without_answer_give_the_prompt_of_training(
    config: Callable[..., GenerateConfig], heard: Heard, tmp_path: Path, tiny_tokenizer: Any
) -> None:
    """Mapped columns, instructions, conversations; packed files."""
    shapes: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
        ({"q": "How"}, {"prompt": "How", "completion": "x"}, {"columns": {"prompt": "q"}}),
        ({"instruction": "Add", "input": "1 and 2"}, {"prompt": "Add\n\n1 and 2\n\n", "completion": "x"}, {}),
        (
            {"messages": [{"role": "user", "content": "How"}]},
            {"messages": [{"role": "user", "content": "How"}, {"role": "assistant", "content": "x"}]},
            {},
        ),
    ]
    from codex_ml.data.records.formats import RecordReader

    for number, (given, trained, data) in enumerate(shapes):
        source = tmp_path / f"{number}.jsonl.gz"
        source.write_bytes(gzip.compress(json.dumps(given).encode() + b"\n"))
        expected = RecordTokenizer(tiny_tokenizer).encode_prompt(RecordReader().read(trained))
        with open_answerer(config(data=data), Target(BASE, None, {}), heard.dependencies()) as opened:
            answer_file(opened, AnswerFile(source, tmp_path / f"{number}.out.jsonl.gz"), heard.dependencies())
        (row,) = rows(tmp_path / f"{number}.out.jsonl.gz")
        assert row["prompt_tokens"] == len(expected)


def test_answer_file_rows_that_cannot_be_answered_are_all_named_and_nothing_is_written(
    answerer: Answerer, heard: Heard, tmp_path: Path
) -> None:
    """Broken, of another shape, too long for the model: by file and line, before anything is generated."""
    source = tmp_path / "in.jsonl"
    source.write_text(
        '{"prompt": "How"}\nnonsense\n{"text": "a"}\n' + json.dumps({"prompt": "word " * 600}) + "\n", "utf-8"
    )
    with pytest.raises(DataError) as caught:
        answer_file(answerer, AnswerFile(source, tmp_path / "out.jsonl"), heard.dependencies())
    block = caught.value.block()
    assert all(f"in.jsonl:{number}" in block for number in (2, 3, 4))
    assert "in.jsonl:1" not in block
    assert "positions" in block
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "runs") == ["in.jsonl"]


def test_answer_file_that_fails_while_it_is_written_leaves_nothing(
    config: Callable[..., GenerateConfig], heard: Heard, tmp_path: Path
) -> None:
    """A disk that is full at the last moment: no output, no report, nothing staged."""

    class Full(Storage):
        def replace(self, source: Path, target: Path) -> None:
            raise OSError(28, "No space left on device", str(source), None, str(target))

    source = written(tmp_path / "in.jsonl", [{"prompt": "How"}])
    dependencies = heard.dependencies(Full())
    with open_answerer(config(), Target(BASE, None, {}), dependencies) as opened, pytest.raises((OSError, CodexError)):
        answer_file(opened, AnswerFile(source, tmp_path / "out.jsonl"), dependencies)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "runs") == ["in.jsonl"]


def test_answer_file_sampled_rows_have_seeds_of_their_own_and_the_same_again(
    config: Callable[..., GenerateConfig], heard: Heard, tmp_path: Path
) -> None:
    """Equal prompts differ in their answers; the batch and a second time change nothing."""
    source = written(tmp_path / "in.jsonl", [{"prompt": "How"}] * 6)
    answers = []
    for number, batch_size in enumerate((1, 4, 4)):
        settings = {"temperature": 1.5, "batch_size": batch_size, "seed": 3}
        files = AnswerFile(source, tmp_path / f"out{number}.jsonl")
        with open_answerer(config(generation=settings), Target(BASE, None, {}), heard.dependencies()) as opened:
            answer_file(opened, files, heard.dependencies())
        answers.append([row["text"] for row in rows(files.output)])
    assert answers[0] == answers[1] == answers[2]
    assert len(set(answers[0])) > 3
    assert len({row_seed(3, f"in.jsonl:{number}") for number in range(100)}) == 100
    assert row_seed(3, "in.jsonl:7") == row_seed(3, "renamed.jsonl:7") != row_seed(4, "in.jsonl:7")


@pytest.mark.safety
def test_answer_file_secret_of_a_prompt_reaches_nothing_that_is_written(
    answerer: Answerer, heard: Heard, tmp_path: Path
) -> None:
    """Not the answers, nor the report, nor the audit, which names rule, row and place."""
    source = written(tmp_path / "in.jsonl", [{"prompt": "How"}, {"prompt": f"Write to {SECRET} now", "id": SECRET}])
    files = AnswerFile(source, tmp_path / "out.jsonl")
    report = answer_file(answerer, files, heard.dependencies())
    log = answerer.log.path
    assert log is not None
    for path in (files.output, files.report, log):
        assert SECRET not in path.read_text("utf-8")
    assert SECRET not in "".join(heard.lines)
    assert [row["prompt_redacted"] for row in rows(files.output)] == [False, True]
    (event,) = rows(log)
    assert (event["record_id"], event["field"], event["offset"], event["action"]) == (
        "in.jsonl:2",
        "prompt",
        len("Write to "),
        "redact",
    )
    assert report["safety"]["findings_by_rule"] == {event["rule_id"]: 1}


@pytest.mark.safety
def test_open_answerer_bypass_is_said_and_noted(
    config: Callable[..., GenerateConfig], heard: Heard, tmp_path: Path
) -> None:
    """Who turned the filters off and why stands in the audit and in the report."""
    source = written(tmp_path / "in.jsonl", [{"prompt": f"Write to {SECRET}"}])
    off = config(safety={"enabled": False, "bypass_reason": "made-up addresses"})
    with open_answerer(off, Target(BASE, None, {}), heard.dependencies()) as opened:
        report = answer_file(opened, AnswerFile(source, tmp_path / "out.jsonl"), heard.dependencies())
        assert opened.log.path is not None
        (event,) = rows(opened.log.path)
    assert (event["kind"], event["stage"], event["reason"], event["who"]) == (
        "safety_bypass",
        "generate",
        "made-up addresses",
        "ann",
    )
    assert report["safety"]["bypasses"][0]["reason"] == "made-up addresses"
    assert any("bypassed" in line for line in heard.lines)


def test_answer_prompt_says_that_an_answer_was_cut(answerer: Answerer, heard: Heard) -> None:
    """The text goes out in pieces; that it met the limit is said beside it. The empty prompt is answered too."""
    answer_prompt(answerer, "How", heard.pieces.append, heard.lines.append)
    assert heard.text.endswith("\n")
    assert any("cut at 12 tokens" in line for line in heard.lines)
    answer_prompt(answerer, "", heard.pieces.append, heard.lines.append)


def test_answer_prompt_limit_left_open_takes_what_the_model_has_room_for(
    config: Callable[..., GenerateConfig], heard: Heard
) -> None:
    """By default 256 tokens or what is left of the positions; a prompt that fills them is refused, and so is a wish."""
    with open_answerer(
        config(generation={"max_new_tokens": None}), Target(BASE, None, {}), heard.dependencies()
    ) as opened:
        positions = opened.positions
        assert positions is not None
        short = opened.request("a", 0)
        assert short.sampling.max_new_tokens == min(256, positions - len(short.prompt_ids))
        long = opened.request("a " * (positions - 100), 0)
        assert long.sampling.max_new_tokens == min(256, positions - len(long.prompt_ids)) < 256
        with pytest.raises(UserError, match="cannot be answered"):
            answer_prompt(opened, "a b c " * positions, heard.pieces.append, heard.lines.append)
    with (
        open_answerer(
            config(generation={"max_new_tokens": positions}), Target(BASE, None, {}), heard.dependencies()
        ) as opened,
        pytest.raises(UserError, match="cannot be answered") as caught,
    ):
        answer_prompt(opened, "a", heard.pieces.append, heard.lines.append)
    assert "generation.max_new_tokens" in caught.value.block()


def test_hold_conversation_each_turn_has_what_was_said_before(answerer: Answerer, heard: Heard) -> None:
    """The prompt of the second turn is the conversation so far; after /reset it is the first turn again."""
    prompts: list[tuple[int, ...]] = []
    original = answerer.generator.stream

    class Recorded:
        """Notes the prompts on their way to the generator."""

        def stream(self, requests: Any) -> Any:
            prompts.extend(request.prompt_ids for request in requests)
            return original(requests)

    answerer.generator = Recorded()  # type: ignore[assignment]
    turns = ["Who?", "  ", "And then?", "/reset", "Who?"]
    hold_conversation(answerer, turns, heard.pieces.append, heard.lines.append, system="Be brief.")
    assert len(prompts) == 3
    assert prompts[2] == prompts[0]
    first, second = (answerer.prompts.decode(ids) for ids in prompts[:2])
    assert "Be brief." in first
    assert second.startswith(first[: first.index("Who?") + 4])
    assert "And then?" in second
    assert len(prompts[1]) > len(prompts[0]) + 4
    assert any("begins anew" in line for line in heard.lines)


@pytest.mark.parametrize(
    ("name", "exists", "match"),
    [("out.csv", False, "name of a table"), ("out.jsonl", True, "exists"), ("no/out.jsonl", False, "no directory")],
)
def test_check_answer_file_refuses_before_anything_is_loaded(
    tmp_path: Path, name: str, exists: bool, match: str
) -> None:
    """A file that is there, another kind of file, a directory that is not there."""
    source = written(tmp_path / "in.jsonl", [{"prompt": "a"}])
    if exists:
        (tmp_path / name).write_text("kept")
    with pytest.raises(UserError, match=match):
        check_answer_file(AnswerFile(source, tmp_path / name))
    with pytest.raises(UserError, match="name one file"):
        check_answer_file(AnswerFile(source, source, overwrite=True))
    with pytest.raises(UserError, match="there is no file"):
        check_answer_file(AnswerFile(tmp_path / "absent", tmp_path / "x.jsonl"))
