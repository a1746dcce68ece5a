"""Train the tokenizer of the example's base model on the corpus: byte-level BPE with a chat template.

It adds no token of its own accord: no beginning-of-sequence token exists, and who wants an end-of-sequence token says
so. The same corpus gives the same files on every machine.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

END_OF_SEQUENCE = "<|eos|>"
PADDING = "<|pad|>"
SPECIAL_TOKENS = (END_OF_SEQUENCE, PADDING, "<|system|>", "<|user|>", "<|assistant|>")

# What an assistant says, and the token that ends it, stand between the generation marks: that is what is supervised.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
<|assistant|>{% generation %}{{ message['content'] }}{{ eos_token }}{% endgeneration %}
{%- elif message['role'] in ['system', 'user'] -%}
{{ '<|' + message['role'] + '|>' + message['content'] }}
{%- else -%}
{{ raise_exception('unknown role: ' + message['role']) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|assistant|>
{%- endif -%}
"""


def read_texts(path: Path) -> Iterator[str]:
    """Yield the text of every record of the corpus."""
    with path.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def train_tokenizer(texts: Iterator[str], vocabulary_size: int) -> Tokenizer:
    """Learn the merges; the vocabulary is the special tokens, the 256 bytes and what was merged."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def tokenizer_config(max_length: int) -> dict[str, object]:
    """Give what transformers wants to know beside the tokenizer itself."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_SEQUENCE,
        "pad_token": PADDING,
        "model_max_length": max_length,
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
    }


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=here / "corpus.jsonl", help="text records to learn from")
    parser.add_argument("--output", type=Path, default=here / "tokenizer", help="directory to write")
    parser.add_argument("--vocabulary-size", type=int, default=1152, help="number of tokens, special ones included")
    parser.add_argument("--max-length", type=int, default=512, help="longest sequence the model takes, in tokens")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Train the tokenizer, write its directory and say what was written."""
    arguments = parse_arguments(argv)
    if not arguments.corpus.is_file():
        raise SystemExit(f"{arguments.corpus}: no such file; make_corpus.py writes it")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    tokenizer = train_tokenizer(read_texts(arguments.corpus), arguments.vocabulary_size)
    arguments.output.mkdir(parents=True, exist_ok=True)
    config = json.dumps(tokenizer_config(arguments.max_length), indent=2) + "\n"
    for name, text in (
        ("tokenizer.json", tokenizer.to_str(pretty=True) + "\n"),
        ("tokenizer_config.json", config),
        ("chat_template.jinja", CHAT_TEMPLATE),
    ):
        (arguments.output / name).write_text(text, encoding="utf-8", newline="\n")
    print(f"{arguments.output}: {tokenizer.get_vocab_size()} tokens")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
