"""Make a tiny seeded causal language model with its own tokenizer on disk: the base model of the test suite."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from codex_ml.offline import go_offline

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

KINDS = ("llama", "gpt2")
VOCABULARY_SIZE = 384
MAXIMUM_POSITIONS = 512
LAYERS = 2
HIDDEN_SIZE = {"llama": 48, "gpt2": 32}
# Far above the usual 0.02: an untrained model then has clear favourites that depend on the context, so that a wrong
# mask or position changes what it says. At 0.02 it repeats one token and a test of generation proves nothing.
INITIALIZER_RANGE = 0.3

PAD_TOKEN = "<|pad|>"
BEGIN_TOKEN = "<|begin|>"
END_TOKEN = "<|end|>"
ROLE_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- '<|assistant|>' -}}{%- generation -%}{{- message['content'] + eos_token -}}{%- endgeneration -%}"
    "{%- else -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
SENTENCES = (
    "The night nurse writes the temperature of every patient on the chart at six.",
    "Two trains leave the valley before the rain begins, and one of them is late.",
    "How many apples are left when three of the twelve apples are given away? Nine are left.",
    "Order 4711: two boxes of screws, one hammer, to be sent to the workshop in Aarhus.",
    "A closed network has no door to the street, so the models have to live inside the house.",
    "Question: which colour is the roof of the station? Answer: the roof of the station is red.",
    "The baker counts the loaves in the morning and the coins in the evening.",
    "Grüße aus Köln, à bientôt, and a good day to you all.",
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of `VOCABULARY_SIZE` entries at most, trained on `SENTENCES`.

    Every text round-trips, because all 256 bytes are in the vocabulary. Padding and end-of-sequence are two tokens;
    neither is added by encoding. The chat template marks assistant turns with ``{% generation %}``.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[PAD_TOKEN, BEGIN_TOKEN, END_TOKEN, *ROLE_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD_TOKEN,
        bos_token=BEGIN_TOKEN,
        eos_token=END_TOKEN,
        additional_special_tokens=list(ROLE_TOKENS),
        model_max_length=MAXIMUM_POSITIONS,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_tiny_model(kind: str, output: Path, seed: int = 0) -> Path:
    """Write a model of `LAYERS` layers and its tokenizer into ``output`` as safetensors and return ``output``.

    Parameters
    ----------
    kind : str
        ``"llama"`` (rotary positions, grouped key-value heads) or ``"gpt2"`` (learned positions, Conv1D, tied head).
    output : Path
        Directory to write; made when absent.
    seed : int
        Seed of the random weights; the caller's random state is left as it was.

    Raises
    ------
    ValueError
        If ``kind`` is neither of `KINDS`.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    tokenizer = make_tokenizer()
    token_ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    hidden_size = HIDDEN_SIZE[kind]
    model: PreTrainedModel
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "llama":
            model = LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=len(tokenizer),
                    hidden_size=hidden_size,
                    intermediate_size=2 * hidden_size,
                    num_hidden_layers=LAYERS,
                    num_attention_heads=4,
                    num_key_value_heads=2,
                    max_position_embeddings=MAXIMUM_POSITIONS,
                    initializer_range=INITIALIZER_RANGE,
                    tie_word_embeddings=False,
                    **token_ids,
                )
            )
        else:
            model = GPT2LMHeadModel(
                GPT2Config(
                    vocab_size=len(tokenizer),
                    n_embd=hidden_size,
                    n_layer=LAYERS,
                    n_head=4,
                    n_positions=MAXIMUM_POSITIONS,
                    initializer_range=INITIALIZER_RANGE,
                    resid_pdrop=0.0,
                    embd_pdrop=0.0,
                    attn_pdrop=0.0,
                    **token_ids,
                )
            )
    output.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    return output


def main() -> None:
    """Read the command line and make one model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS, help="architecture of the model")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="directory to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random weights (default: 0)")
    arguments = parser.parse_args()
    go_offline()
    make_tiny_model(arguments.kind, arguments.output, arguments.seed)
    size_bytes = sum(file.stat().st_size for file in arguments.output.iterdir())
    print(f"{arguments.output}: {arguments.kind}, seed {arguments.seed}, {size_bytes:,} bytes")


if __name__ == "__main__":
    main()
