"""From files to tokenised records: filters, cuts, counts and hard stops."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from codex_ml.config.schema.data import DataSection
from codex_ml.data.manifest import ContentHasher, membership_of, without_membership
from codex_ml.data.pipeline import Dataset, build_dataset
from codex_ml.data.tokenize import TokenizedRecord
from codex_ml.errors import DataError, SafetyError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Write = Callable[..., Path]
Filter = Callable[[str], Any]


def _pairs(count: int, completion: str = "four cups") -> list[dict[str, str]]:
    return [{"prompt": f"How many {number}? ", "completion": completion} for number in range(count)]


class _Build:
    """Builds with one tokenizer and filter, and keeps the findings that were reported."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, filter_text: Filter) -> None:
        self.tokenizer = tokenizer
        self.filter_text = filter_text
        self.findings: list[tuple[str, str, str]] = []

    def __call__(self, splits: tuple[str, ...] = ("train", "valid", "test"), **section: Any) -> Dataset:
        return build_dataset(DataSection(**section), self.tokenizer, self.filter_text, self._note, splits)

    def _note(self, record_id: str, field: str, findings: Any, action: str) -> None:
        self.findings.extend((record_id, f"{field}@{finding.start}", action) for finding in findings)


@pytest.fixture
def build(plain_tokenizer: PreTrainedTokenizerFast, word_filter: Filter) -> _Build:
    """Return a builder with the plain tokenizer and the word filter."""
    return _Build(plain_tokenizer, word_filter)


def test_build_dataset_one_file_is_divided_and_accounted_for(build: _Build, write_jsonl: Write) -> None:
    """Every record is in one split, and the account adds up to the tokens that are there."""
    path = write_jsonl(_pairs(200))
    dataset = build(path=path)
    ids = [record.record_id for records in dataset.splits.values() for record in records]
    assert sorted(ids, key=lambda name: int(name.split(":")[1])) == [f"data.jsonl:{line}" for line in range(1, 201)]
    total = dataset.account.total()
    assert (total.records_read, total.records_kept) == (200, 200)
    assert total.tokens_tokenised == sum(len(r.input_ids) for records in dataset.splits.values() for r in records)
    assert total.tokens_supervised == sum(sum(r.supervised) for records in dataset.splits.values() for r in records)


def test_build_dataset_manifest_finds_the_bytes_of_every_record(build: _Build, write_jsonl: Write) -> None:
    """Offsets lead to the records in the file, and the digest is that of their bytes."""
    path = write_jsonl(_pairs(60))
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


def test_build_dataset_records_spaced_otherwise_are_those_of_train(build: _Build, write_jsonl: Write) -> None:
    """The model sees the same tokens, whatever the JSON looks like; the way out is one that these files have."""
    rows = [{"prompt": f"How many {number}? ", "completion": "four cups"} for number in range(8)]
    train = write_jsonl(rows, "train.jsonl")
    spaced = b"".join(json.dumps(row, separators=(" ,  ", " :  ")).encode() + b"\n" for row in rows)
    valid = write_jsonl(spaced, "valid.jsonl")
    with pytest.raises(DataError) as raised:
        build(train=train, valid=valid)
    assert "8 of 8 records (100.0%) stand in data.train too, token for token (0 byte for byte)" in raised.value.what
    assert "codex-ml data split" in raised.value.fix
    assert "data.split.group_by" not in raised.value.fix
    dataset = build(train=train, valid=valid, max_overlap_share=1.0)
    found = dataset.manifest["splits"]["valid"]
    assert (found["overlap_with_train"], found["content_overlap_with_train"]) == (0, 8)
    (warning,) = dataset.warnings
    assert "8 of 8 records stand in data.train too, token for token" in warning


