"""Requests, answers and errors in the OpenAI format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from codex_ml.generation.requests import Generation


class ApiError(Exception):
    """A request that gets no answer.

    Parameters
    ----------
    status : int
        HTTP status.
    message : str
        What is wrong and what to do; holds no text of the request.
    param : str or None
        The parameter at fault.
    code : str or None
        A word for programs.
    retry_after_seconds : int or None
        When to try again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_seconds = retry_after_seconds

    def body(self) -> dict[str, dict[str, str | None]]:
        """Return the JSON object that the client gets."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Return the headers that go with it."""
        return {} if self.retry_after_seconds is None else {"Retry-After": str(self.retry_after_seconds)}


def too_late() -> ApiError:
    """Return the error of a request whose time is over."""
    return ApiError(504, "the answer took longer than a request may take", code="timeout")


StopString = Annotated[str, Field(min_length=1)]
_DEFAULT_COMPLETION_TOKENS = 16
# Parameters of the interface that are not supported, and the values that ask for nothing.
_NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {
    "best_of": (None, 1),
    "echo": (None, False),
    "frequency_penalty": (None, 0),
    "function_call": (None, "none"),
    "functions": (None, []),
    "logit_bias": (None, {}),
    "logprobs": (None, False),
    "modalities": (None, ["text"]),
    "n": (None, 1),
    "parallel_tool_calls": (None,),
    "presence_penalty": (None, 0),
    "response_format": (None, {"type": "text"}),
    "store": (None, False),
    "suffix": (None, ""),
    "tool_choice": (None, "none"),
    "tools": (None, []),
    "top_logprobs": (None, 0),
}


class StreamOptions(BaseModel):
    """Fields of a streamed answer in addition to the text."""

    model_config = ConfigDict(strict=True, extra="forbid")

    include_usage: bool = False


class ChatMessage(BaseModel):
    """One message of a chat."""

    model_config = ConfigDict(strict=True, extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str


class _Request(BaseModel):
    """What both kinds of requests share."""

    model_config = ConfigDict(strict=True, extra="forbid")

    model: str
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stop: StopString | Annotated[list[StopString], Field(max_length=4)] | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is for stream=true only")
        return self

    def stop_strings(self) -> tuple[str, ...]:
        """Return the stop strings, however they were written."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatRequest(_Request):
    """The body of /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens differ: give one of them")
        return self

    def most_tokens(self) -> int | None:
        """Return the limit on new tokens; None where the request leaves it to the service."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(_Request):
    """The body of /v1/completions: one prompt, as text."""

    prompt: str

    def most_tokens(self) -> int:
        """Return the limit on new tokens; the interface has a default of its own here."""
        return self.max_tokens or _DEFAULT_COMPLETION_TOKENS


Request = TypeVar("Request", bound=_Request)


def parse_request(kind: type[Request], fields: object) -> Request:
    """Return the request that a decoded JSON body makes.

    Raises
    ------
    ApiError
        Status 400: a field is unknown, not supported, or has a value that cannot be used.
    """
    if not isinstance(fields, dict):
        raise ApiError(400, "the body must be a JSON object")
    used = {}
    for name, value in fields.items():
        if name not in _NEUTRAL_VALUES:
            used[name] = value
        elif not _is_neutral(name, value):
            raise ApiError(400, f"{name} is not supported: leave it out", param=name, code="unsupported_parameter")
    try:
        return kind.model_validate(used)
    except ValidationError as error:
        # The error text contains the input: only its location and rule are returned.
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        names = [str(part) for part in first["loc"]]
        if first["type"] == "extra_forbidden":
            # The name is the client's own text and may be anything.
            raise ApiError(400, "a parameter is unknown: leave it out", code="unknown_parameter") from None
        known = names[0] if names else None
        where = f"{known}: " if known else ""
        raise ApiError(400, f"{where}{first['msg']}", param=known, code="invalid_value") from None


def _is_neutral(name: str, value: object) -> bool:
    """Compare with the neutral values; 0 and False are told apart, 0 and 0.0 are not."""
    for neutral in _NEUTRAL_VALUES[name]:
        if value == neutral and isinstance(value, bool) == isinstance(neutral, bool):
            return True
    return False


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
