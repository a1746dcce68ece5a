"""Real data sets through the command line: some steps each, and an account that adds up."""

from __future__ import annotations

import json
import shutil

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.real_data]


def _train(command_line, directory, *arguments: str):
    answer = command_line.run(
        "train",
        "--config-name=examples/minimal",
        "run.name=real",
        "data.path=null",
        "training.eval_steps=null",
        "training.save_steps=null",
        "training.max_steps=8",
        "training.warmup_steps=2",
        "data.on_overlong=drop",
        "data.max_bad_share=0.9",
        *arguments,
        directory=directory,
    )
    assert answer.returncode == 0, answer.stderr
    (run,) = (directory / "runs").glob("*-real")
    return run


# The example's own template knows user and assistant only; these chats have tools that answer, too.
ANY_ROLE_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ '<|assistant|>' }}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ '<|user|>' + message['role'] + ': ' + message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@pytest.fixture(scope="module")
def any_role_model(repository_root, tmp_path_factory):
    """Return the example's base model with a chat template that takes every role."""
    directory = tmp_path_factory.mktemp("model") / "any-role"
    shutil.copytree(repository_root / "examples" / "minimal" / "model", directory)
    (directory / "chat_template.jinja").write_text(ANY_ROLE_TEMPLATE, encoding="utf-8")
    return directory


def _assert_account_adds_up(run) -> None:
    account = json.loads((run / "data_account.json").read_text())
    for name, split in account["splits"].items():
        records, tokens = split["records"], split["tokens"]
        assert records["read"] == records["kept"] + sum(records["dropped"].values()), name
        assert tokens["tokenised"] == (
            tokens["supervised"] + tokens["masked"] + tokens["truncated"] + tokens["in_dropped_records"]
        ), name
    positions = account["run"]
    assert positions["positions_computed"] == positions["trained"] + positions["masked"] + positions["padding"]


def test_gsm8k_trains_and_evaluates_with_mapped_columns(command_line, tmp_path, real_data):
    """Question as prompt, answer as completion; every record is kept or counted, and the checkpoint is scored."""
    run = _train(
        command_line,
        tmp_path,
        f"data.train={real_data / 'gsm8k' / 'train.jsonl'}",
        f"data.test={real_data / 'gsm8k' / 'test.jsonl'}",
        "data.columns={prompt: question, completion: answer}",
        "data.max_length_tokens=400",
        "training.micro_batch_size=4",
    )
    _assert_account_adds_up(run)
    account = json.loads((run / "data_account.json").read_text())
    assert account["splits"]["train"]["records"]["read"] == 7473
    assert account["splits"]["test"]["records"]["read"] == 1319
    answer = command_line.run(
        "evaluate", "--checkpoint", str(run), "eval.max_records=4", "eval.max_new_tokens=8", directory=tmp_path
    )
    assert answer.returncode == 0, answer.stderr
    assert json.loads(next(run.glob("eval/step-*/results.json")).read_text())["records_scored"] == 4


@pytest.mark.full("data")
@pytest.mark.parametrize(
    ("name", "arguments", "read"),
    [
        (
            "wwdc25",
            ["data.train={}/wwdc25_prompt_completion/train.jsonl", "data.test={}/wwdc25_prompt_completion/valid.jsonl"],
            {"train": 1800, "test": 144},
        ),
        ("e2e_nlg", ["data.path={}/e2e_nlg/devset_prompt_completion.jsonl", "data.split.group_by=prompt"], 4672),
        (
            "chat_toolcall",
            ["data.path={}/chat_toolcall/messages.jsonl", "data.on_overlong=truncate_completion"],
            300,
        ),
        ("self_instruct", ["data.path={}/self_instruct/seed_instruction_input_output.jsonl"], 175),
    ],
)
def test_real_set_trains_evaluates_and_accounts_for_every_row(
    command_line, tmp_path, real_data, any_role_model, name, arguments, read
):
    """Each set trains some steps and is scored; every row is kept or counted, and what is known to overlap is said."""
    run = _train(
        command_line,
        tmp_path,
        f"model.path={any_role_model}",
        "data.max_length_tokens=448",
        "training.micro_batch_size=4",
        *(argument.format(real_data) for argument in arguments),
    )
    _assert_account_adds_up(run)
    splits = json.loads((run / "data_account.json").read_text())["splits"]
    counts = {split: account["records"]["read"] for split, account in splits.items()}
    if isinstance(read, dict):
        assert counts == read
    else:
        assert sum(counts.values()) == read
    answer = command_line.run(
        "evaluate", "--checkpoint", str(run), "eval.max_records=4", "eval.max_new_tokens=8", directory=tmp_path
    )
    assert answer.returncode == 0, answer.stderr
    result = json.loads(next(run.glob("eval/step-*/results.json")).read_text())
    assert result["records_scored"] == 4
    manifest = json.loads((run / "data_splits.json").read_text())["splits"]
    # 16 of its validation rows stand in its training rows too; groups and duplicates never leak from one file.
    assert manifest["test"]["overlap_with_train"] == (16 if name == "wwdc25" else 0)