def test_build_dataset_separate_files_count_their_overlap(build: _Build, write_jsonl: Write) -> None:
    """Records of a later split that stand in train too are counted in the manifest."""
    train = write_jsonl(_pairs(10), "a.jsonl")
    test = write_jsonl([*_pairs(3), {"prompt": "new", "completion": "one"}], "b.jsonl")
    with pytest.raises(DataError, match=r"data\.test: 3 of 4 records \(75\.0%\) stand in data\.train too") as raised:
        build(train=train, test=test)
    assert "data.max_overlap_share allows 50.0%" in raised.value.why
    dataset = build(train=train, test=test, max_overlap_share=0.75)
    assert sorted(dataset.splits) == ["test", "train"]
    assert dataset.manifest["splits"]["test"]["overlap_with_train"] == 3
    assert "split" not in dataset.manifest
    assert len(dataset.warnings) == 1
    assert "data.test: 3 of 4 records stand in data.train too" in dataset.warnings[0]
    same_prompts = build(train=train, test=write_jsonl(_pairs(3, "other"), "c.jsonl"))
    assert same_prompts.warnings == (
        "data.test: the prompts of 3 of 3 records stand in data.train too; codex-ml data split ALL.jsonl --group-by "
        "prompt (one file of all records) keeps records of one prompt together",
    )
    assert build(train=train, test=write_jsonl([{"prompt": "new", "completion": "one"}], "d.jsonl")).warnings == ()


def test_build_dataset_test_alone_is_still_held_against_the_file_of_train(build: _Build, write_jsonl: Write) -> None:
    """An evaluation builds the test split only, and hears of records that were trained on all the same."""
    train = write_jsonl(_pairs(10), "a.jsonl")
    test = write_jsonl([*_pairs(1), *_pairs(9, "new")], "b.jsonl")
    alone = build(("test",), train=train, test=test)
    assert list(alone.splits) == ["test"]
    assert alone.manifest["splits"]["test"]["overlap_with_train"] == 1
    assert "1 of 10 records stand in data.train too" in alone.warnings[0]
    with pytest.raises(DataError, match=r"stand in data\.train too"):
        build(("test",), train=train, test=test, max_overlap_share=0.05)
    train.unlink()
    assert "overlap_with_train" not in build(("test",), train=train, test=test).manifest["splits"]["test"]


def _several(write: Write) -> dict[str, Path]:
    orders = [{"instruction": f"do {n}", "output": "done"} for n in range(80)]
    directory = write([], "empty.jsonl").parent
    for name in ("x", "y"):
        (directory / name).mkdir(exist_ok=True)
    return {
        "notes": write(_pairs(80), "x/data.jsonl"),
        "web": write(_pairs(80, "five cups"), "y/data.jsonl"),
        "orders": write(orders, "orders.jsonl"),
    }


def test_build_dataset_several_files_are_divided_as_each_would_be_alone(build: _Build, write_jsonl: Write) -> None:
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


def test_build_dataset_weights_repeat_and_leave_out_in_train_alone(build: _Build, write_jsonl: Write) -> None:
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


def test_build_dataset_several_files_manifest_finds_the_bytes_of_every_record(
    build: _Build, write_jsonl: Write
) -> None:
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
    build: _Build, write_jsonl: Write, asked: tuple[str, ...]
) -> None:
    """By path or as a copy, and also where an evaluation reads the test split alone."""
    train = write_jsonl(_pairs(10), "a.jsonl")
    for test in (train, write_jsonl(_pairs(10), "b.jsonl")):
        with pytest.raises(DataError, match=r"data\.test and data\.train are the same file, or copies of it"):
            build(asked, train=train, test=test)
    other = write_jsonl(_pairs(10, "nine cups"), "c.jsonl")
    assert len(build(asked, train=train, test=other).splits["test"]) == 10


def test_content_digest_says_what_the_model_sees(build: _Build, write_jsonl: Write) -> None:
    """Equal for equal tokens and supervision; another cut of the same bytes, or another mask, changes it."""
    path = write_jsonl([*_pairs(30), {"prompt": "a " * 40, "completion": "b"}])
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


@pytest.mark.parametrize("bad", ["end", "dropped"])
@pytest.mark.parametrize("split", ["train", "valid"])
def test_build_dataset_sound_split_hides_no_bad_one(build: _Build, write_jsonl: Write, split: str, bad: str) -> None:
    """Each split is judged by itself, however large and sound the other is."""
    other = {"train": "valid", "valid": "train"}[split]
    if bad == "end":
        pairs = [{"prompt": "a ", "completion": f"b{number} " * 50} for number in range(5)]
        reason = f"in the split '{split}' the end-of-sequence token is never supervised"
    else:
        pairs = [*_pairs(5, "two"), *({"prompt": f"x{number}", "completion": "DROPME"} for number in range(5))]
        reason = f"5 of 10 records of the split '{split}' were dropped"
    files = {split: write_jsonl(pairs, "a.jsonl"), other: write_jsonl(_pairs(200), "b.jsonl")}
    with pytest.raises(DataError, match=reason):
        build(**files, max_length_tokens=50, on_overlong="truncate_completion")


