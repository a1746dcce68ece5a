"""Small real tokenizers and files for the tests of the data room."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from chat_families import FAMILIES

if TYPE_CHECKING:
    from dataset_builder import Build
    from transformers import PreTrainedTokenizerFast

SENTENCES = (
    "The lamp stands on the table.",
    "How many cups are there? There are four cups.",
    "user says hello and the assistant answers\n\n\nwith care\n\n\nand\n\n\nmore\n\n\ncare",
    "one two three four five six seven eight nine ten",
)
MARKED_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|role|>' + message['role'] + '\n' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}{{- '\n' -}}"
    "{%- else -%}{{- message['content'] + eos_token + '\n' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|role|>assistant\n' -}}{%- endif -%}"
)
PLAIN_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|role|>' + message['role'] + '\n' + message['content'] + eos_token + '\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|role|>assistant\n' -}}{%- endif -%}"
)
END_OUTSIDE_TEMPLATE = MARKED_TEMPLATE.replace(
    "{{ message['content'] + eos_token }}{% endgeneration %}",
    "{{ message['content'] }}{% endgeneration %}{{- eos_token -}}",
)
NO_END_TEMPLATE = MARKED_TEMPLATE.replace("message['content'] + eos_token", "message['content']")
# Drops the thoughts of earlier turns, as templates of reasoning models do: what was a prefix is one no more.
FORGETFUL_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|role|>' + message['role'] + '\n' -}}"
    "{%- if loop.last -%}{{- message['content'] -}}{%- else -%}{{- message['content'] | upper -}}{%- endif -%}"
    "{{- eos_token -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|role|>assistant\n' -}}{%- endif -%}"
)

MakeTokenizer = Callable[..., "PreTrainedTokenizerFast"]


@pytest.fixture(scope="session")
def chat_templates() -> dict[str, str]:
    """Return chat templates: with marks, without, with faults of several kinds."""
    return {
        "marked": MARKED_TEMPLATE,
        "plain": PLAIN_TEMPLATE,
        "end_outside": END_OUTSIDE_TEMPLATE,
        "no_end": NO_END_TEMPLATE,
        "forgetful": FORGETFUL_TEMPLATE,
    }


@pytest.fixture(scope="session")
def make_tokenizer() -> MakeTokenizer:
    """Return a maker of byte-level BPE tokenizers; padding is the end-of-sequence token, which masks must survive."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|begin|>", "<|end|>", "<|role|>"]

    def train() -> Tokenizer:
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=340,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(SENTENCES, trainer)
        return backend

    trained = train().to_str()

    def make(
        chat_template: str | None = None,
        adds_begin: bool = False,
        adds_end: bool = False,
        eos_token: str | None = "<|end|>",
    ) -> PreTrainedTokenizerFast:
        backend = Tokenizer.from_str(trained)
        if adds_begin or adds_end:
            single = " ".join(["<|begin|>"] * adds_begin + ["$A"] + ["<|end|>"] * adds_end)
            backend.post_processor = processors.TemplateProcessing(
                single=single, special_tokens=[(token, backend.token_to_id(token)) for token in special[:2]]
            )
        named = {"eos_token": eos_token, "pad_token": eos_token} if eos_token else {}
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token="<|begin|>", additional_special_tokens=["<|role|>"], **named
        )
        tokenizer.chat_template = chat_template
        return tokenizer

    return make


@pytest.fixture(scope="session")
def plain_tokenizer(make_tokenizer: MakeTokenizer) -> PreTrainedTokenizerFast:
    """Return a tokenizer that adds no special tokens and has no chat template."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def make_family() -> Callable[[str], PreTrainedTokenizerFast]:
    """Return a maker of tokenizers with a family's template and control tokens: bytes, and nothing merged."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    def make(name: str) -> PreTrainedTokenizerFast:
        family = FAMILIES[name]
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        backend = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        special = [AddedToken(token, special=True, normalized=False) for token in family.special_tokens]
        backend.add_special_tokens(special)
        begin = {"bos_token": family.begin} if family.begin else {}
        # Padding is the end of sequence: what is learned must not depend on it.
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend, eos_token=family.end, pad_token=family.end, **begin
        )
        tokenizer.chat_template = family.template
        return tokenizer

    return make


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes values as JSON Lines, or bytes as they are, and returns the path."""

    def write(content: bytes | list[Any], name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        if not isinstance(content, bytes):
            content = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in content).encode("utf-8")
        path.write_bytes(content)
        return path

    return write


@dataclass(frozen=True)
class FakeFinding:
    """A finding as the pipeline sees it."""

    rule_id: str
    start: int
    length: int


@dataclass(frozen=True)
class FakeFiltered:
    """A filtered text as the pipeline sees it."""

    text: str
    action: str
    findings: tuple[FakeFinding, ...]


@pytest.fixture(scope="session")
def word_filter() -> Callable[[str], FakeFiltered]:
    """Return a filter that acts on the words REDACTME, DROPME and BLOCKME; the data room knows no real one."""

    def apply(text: str) -> FakeFiltered:
        for word, action in (("BLOCKME", "block"), ("DROPME", "drop"), ("REDACTME", "redact")):
            if word in text:
                finding = FakeFinding(action, text.index(word), len(word))
                return FakeFiltered(text.replace(word, f"[{action}]"), action, (finding,))
        return FakeFiltered(text, "keep", ())

    return apply


@pytest.fixture
def read_sources() -> Callable[..., Any]:
    """Return a function that reads the files of a data section to their end: records and files, by split."""
    from codex_ml.data.sources import open_sources

    def read(data: Any) -> Any:
        records: dict[str, list[Any]] = {}
        files: dict[str, Any] = {}
        for source in open_sources(data):
            records |= {name: [] for name in source.splits}
            for name, record in source:
                records[name].append(record)
            files |= dict.fromkeys(source.splits, source.file)
        return SimpleNamespace(records=records, files=files)

    return read


@pytest.fixture
def build(plain_tokenizer: PreTrainedTokenizerFast, word_filter: Callable[[str], FakeFiltered]) -> Build:
    """Return a builder with the plain tokenizer and the word filter."""
    from dataset_builder import Build

    return Build(plain_tokenizer, word_filter)
