"""What goes into the generator and what comes out of it: a request, its result, and the pieces of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from codex_ml.generation.decoding import SamplingSettings

FinishReason = Literal["stop", "length", "blocked", "cancelled"]


@dataclass(frozen=True)
class GenerationRequest:
    """A prompt as tokens, used as they are, and how it is to be answered."""

    prompt_ids: tuple[int, ...]
    sampling: SamplingSettings


@dataclass(frozen=True)
class Generation:
    """What the model said to one prompt.

    Attributes
    ----------
    text : str
        The new text without special tokens and without the stop string, after the output filter.
    token_ids : tuple of int
        The new tokens that spell this text, without stop token and stop string; empty when the filter changed the
        text, because they would still spell what it took out.
    token_count : int
        How many tokens were generated, the stop token not counted, those of a stop string counted, whatever the
        filter did.
    finish_reason : str
        ``"stop"``: a stop token or a stop string came; ``"length"``: the limit came first; ``"blocked"``: the policy
        let the prompt, the answer or the rest of a streamed answer not through; ``"cancelled"``: the caller went away.
    prompt_findings, output_findings : tuple
        What the filters found, for the audit.
    redacted : bool
        Whether the output filter changed the text.
    prompt_redacted : bool
        Whether the prompt filter changed the prompt or took it away.
    prompt_token_count : int
        How many tokens the model was given; 0 when the prompt was blocked.
    """

    text: str
    token_ids: tuple[int, ...]
    token_count: int
    finish_reason: FinishReason
    prompt_findings: tuple[Any, ...] = ()
    output_findings: tuple[Any, ...] = ()
    redacted: bool = False
    prompt_redacted: bool = False
    prompt_token_count: int = 0


@dataclass(frozen=True)
class StreamedPiece:
    """A piece of an answer.

    Attributes
    ----------
    index : int
        Which of the requests it answers.
    text : str
        What is new, after the output filter; may be empty.
    generation : Generation or None
        The whole result, with the last piece of an answer.
    """

    index: int
    text: str
    generation: Generation | None = None