def test_build_dataset_redacted_parts_are_marked(
    make_tokenizer: Callable[..., PreTrainedTokenizerFast],
    chat_templates: Mapping[str, str],
    word_filter: Filter,
    write_jsonl: Write,
) -> None:
    """An evaluation has to know which references were changed when they were read: they look whole to it."""
    build = _Build(make_tokenizer(chat_template=chat_templates["plain"]), word_filter)
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

    one = _Build(plain_tokenizer, word_filter)(path=path)
    other = _Build(plain_tokenizer, change_all)(path=path)
    for name in ("train", "valid", "test"):
        assert [r.record_id for r in one.splits[name]] == [r.record_id for r in other.splits[name]]
        assert one.digest(name) == other.digest(name)


def test_build_dataset_redacted_text_is_what_is_trained_and_scored(build: _Build, write_jsonl: Write) -> None:
    """A planted secret is in no id, prompt or reference; its findings are reported by field and offset."""
    path = write_jsonl([{"prompt": "a REDACTME b", "completion": "c REDACTME"}, *_pairs(30)])
    dataset = build(train=path)
    record = dataset.splits["train"][0]
    assert (record.prompt, record.reference) == ("a [redact] b", "c [redact]")
    assert build.tokenizer.decode(record.input_ids) == "a [redact] bc [redact]<|end|>"
    assert build.findings == [
        ("data.jsonl:1", "prompt@2", "redact"),
        ("data.jsonl:1", "completion@2", "redact"),
    ]
    assert dataset.account.splits["train"].records_redacted == 1


def test_build_dataset_dropped_record_is_counted_and_leaves_nothing(build: _Build, write_jsonl: Write) -> None:
    """A record that the policy drops is not tokenised."""
    path = write_jsonl([*_pairs(30), {"prompt": "x", "completion": "DROPME"}])
    dataset = build(train=path)
    assert len(dataset.splits["train"]) == 30
    assert dataset.account.splits["train"].dropped == {"safety_drop": 1}
    assert build.findings == [("data.jsonl:31", "completion@0", "drop")]


def test_build_dataset_blocked_record_stops_with_line_and_rule(build: _Build, write_jsonl: Write) -> None:
    """A hard stop names where and why, and shows nothing."""
    path = write_jsonl([*_pairs(2), {"prompt": "BLOCKME secret", "completion": "x"}])
    with pytest.raises(SafetyError, match=r"data\.jsonl:3: the safety policy blocks prompt \(rule block\)") as caught:
        build(train=path)
    assert "secret" not in caught.value.block()


def test_build_dataset_faulty_lines_are_named_all_at_once(build: _Build, write_jsonl: Write) -> None:
    """Broken JSON, a missing key and an empty completion come in one error."""
    lines = [json.dumps(pair).encode() for pair in _pairs(7)]
    lines[2] = b'{"prompt": "x", "completion": "  "}'
    lines[4] = b'{"prompt": "x"}'
    lines[6] = lines[6][:-3]
    with pytest.raises(DataError) as caught:
        build(train=write_jsonl(b"\n".join(lines)))
    block = caught.value.block()
    assert "data.jsonl:3: completion holds nothing but white space" in block
    assert "data.jsonl:5: key 'completion' is missing (format prompt_completion)" in block
    assert "data.jsonl:7: not valid JSON" in block


def test_build_dataset_overlong_records_stop_by_default(build: _Build, write_jsonl: Write) -> None:
    """Nothing is cut unless it is asked for; every record is named with its length."""
    path = write_jsonl([*_pairs(3), {"prompt": "a " * 40, "completion": "b"}, {"prompt": "b " * 50, "completion": "b"}])
    with pytest.raises(DataError) as caught:
        build(train=path, max_length_tokens=40)
    block = caught.value.block()
    assert "data.jsonl:4: the record has 82 tokens, more than data.max_length_tokens=40" in block
    assert "data.jsonl:5: the record has 102 tokens" in block
    assert "data.on_overlong" in block


def test_build_dataset_empty_prompt_is_no_matter_of_length(build: _Build, write_jsonl: Write) -> None:
    """A record without a prompt is not answered with advice on long ones alone; each kind has its own."""
    path = write_jsonl([{"prompt": "", "completion": "b"}, *_pairs(3), {"prompt": "b " * 50, "completion": "b"}])
    with pytest.raises(DataError) as caught:
        build(train=path, max_length_tokens=40)
    assert "data.jsonl:1: prompt is empty" in caught.value.what
    assert caught.value.fix.startswith("correct these records or leave them out")
    assert "data.max_length_tokens" in caught.value.fix.splitlines()[1]


