"""Shapes of models that are trained from scratch, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import LlamaConfig

from codex_ml.registry import Registry


@dataclass(frozen=True)
class LlamaPreset:
    """A llama shape; the vocabulary comes from the tokenizer.

    Parameters
    ----------
    hidden_size, intermediate_size, layers, heads, maximum_positions : int
        Shape of the decoder (Touvron et al. 2023, "LLaMA"); every head has its own key and value.
    initializer_range : float
        Standard deviation of the first weights; a narrow model learns to copy much earlier from larger ones.
    """

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    maximum_positions: int
    initializer_range: float

    def config(self, vocabulary_size: int, token_ids: dict[str, Any]) -> LlamaConfig:
        """Return the transformers configuration for a vocabulary.

        Parameters
        ----------
        vocabulary_size : int
            Rows of the embedding; the output head is tied to it.
        token_ids : dict
            ``bos_token_id``, ``eos_token_id`` and ``pad_token_id`` of the tokenizer.
        """
        return LlamaConfig(
            vocab_size=vocabulary_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=self.maximum_positions,
            initializer_range=self.initializer_range,
            tie_word_embeddings=True,
            **token_ids,
        )


PRESETS: Registry[LlamaPreset] = Registry("model preset", group="codex_ml.model_presets")
PRESETS.register("llama-tiny", LlamaPreset(128, 512, 2, 4, 512, 0.05))
