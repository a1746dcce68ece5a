"""Real data sets through the command line: some steps each, and an account that adds up."""

from __future__ import annotations

import json

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
