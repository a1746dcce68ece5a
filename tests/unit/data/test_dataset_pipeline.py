"""From files to tokenised records: splits, weights, overlaps, filters and counts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from dataset_builder import Build, Filter, Write, numbered_pairs

from codex_ml.data.manifest import ContentHasher, membership_of, without_membership
from codex_ml.data.tokenization.tokenizer import TokenizedRecord
from codex_ml.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def test_build_dataset_one_file_is_divided_and_accounted_for(build: Build, write_jsonl: Write) -> None:
    """Every record is in one split, and the account adds up to the tokens that are there."""
    path = write_jsonl(numbered_pairs(200))
    dataset = build(path=path)
    ids = [record.record_id for records in dataset.splits.values() for record in records]
    assert sorted(ids, key=lambda name: int(name.split(":")[1])) == [f"data.jsonl:{line}" for line in range(1, 201)]
    total = dataset.account.total()
    assert (total.records_read, total.records_kept) == (200, 200)
    assert total.tokens_tokenised == sum(len(r.input_ids) for records in dataset.splits.values() for r in records)
    assert total.tokens_supervised == sum(sum(r.supervised) for records in dataset.splits.values() for r in records)


def test_build_dataset_manifest_finds_the_bytes_of_every_record(build: Build, write_jsonl: Write) -> None:
    """Offsets lead to the records in the file, and the digest is that of their bytes."""
    path = write_jsonl(numbered_pairs(60))
    content = path.read_bytes()
    dataset = build(path=path, split={"seed": 3})
    for name, split in dataset.manifest["splits"].items():
        lines = [content[offset : content.index(b"\n", offset)] for offset in split["offsets"]]
        digest = hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest()
        assert split["digest"] == dataset.digest(name) == f"sha256:{digest}"
        assert split["records"] == len(lines) == len(dataset.splits[name])
        assert split["source"]["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert split["source"]["name"] == "data.jsonl"
    assert dataset.manifest["split"]["seed"] == 3
    assert str(path.parent) not in json.dumps(dataset.manifest)


def test_build_dataset_records_spaced_otherwise_are_those_of_train(build: Build, write_jsonl: Write) -> None:
    """The model sees the same tokens, whatever the JSON looks like; the way out is one that these files have."""
    rows = [{"prompt": f"How many {number}? ", "completion": "four cups"} for number in range(8)]
    train = write_jsonl(rows, "train.jsonl")
    spaced = b"".join(json.dumps(row, separators=(" ,  ", " :  ")).encode() + b"\n" for row in rows)
    valid = write_jsonl(spaced, "valid.jsonl")
    with pytest.raises(DataError) as raised:
        build(train=train, valid=valid)
    assert "8 of 8 records (100.0%) also appear in data.train, token for token (0 byte for byte)" in raised.value.what
    assert "codex-ml data split" in raised.value.fix
    assert "data.split.group_by" not in raised.value.fix
    dataset = build(train=train, valid=valid, max_overlap_share=1.0)
    found = dataset.manifest["splits"]["valid"]
    assert (found["overlap_with_train"], found["content_overlap_with_train"]) == (0, 8)
    (warning,) = dataset.warnings
    assert "8 of 8 records also appear in data.train, token for token" in warning


def test_build_dataset_separate_files_count_their_overlap(build: Build, write_jsonl: Write) -> None:
    """Records of a later split that stand in train too are counted in the manifest."""
    train = write_jsonl(numbered_pairs(10), "a.jsonl")
    test = write_jsonl([*numbered_pairs(3), {"prompt": "new", "completion": "one"}], "b.jsonl")
    with pytest.raises(DataError, match=r"data\.test: 3 of 4 records \(75\.0%\) also appear in data\.train") as raised:
        build(train=train, test=test)
    assert "data.max_overlap_share allows 50.0%" in raised.value.why
    dataset = build(train=train, test=test, max_overlap_share=0.75)
    assert sorted(dataset.splits) == ["test", "train"]
    assert dataset.manifest["splits"]["test"]["overlap_with_train"] == 3
    assert "split" not in dataset.manifest
    assert len(dataset.warnings) == 1
    assert "data.test: 3 of 4 records also appear in data.train" in dataset.warnings[0]
    same_prompts = build(train=train, test=write_jsonl(numbered_pairs(3, "other"), "c.jsonl"))
    assert same_prompts.warnings == (
        "data.test: the prompts of 3 of 3 records also appear in data.train; codex-ml data split ALL.jsonl --group-by "
        "prompt (one file of all records) keeps records of one prompt together",
    )
    assert build(train=train, test=write_jsonl([{"prompt": "new", "completion": "one"}], "d.jsonl")).warnings == ()


def test_build_dataset_test_alone_is_still_held_against_the_file_of_train(build: Build, write_jsonl: Write) -> None:
    """An evaluation builds the test split only, and hears of records that were trained on all the same."""
    train = write_jsonl(numbered_pairs(10), "a.jsonl")
    test = write_jsonl([*numbered_pairs(1), *numbered_pairs(9, "new")], "b.jsonl")
    alone = build(("test",), train=train, test=test)
    assert list(alone.splits) == ["test"]
    assert alone.manifest["splits"]["test"]["overlap_with_train"] == 1
    assert "1 of 10 records also appear in data.train" in alone.warnings[0]
    with pytest.raises(DataError, match=r"also appear in data\.train"):
        build(("test",), train=train, test=test, max_overlap_share=0.05)
    train.unlink()
    assert "overlap_with_train" not in build(("test",), train=train, test=test).manifest["splits"]["test"]


def _several(write: Write) -> dict[str, Path]:
    orders = [{"instruction": f"do {n}", "output": "done"} for n in range(80)]
    directory = write([], "empty.jsonl").parent
    for name in ("x", "y"):
        (directory / name).mkdir(exist_ok=True)
    return {
        "notes": write(numbered_pairs(80), "x/data.jsonl"),
        "web": write(numbered_pairs(80, "five cups"), "y/data.jsonl"),
        "orders": write(orders, "orders.jsonl"),
    }


def test_build_dataset_several_files_are_divided_as_each_would_be_alone(build: Build, write_jsonl: Write) -> None:
    """Each in its own shape; a record goes where its bytes send it, whatever files stand beside it."""
    files = _several(write_jsonl)
    dataset = build(files=files)
    for name, called in (("notes", "notes:data.jsonl"), ("web", "web:data.jsonl"), ("orders", "orders.jsonl")):
        alone = build(path=files[name])
        for split, records in alone.splits.items():
            lines = [record.record_id.rpartition(":")[2] for record in records]
            together = [record.record_id for record in dataset.splits[split]]
            assert [each for each in together if each.startswith(f"{called}:")] == [f"{called}:{n}" for n in lines]
    assert dataset.account.total().records_read == 240
    assert [file.name for file in dataset.account.files] == ["notes:data.jsonl", "web:data.jsonl", "orders.jsonl"]


def test_build_dataset_weights_repeat_and_leave_out_in_train_alone(build: Build, write_jsonl: Write) -> None:
    """Twice means twice, a half every other one; valid and test stay as they are, and the account adds up."""
    files = _several(write_jsonl)
    plain = build(files=files)
    weighted = build(files=files, weights={"notes": 2.0, "orders": 0.5})
    for split in ("valid", "test"):
        assert weighted.splits[split] == plain.splits[split]
        assert weighted.manifest["splits"][split]["content_digest"] == plain.manifest["splits"][split]["content_digest"]
    by_file = plain.splits["train"].counts_by_file()
    found = weighted.splits["train"].counts_by_file()
    assert found["notes:data.jsonl"] == 2 * by_file["notes:data.jsonl"]
    assert found["web:data.jsonl"] == by_file["web:data.jsonl"]
    assert 0.25 < found["orders.jsonl"] / by_file["orders.jsonl"] < 0.75
    account = weighted.account.splits["train"]
    assert account.records_repeated == by_file["notes:data.jsonl"]
    assert account.dropped == {"weight": by_file["orders.jsonl"] - found["orders.jsonl"]}
    assert account.records_kept + account.records_repeated == len(weighted.splits["train"])
    assert any("repetitions (data.weights)" in line for line in weighted.account.lines())
    # Left out on purpose is no fault of a record.
    assert build(files=files, weights={"orders": 0.01}, max_bad_share=0.0).account.splits["train"].dropped["weight"]


def test_build_dataset_several_files_manifest_finds_the_bytes_of_every_record(build: Build, write_jsonl: Write) -> None:
    """Each file has its own offsets; a record that is repeated has one, and the digest is over what stands in files."""
    files = _several(write_jsonl)
    dataset = build(files=files, weights={"notes": 3, "web": 1.5})
    for name, split in dataset.manifest["splits"].items():
        hasher = hashlib.sha256()
        assert [part["key"] for part in split["parts"]] == ["files.notes", "files.web", "files.orders"]
        assert [part["weight"] for part in split["parts"]] == ([3.0, 1.5, 1.0] if name == "train" else [1.0, 1.0, 1.0])
        for part in split["parts"]:
            content = files[part["key"].removeprefix("files.")].read_bytes()
            assert part["source"]["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
            for offset in part["offsets"]:
                hasher.update(content[offset : content.index(b"\n", offset)] + b"\n")
        assert split["digest"] == f"sha256:{hasher.hexdigest()}"
        assert split["records"] == sum(part["records"] for part in split["parts"]) == len(dataset.splits[name])
    assert '"offsets"' not in json.dumps(without_membership(dataset.manifest))
    assert len(membership_of(dataset.manifest["splits"]["train"])) == 3
    assert dataset.manifest["split"]["seed"] == 0


@pytest.mark.parametrize("asked", [("train", "valid", "test"), ("test",)])
def test_build_dataset_test_file_that_is_the_file_of_train_is_refused(
    build: Build, write_jsonl: Write, asked: tuple[str, ...]
) -> None:
    """By path or as a copy, and also where an evaluation reads the test split alone."""
    train = write_jsonl(numbered_pairs(10), "a.jsonl")
    for test in (train, write_jsonl(numbered_pairs(10), "b.jsonl")):
        with pytest.raises(DataError, match=r"data\.test and data\.train are the same file, or copies of it"):
            build(asked, train=train, test=test)
    other = write_jsonl(numbered_pairs(10, "nine cups"), "c.jsonl")
    assert len(build(asked, train=train, test=other).splits["test"]) == 10


def test_content_digest_says_what_the_model_sees(build: Build, write_jsonl: Write) -> None:
    """Equal for equal tokens and supervision; another cut of the same bytes, or another mask, changes it."""
    path = write_jsonl([*numbered_pairs(30), {"prompt": "a " * 40, "completion": "b"}])
    whole = build(train=path)
    assert whole.content_digest("train") == build(train=path).content_digest("train")
    cut = build(train=path, max_length_tokens=60, on_overlong="truncate_prompt_left")
    assert cut.digest("train") == whole.digest("train")
    assert cut.content_digest("train") != whole.content_digest("train")
    records = whole.splits["train"]
    unlearned = replace(records[0], supervised=(False,) * len(records[0].input_ids))
    assert _content_digest(records) == whole.content_digest("train") != _content_digest([unlearned, *records[1:]])


def _content_digest(records: Iterable[TokenizedRecord]) -> str:
    hasher = ContentHasher()
    for record in records:
        hasher.add(record)
    return hasher.digest()


def test_build_dataset_redacted_parts_are_marked(
    make_tokenizer: Callable[..., PreTrainedTokenizerFast],
    chat_templates: Mapping[str, str],
    word_filter: Filter,
    write_jsonl: Write,
) -> None:
    """An evaluation has to know which references were changed when they were read: they look whole to it."""
    build = Build(make_tokenizer(chat_template=chat_templates["plain"]), word_filter)
    texts = [("a", "b"), ("REDACTME", "b"), ("a", "REDACTME"), ("REDACTME", "REDACTME")]
    expected = [(False, False), (True, False), (False, True), (True, True)]

    def marks(values: list[Any]) -> list[tuple[bool, bool]]:
        records = build(train=write_jsonl(values)).splits["train"]
        return [(record.prompt_redacted, record.reference_redacted) for record in records]

    assert marks([{"prompt": prompt, "completion": answer} for prompt, answer in texts]) == expected
    turns = [[("user", "x"), ("assistant", first), ("user", "y"), ("assistant", last)] for first, last in texts]
    turns.append([("user", "x"), ("assistant", "y"), ("user", "REDACTME")])
    chats = [{"messages": [{"role": role, "content": text} for role, text in chat]} for chat in turns]
    assert marks(chats) == [*expected, (False, False)]
    assert marks([{"text": "REDACTME one"}]) == [(False, False)]


def test_build_dataset_safety_policy_moves_no_record_between_splits(
    plain_tokenizer: PreTrainedTokenizerFast, word_filter: Filter, write_jsonl: Write
) -> None:
    """The division looks at the bytes of the file, not at what the filters leave."""
    path = write_jsonl([{"prompt": f"REDACTME {number} ", "completion": "one"} for number in range(100)])

    def change_all(text: str) -> Any:
        return word_filter(text.replace("1", "REDACTME"))

    one = Build(plain_tokenizer, word_filter)(path=path)
    other = Build(plain_tokenizer, change_all)(path=path)
    for name in ("train", "valid", "test"):
        assert [r.record_id for r in one.splits[name]] == [r.record_id for r in other.splits[name]]
        assert one.digest(name) == other.digest(name)


def test_build_dataset_redacted_text_is_what_is_trained_and_scored(build: Build, write_jsonl: Write) -> None:
    """A planted secret is in no id, prompt or reference; its findings are reported by field and offset."""
    path = write_jsonl([{"prompt": "a REDACTME b", "completion": "c REDACTME"}, *numbered_pairs(30)])
    dataset = build(train=path)
    record = dataset.splits["train"][0]
    assert (record.prompt, record.reference) == ("a [redact] b", "c [redact]")
    assert build.tokenizer.decode(record.input_ids) == "a [redact] bc [redact]<|end|>"
    assert build.findings == [
        ("data.jsonl:1", "prompt@2", "redact"),
        ("data.jsonl:1", "completion@2", "redact"),
    ]
    assert dataset.account.splits["train"].records_redacted == 1


def test_require_empty_or_unnamed_split_says_what_to_do(build: Build, write_jsonl: Write) -> None:
    """A split that a job needs and that is empty is an error when it is used."""
    dataset = build(path=write_jsonl(numbered_pairs(3)), split={"ratios": [0.999, 0.001, 0.0]})
    assert len(dataset.require("train")) == 3
    with pytest.raises(DataError, match="the split 'valid' has no record") as caught:
        dataset.require("valid")
    assert "data.split.ratios[1]" in caught.value.fix
    with pytest.raises(DataError, match="the split 'test' has no record") as caught:
        dataset.require("test")
    assert "no file or share above 0" in caught.value.why


def test_require_split_of_which_all_was_dropped_says_so(build: Build, write_jsonl: Write) -> None:
    """The reason is then not the division but the account."""
    dataset = build(
        train=write_jsonl(numbered_pairs(9), "a.jsonl"),
        test=write_jsonl([{"prompt": "x", "completion": "DROPME"}], "b.jsonl"),
        max_bad_share=1.0,
    )
    with pytest.raises(DataError, match="all 1 were dropped"):
        dataset.require("test")


def test_build_dataset_only_asked_splits_are_built(build: Build, write_jsonl: Write) -> None:
    """Evaluation builds its split alone, and gets the records that a full build would put there."""
    path = write_jsonl(numbered_pairs(100))
    assert build(("test",), path=path).splits == {"test": build(path=path).splits["test"]}


def test_build_dataset_columns_and_instructions_are_read(build: Build, write_jsonl: Write) -> None:
    """Other names through a mapping; keys that are not read are counted."""
    path = write_jsonl([{"question": "one ", "answer": "two", "id": 1}] * 4)
    dataset = build(train=path, columns={"prompt": "question", "completion": "answer"})
    assert dataset.splits["train"][0].reference == "two"
    file = dataset.account.to_dict()["files"][0]
    assert (file["name"], file["empty_lines"], file["unused_columns"]) == ("data.jsonl", 0, {"id": 4})


def test_build_dataset_template_that_reads_the_clock_is_given_a_recorded_date(
    make_tokenizer: Callable[..., PreTrainedTokenizerFast],
    chat_templates: Mapping[str, str],
    word_filter: Filter,
    write_jsonl: Write,
) -> None:
    """Token ids depend on no day: the date is fixed, in the manifest, and said; data without messages has none."""
    build = Build(make_tokenizer(chat_template="{{ strftime_now('%d %b %Y') }}" + chat_templates["plain"]), word_filter)
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "four"}]
    dataset = build(train=write_jsonl([{"messages": chat}] * 5))
    assert build.tokenizer.decode(dataset.splits["train"][0].input_ids).startswith("01 Jan 2026<|role|>user")
    assert dataset.manifest["chat_template_date"] == "2026-01-01"
    assert "it is given 2026-01-01 always" in dataset.warnings[0]
    pairs = build(train=write_jsonl(numbered_pairs(5)))
    assert "chat_template_date" not in pairs.manifest
    assert pairs.warnings == ()
