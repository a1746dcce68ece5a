"""A byte-level BPE tokenizer trained on prepared records; the same records give the same files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from codex_ml.data.tokenization.encoding import check_text
from codex_ml.errors import DataError
from codex_ml.io.native_calls import NativePanicError, panic_as_error

END_OF_SEQUENCE, PADDING = "<|eos|>", "<|pad|>"
_ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
# The generation marks enclose the text of the assistant and its end token, which are supervised.
_CHAT_TEMPLATE = (
    "{%- for message in messages -%}{%- if message['role'] == 'assistant' -%}"
    "<|assistant|>{% generation %}{{ message['content'] }}{{ eos_token }}{% endgeneration %}"
    "{%- elif message['role'] in ['system', 'user'] -%}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{%- else -%}{{ raise_exception('unknown role: ' + message['role']) }}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)


def train_byte_level_bpe(texts: Iterable[str], vocabulary_size: int, directory: Path) -> None:
    """Train a tokenizer and write it where `transformers` loads it from: ``tokenizer.json``, its config, a template.

    Parameters
    ----------
    texts : iterable of str
        What it learns its merges from.
    vocabulary_size : int
        Special tokens, the 256 bytes, and merges; fewer where the texts hold no more pairs.
    directory : Path
        An existing directory.

    Raises
    ------
    DataError
        If a text is beyond what the library takes.
    """
    from tokenizers import Tokenizer
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[END_OF_SEQUENCE, PADDING, *_ROLES],
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    try:
        with panic_as_error():
            tokenizer.train_from_iterator(map(_bounded, texts), trainer)
    except NativePanicError as error:
        raise DataError(
            "data.prepare: no tokenizer can be trained on these records",
            why=str(error),
            code="TOKENIZER_TRAINING_FAILED",
        ) from None
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_SEQUENCE,
        "pad_token": PADDING,
        "clean_up_tokenization_spaces": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (directory / "chat_template.jinja").write_text(_CHAT_TEMPLATE + "\n", encoding="utf-8")


def _bounded(text: str) -> str:
    try:
        check_text(text)
    except ValueError as error:
        raise DataError(
            f"data.prepare: {error}",
            why="the library that learns the tokenizer would panic, or take very long",
            fix="cut the record into several, or leave it out",
            code="TOKENIZER_TRAINING_REFUSED",
        ) from None
    return text


def texts_of(records: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield every text in some records, also those inside lists and objects, such as the turns of a conversation."""
    pending: list[Any]
    for record in records:
        pending = list(reversed(list(record.values())))
        while pending:
            item = pending.pop()
            if isinstance(item, str):
                yield item
            elif isinstance(item, Mapping):
                pending.extend(reversed(list(item.values())))
            elif isinstance(item, list):
                pending.extend(reversed(item))
