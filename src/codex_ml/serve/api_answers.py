"""Answers as clients of the OpenAI interface read them: whole, or as the events of a stream."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from codex_ml.generation.requests import Generation

DONE = b"data: [DONE]\n\n"
# A policy that lets an answer not through is what the interface calls a content filter.
_FINISH_REASONS = {"stop": "stop", "length": "length", "blocked": "content_filter"}


def event(value: dict[str, Any]) -> bytes:
    """Return a JSON object as one server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode("utf-8") + b"\n\n"


def usage(generation: Generation) -> dict[str, int]:
    """Return the tokens of a request and its answer."""
    return {
        "prompt_tokens": generation.prompt_token_count,
        "completion_tokens": generation.token_count,
        "total_tokens": generation.prompt_token_count + generation.token_count,
    }


@dataclass(frozen=True)
class AnswerShape:
    """How the answer to one request is written.

    Attributes
    ----------
    identifier : str
        Of the request.
    created : int
        Seconds since 1970.
    model : str
        Which model answers.
    is_chat : bool
        Whether a chat is answered, or a prompt completed.
    with_usage : bool
        Whether a stream ends with the tokens it took.
    """

    identifier: str
    created: int
    model: str
    is_chat: bool
    with_usage: bool = False

    def whole(self, text: str, generation: Generation) -> dict[str, Any]:
        """Return the whole answer."""
        said = {"message": {"role": "assistant", "content": text}} if self.is_chat else {"text": text}
        kind = "chat.completion" if self.is_chat else "text_completion"
        return {**self._head(kind), "choices": [self._choice(said, generation)], "usage": usage(generation)}

    def begin(self) -> bytes:
        """Return what a stream opens with: who speaks, in a chat."""
        return event(self._chunk({"delta": {"role": "assistant", "content": ""}}, None)) if self.is_chat else b""

    def piece(self, text: str) -> bytes:
        """Return new text."""
        return event(self._chunk({"delta": {"content": text}} if self.is_chat else {"text": text}, None))

    def end(self, generation: Generation) -> bytes:
        """Return what a stream closes with."""
        last = event(self._chunk({"delta": {}} if self.is_chat else {"text": ""}, generation))
        if self.with_usage:
            last += event({**self._head(self._chunk_kind()), "choices": [], "usage": usage(generation)})
        return last + DONE

    def _chunk(self, said: dict[str, Any], generation: Generation | None) -> dict[str, Any]:
        # Where usage comes at the end, every other event says that it has none.
        none_yet = {"usage": None} if self.with_usage else {}
        return {**self._head(self._chunk_kind()), "choices": [self._choice(said, generation)], **none_yet}

    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self.is_chat else "text_completion"

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.identifier, "object": kind, "created": self.created, "model": self.model}

    @staticmethod
    def _choice(said: dict[str, Any], generation: Generation | None) -> dict[str, Any]:
        reason = None if generation is None else _FINISH_REASONS[generation.finish_reason]
        return {"index": 0, **said, "logprobs": None, "finish_reason": reason}
