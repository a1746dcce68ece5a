"""Values that are numbered keep their numbers: within a file, in the logs, and when a run goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from codex_ml.config.compose import compose
from codex_ml.config.validate import validate_train
from codex_ml.errors import CheckpointError
from codex_ml.recipes.inputs import BypassRecorder
from codex_ml.recipes.preparation import Prepared, prepare

pytestmark = [pytest.mark.safety, pytest.mark.slow]

NUMBERED = ("safety.pseudonyms=true", "data.cache_min_bytes=0", "training.save_steps=2", "training.schedule=constant")
PEOPLE = ["ann.miller", "bob.cooper", "eve.archer"]


def address(number: int) -> str:
    """Return one of three addresses."""
    return PEOPLE[number % 3] + "@" + "firm-mail.de"


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Return a file of records with addresses in them."""
    rows = [{"prompt": f"Who is {n}? ", "completion": f"Ask {address(n)} or {address(n * n)}."} for n in range(60)]
    file = tmp_path / "people.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def read(model: Path, records: Path, directory: Path) -> tuple[Prepared, list[str]]:
    """Prepare a run on the records, and return what it is made of and what was said."""
    values = [f"model.path={model}", f"data.train={records}", *NUMBERED]
    config = validate_train(compose("train", "default", None, values, working_directory=directory, environment={}))
    said: list[str] = []
    return prepare(config, said.append, bypass_recorder=BypassRecorder("train")), said


def test_prepare_pseudonyms_number_each_value_alike_in_data_and_logs(
    tiny_llama_directory: Path, records: Path, tmp_path: Path
) -> None:
    """Three addresses have three numbers, in the order of the file, and a log line has the same one."""
    prepared, said = read(tiny_llama_directory, records, tmp_path)
    assert sum("cache" in line for line in said) == 1
    texts = [prepared.tokenizer.decode(record.input_ids) for record in prepared.dataset.require("train")]
    assert len(texts) == 60
    for n, text in enumerate(texts):
        assert f"Ask [REDACTED:email:{n % 3 + 1}] or [REDACTED:email:{n * n % 3 + 1}]." in text
    assert prepared.filters.redact_value({"note": [address(2)]}) == {"note": ["[REDACTED:email:3]"]}
    again, _ = read(tiny_llama_directory, records, tmp_path)
    assert again.dataset.content_digest("train") == prepared.dataset.content_digest("train")


def test_resume_pseudonyms_goes_on_with_the_same_numbers_and_without_a_cache(train_here, records: Path) -> None:
    """The adapter is that of a run that was never stopped; another setting is another run, and is refused."""
    train = replace(train_here, data=records)
    whole = train(*NUMBERED, "training.max_steps=4", "run.name=whole")
    stopped = train(*NUMBERED, "training.max_steps=2", "run.name=stopped")
    onward = (f"run.resume_from={stopped.directory}", "training.max_steps=4")
    resumed = train(*NUMBERED, *onward)
    assert resumed.weights() == whole.weights()
    assert not list(train_here.working_directory.rglob(".token-cache"))
    with pytest.raises(CheckpointError) as caught:
        train(*NUMBERED[1:], *onward, "training.max_steps=6")
    assert "safety.pseudonyms" in caught.value.block()