@pytest.mark.parametrize(
    ("choice", "kept", "dropped"),
    [
        ("drop", 0, {"overlong": 1}),
        ("truncate_prompt_left", 1, {}),
        ("truncate_completion", 0, {"no_supervised_tokens": 1}),
    ],
)
def test_build_dataset_overlong_choices_are_accounted_for(
    build: _Build, write_jsonl: Write, choice: str, kept: int, dropped: Mapping[str, int]
) -> None:
    """What is cut or dropped stands in the account, and a record without a supervised token is never kept."""
    path = write_jsonl([{"prompt": "a " * 40, "completion": "b"}, *_pairs(30)])
    dataset = build(train=path, max_length_tokens=40, on_overlong=choice)
    account = dataset.account.splits["train"]
    assert account.records_kept == 30 + kept
    assert account.dropped == dropped
    assert account.tokens_truncated == 42 * kept
    assert account.tokens_in_dropped == 82 * (1 - kept)
    assert account.records_truncated == kept
    assert all(record.supervised_count for record in dataset.splits["train"])


def test_build_dataset_too_many_dropped_records_stop(build: _Build, write_jsonl: Write) -> None:
    """The share counts all reasons; exactly the allowed share passes."""
    path = write_jsonl([*_pairs(18), {"prompt": "x", "completion": "DROPME"}, {"prompt": "a " * 90, "completion": "b"}])
    section = {"train": path, "max_length_tokens": 60, "on_overlong": "drop"}
    with pytest.raises(DataError, match=r"2 of 20 records of the split 'train' were dropped \(10\.0%\)") as caught:
        build(**section)
    assert "overlong 1, safety_drop 1" in caught.value.why
    assert len(build(**section, max_bad_share=0.1).splits["train"]) == 18


def test_build_dataset_no_supervised_token_stops_with_an_example(
    make_tokenizer: Callable[..., PreTrainedTokenizerFast],
    chat_templates: Mapping[str, str],
    word_filter: Filter,
    write_jsonl: Write,
) -> None:
    """Conversations in which the assistant says nothing teach nothing; the example is filtered."""
    build = _Build(make_tokenizer(chat_template=chat_templates["plain"]), word_filter)
    path = write_jsonl([{"messages": [{"role": "user", "content": "hello REDACTME"}]}] * 5)
    with pytest.raises(DataError, match="no token of the split 'train' is supervised") as caught:
        build(train=path, max_bad_share=1.0)
    assert "data.jsonl:1" in caught.value.why
    assert "hello [redact]<|end|>" in caught.value.why


def test_build_dataset_end_never_supervised_stops_with_an_example(
    make_tokenizer: Callable[..., PreTrainedTokenizerFast],
    chat_templates: Mapping[str, str],
    word_filter: Filter,
    write_jsonl: Write,
) -> None:
    """A chat template that never ends a turn would make a model that never stops."""
    build = _Build(make_tokenizer(chat_template=chat_templates["no_end"]), word_filter)
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "four REDACTME"}]
    with pytest.raises(DataError, match="end-of-sequence token is never supervised") as caught:
        build(train=write_jsonl([{"messages": chat}] * 5))
    assert "⟦four [redact]⟧" in caught.value.why
    assert "{% generation %}" in caught.value.fix


def test_build_dataset_end_cut_off_everywhere_stops(build: _Build, write_jsonl: Write) -> None:
    """Cutting every completion leaves no end to learn; running text is exempt."""
    pairs = [{"prompt": "a ", "completion": "b " * 50}] * 5
    with pytest.raises(DataError, match="end-of-sequence token is never supervised"):
        build(train=write_jsonl(pairs), max_length_tokens=20, on_overlong="truncate_completion")
    texts = write_jsonl([{"text": "b " * 50}] * 5)
    assert len(build(train=texts, max_length_tokens=20, on_overlong="truncate_completion").splits["train"]) == 5


