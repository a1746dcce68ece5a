"""One request on its way through the service: handed to the thread of the models, and its answer handed back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from codex_ml.generation.requests import Generation
from codex_ml.serve.api_error import ApiError
from codex_ml.serve.text_source import Turn, Wish


@dataclass(frozen=True)
class Piece:
    """New text of an answer."""

    text: str


Event = Piece | Generation | ApiError


class Job:
    """A request and the events of its answer: pieces, then a `Generation` or an `ApiError`.

    Made and read in the event loop; `deliver` and `unwanted` are for the thread of the models.

    Parameters
    ----------
    name : str
        Identifier of the request.
    model : str
        Which model answers.
    prompt : str or sequence of Turn
        What is asked.
    wish : Wish
        How.
    deadline : float
        When, by the clock of the engine, nobody waits for it any longer.
    """

    def __init__(self, name: str, model: str, prompt: str | Sequence[Turn], wish: Wish, deadline: float) -> None:
        self.name, self.model, self.prompt, self.wish, self.deadline = name, model, prompt, wish, deadline
        self._cancelled = False
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    def cancel(self) -> None:
        """Say that nobody waits for the answer."""
        self._cancelled = True

    def unwanted(self, clock: Callable[[], float]) -> bool:
        """Tell whether nobody waits for it: the client left, or its time is over."""
        return self._cancelled or clock() > self.deadline

    def deliver(self, event: Event) -> None:
        """Hand an event to the loop; one that has ended meanwhile needs none."""
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:
            self._cancelled = True

    async def next_event(self) -> Event:
        """Wait for the next event."""
        return await self._events.get()
