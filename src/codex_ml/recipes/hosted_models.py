"""A base model and its adapters behind names, as the service asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from codex_ml.config.schema.root import ServeConfig
from codex_ml.data.conversations.messages import Message, MessagesRecord
from codex_ml.data.prompt_process import PromptEncoder
from codex_ml.data.tokenize import RecordTokenizer, answer_ends
from codex_ml.generation.generator import TextGenerator, maximum_positions
from codex_ml.generation.requests import Generation, GenerationRequest, StreamedPiece
from codex_ml.generation.sampling import SamplingSettings
from codex_ml.models.registry import BaseModel
from codex_ml.peft.adapter_set import AdapterSet
from codex_ml.safety.audit import SafetyAudit
from codex_ml.safety.filters import SafetyFilters
from codex_ml.safety.streaming import StreamFilter
from codex_ml.serve.text_source import Turn, Wish

_DEFAULT_NEW_TOKENS = 256


class HostedModels:
    """What answers: each adapter under its name, and the base under its own.

    Parameters
    ----------
    config : ServeConfig
        Names and limits; `generation` is what a request leaves open.
    base : BaseModel
        On its device.
    adapters : mapping
        Name -> directory of an adapter.
    prompts : RecordTokenizer
        Makes tokens of prompts, as in training.
    filters : SafetyFilters
        The policy.
    audit : SafetyAudit
        Takes what is found.
    encoder : PromptEncoder
        Makes tokens of what clients send, as ``prompts`` does, within bounds.

    Raises
    ------
    CodexError
        If an adapter does not fit.
    """

    def __init__(
        self,
        config: ServeConfig,
        base: BaseModel,
        adapters: Mapping[str, Path],
        prompts: RecordTokenizer,
        filters: SafetyFilters,
        audit: SafetyAudit,
        encoder: PromptEncoder,
    ) -> None:
        self._config, self._prompts, self._filters, self._audit = config, prompts, filters, audit
        self._encoder = encoder
        self._adapters = AdapterSet(base.model, adapters)
        self._names = (config.serve.base_name, *adapters)
        self._positions = maximum_positions(base.model)
        self._stop_token_ids = answer_ends(prompts.tokenizer)

    def names(self) -> tuple[str, ...]:
        """Return the base, then the adapters."""
        return self._names

    def request(self, model: str, prompt: str | Sequence[Turn], wish: Wish) -> GenerationRequest:
        """Return the request for a prompt or a chat; the model's name does not matter for it.

        Raises
        ------
        ValueError
            If there is no chat template, the prompt is empty, or it leaves no room for its answer.
        """
        del model
        ids = self._encoder.encode_prompt(prompt) if isinstance(prompt, str) else self._encode_chat(prompt)
        settings = self._config.generation
        return GenerationRequest(
            ids,
            SamplingSettings(
                self._new_tokens(len(ids), wish.max_new_tokens),
                settings.temperature if wish.temperature is None else wish.temperature,
                settings.top_k,
                settings.top_p if wish.top_p is None else wish.top_p,
                wish.stop or settings.stop,
                settings.seed if wish.seed is None else wish.seed,
            ),
        )

    def stream(
        self, model: str, requests: Sequence[GenerationRequest], cancelled: Callable[[int], bool]
    ) -> Iterator[StreamedPiece]:
        """Answer requests with one of the models, behind the filters."""
        name = None if model == self._config.serve.base_name else model
        with self._adapters.using(name) as adapted:
            generator = TextGenerator(
                adapted,
                self._prompts.tokenizer,
                filter_prompt=self._filters.apply,
                filter_output=self._filters.apply,
                open_output_stream=partial(StreamFilter, self._filters),
                encode_text=self._encoder.encode_text,
                stop_token_ids=self._stop_token_ids,
            )
            yield from generator.stream(requests, cancelled=cancelled)

    def note(self, name: str, generation: Generation) -> None:
        """Write what the filters found to the audit."""
        for field, findings in (("prompt", generation.prompt_findings), ("output", generation.output_findings)):
            action = "block" if generation.finish_reason == "blocked" else "redact"
            self._audit.record(name, field, findings, action)

    def _encode_chat(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        if not self._prompts.tokenizer.chat_template:
            raise ValueError("this model has no chat template: use /v1/completions")
        messages = tuple(Message.model_validate({"role": turn.role, "content": turn.content}) for turn in turns)
        if messages[-1].role == "assistant":
            raise ValueError("the last message is the assistant's: there is nothing to answer")
        return self._encoder.encode_prompt(MessagesRecord(messages=messages))

    def _new_tokens(self, prompt_length: int, asked: int | None) -> int:
        room = None if self._positions is None else self._positions - prompt_length
        if room is not None and room < (asked or 1):
            raise ValueError(
                f"the prompt has {prompt_length} tokens, which leaves {max(room, 0)} of the {self._positions} "
                f"positions of the model for the answer, and {asked or 1} are needed"
            )
        if asked is not None:
            return asked
        default = self._config.generation.max_new_tokens or _DEFAULT_NEW_TOKENS
        most = min(default, self._config.serve.max_new_tokens)
        return most if room is None else min(most, room)