def test_build_dataset_hard_stop_withholds_what_the_policy_refuses(
    plain_tokenizer: PreTrainedTokenizerFast, word_filter: Filter, write_jsonl: Write
) -> None:
    """An example that only as a whole is refused is not shown."""

    def refuse_marks(text: str) -> Any:
        return word_filter("BLOCKME" if "⟦" in text else text)

    pairs = [{"prompt": "a ", "completion": "b " * 50}] * 5
    with pytest.raises(DataError, match="never supervised") as caught:
        _Build(plain_tokenizer, refuse_marks)(
            train=write_jsonl(pairs), max_length_tokens=20, on_overlong="truncate_completion"
        )
    assert "not shown" in caught.value.why


def test_require_empty_or_unnamed_split_says_what_to_do(build: _Build, write_jsonl: Write) -> None:
    """A split that a job needs and that is empty is an error when it is used."""
    dataset = build(path=write_jsonl(_pairs(3)), split={"ratios": [0.999, 0.001, 0.0]})
    assert len(dataset.require("train")) == 3
    with pytest.raises(DataError, match="the split 'valid' has no record") as caught:
        dataset.require("valid")
    assert "data.split.ratios[1]" in caught.value.fix
    with pytest.raises(DataError, match="the split 'test' has no record") as caught:
        dataset.require("test")
    assert "no file or share above 0" in caught.value.why


def test_require_split_of_which_all_was_dropped_says_so(build: _Build, write_jsonl: Write) -> None:
    """The reason is then not the division but the account."""
    dataset = build(
        train=write_jsonl(_pairs(9), "a.jsonl"),
        test=write_jsonl([{"prompt": "x", "completion": "DROPME"}], "b.jsonl"),
        max_bad_share=1.0,
    )
    with pytest.raises(DataError, match="all 1 were dropped"):
        dataset.require("test")


def test_build_dataset_only_asked_splits_are_built(build: _Build, write_jsonl: Write) -> None:
    """Evaluation builds its split alone, and gets the records that a full build would put there."""
    path = write_jsonl(_pairs(100))
    assert build(("test",), path=path).splits == {"test": build(path=path).splits["test"]}


def test_build_dataset_columns_and_instructions_are_read(build: _Build, write_jsonl: Write) -> None:
    """Other names through a mapping; keys that are not read are counted."""
    path = write_jsonl([{"question": "one ", "answer": "two", "id": 1}] * 4)
    dataset = build(train=path, columns={"prompt": "question", "completion": "answer"})
    assert dataset.splits["train"][0].reference == "two"
    file = dataset.account.to_dict()["files"][0]
    assert (file["name"], file["empty_lines"], file["unused_columns"]) == ("data.jsonl", 0, {"id": 4})


def test_build_dataset_group_key_missing_is_named(build: _Build, write_jsonl: Write) -> None:
    """A record without its group would be put anywhere."""
    path = write_jsonl([{"prompt": "a", "completion": "b", "g": 1}, {"prompt": "a", "completion": "b"}])
    with pytest.raises(DataError, match=r"data\.jsonl:2: the group key 'g'"):
        build(path=path, split={"group_by": "g"})


def test_build_dataset_without_a_file_is_an_error(build: _Build) -> None:
    """Nothing named is nothing to train on."""
    with pytest.raises(DataError, match="no file is named"):
        build()


def test_build_dataset_unknown_shape_stops_at_its_first_line(build: _Build, write_jsonl: Write) -> None:
    """Where the format is unknown, one message is enough."""
    with pytest.raises(DataError, match=r"data\.jsonl:1: the line has 'a', which is no format known here") as caught:
        build(train=write_jsonl([{"a": 1}] * 5))
    assert "problems" not in caught.value.block()


def test_build_dataset_template_that_reads_the_clock_is_given_a_recorded_date(
    make_tokenizer: Callable[..., PreTrainedTokenizerFast],
    chat_templates: Mapping[str, str],
    word_filter: Filter,
    write_jsonl: Write,
) -> None:
    """Token ids depend on no day: the date is fixed, in the manifest, and said; data without messages has none."""
    build = _Build(
        make_tokenizer(chat_template="{{ strftime_now('%d %b %Y') }}" + chat_templates["plain"]), word_filter
    )
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "four"}]
    dataset = build(train=write_jsonl([{"messages": chat}] * 5))
    assert build.tokenizer.decode(dataset.splits["train"][0].input_ids).startswith("01 Jan 2026<|role|>user")
    assert dataset.manifest["chat_template_date"] == "2026-01-01"
    assert "it is given 2026-01-01 always" in dataset.warnings[0]
    pairs = build(train=write_jsonl(_pairs(5)))
    assert "chat_template_date" not in pairs.manifest
    assert pairs.warnings == ()
