"""What a request may ask for: each parameter is used, at its neutral value, or refused; none is ignored in silence."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from codex_ml.serve.api_error import ApiError

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
    """What a streamed answer holds besides the text."""

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
        # The input stands in the error's own text: only the place and the rule are told.
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
