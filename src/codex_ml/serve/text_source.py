"""What the service asks of the models behind it; a recipe brings the real one, a test a small one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from codex_ml.generation.requests import Generation, GenerationRequest, StreamedPiece


@dataclass(frozen=True)
class Turn:
    """One message of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class Wish:
    """What a client asks for of an answer; None leaves it to the service."""

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None


class TextSource(Protocol):
    """Models by name. All but `names` is called by one thread only."""

    def names(self) -> tuple[str, ...]:
        """Return what can be asked for."""
        ...

    def request(self, model: str, prompt: str | Sequence[Turn], wish: Wish) -> GenerationRequest:
        """Return the request for a prompt or a chat; a `ValueError` says, without content, why there is none."""
        ...

    def stream(
        self, model: str, requests: Sequence[GenerationRequest], cancelled: Callable[[int], bool]
    ) -> Iterator[StreamedPiece]:
        """Answer requests to one model side by side."""
        ...

    def note(self, name: str, generation: Generation) -> None:
        """Take what became of a request, for the audit."""
        ...
