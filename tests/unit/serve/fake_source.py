"""Models that are none: they say words of the prompt, wait where a test wants it, and break where it wants that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from codex_ml.errors import UserError
from codex_ml.generation.decoding import SamplingSettings
from codex_ml.generation.requests import Generation, GenerationRequest, StreamedPiece
from codex_ml.serve.engine import GenerationParams, Turn


def panic() -> None:
    """Make the tokenizers library panic, as an untrusted expression can."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"(a+)+$|."), "isolated", invert=False)
    tokenizer.encode("a" * 40 + "b")


class FakeSource:
    """Answers a prompt with its own words, one a step, behind the name of the model.

    A prompt "empty" cannot be encoded, "broken" breaks the model, "grows" cannot be answered, "wait" waits for `go`,
    "panic" makes a library written in Rust panic, and "panics" does so in the middle of the answer.
    """

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[str]]] = []
        self.noted: list[str] = []
        self.go = threading.Event()
        self.begun = threading.Event()
        self._prompts: dict[int, str] = {}

    def names(self) -> tuple[str, ...]:
        """Return two models."""
        return ("base", "notes")

    def request(self, model: str, prompt: str | Sequence[Turn], wish: GenerationParams) -> GenerationRequest:
        """Return a request that stands for the prompt."""
        del model
        text = prompt if isinstance(prompt, str) else prompt[-1].content
        if text == "empty":
            raise ValueError("the prompt is empty")
        if text == "panic":
            panic()
        if text == "unknown":
            raise RuntimeError("a fault with text of the client")
        number = len(self._prompts) + 1
        self._prompts[number] = text
        return GenerationRequest((number,), SamplingSettings(wish.max_new_tokens or 100))

    def stream(
        self, model: str, requests: Sequence[GenerationRequest], cancelled: Callable[[int], bool]
    ) -> Iterator[StreamedPiece]:
        """Say a word of each prompt a step."""
        prompts = [self._prompts[request.prompt_ids[0]] for request in requests]
        self.batches.append((model, prompts))
        self.begun.set()
        if "grows" in prompts:
            raise UserError("1 of the prompts does not leave room")
        words = [[f"{model}:", *f"{prompt}".split()] for prompt in prompts]
        said = [0] * len(requests)
        running = set(range(len(requests)))
        while running:
            for index in sorted(running):
                text = ""
                reason = None
                if prompts[index] == "broken" and said[index]:
                    raise RuntimeError("a fault with text of the client")
                if prompts[index] == "panics" and said[index]:
                    panic()
                if prompts[index] == "wait" and said[index]:
                    self.go.wait(0.01)
                    if not self.go.is_set() and not cancelled(index):
                        continue
                if cancelled(index):
                    reason = "cancelled"
                elif said[index] < min(len(words[index]), requests[index].sampling.max_new_tokens):
                    text = words[index][said[index]] + " "
                    said[index] += 1
                else:
                    reason = "stop" if said[index] == len(words[index]) else "length"
                done = None
                if reason is not None:
                    running.remove(index)
                    done = Generation("", (), said[index], reason, prompt_token_count=1)  # type: ignore[arg-type]
                yield StreamedPiece(index, text, done)

    def note(self, name: str, generation: Generation) -> None:
        """Remember whose answer ended, and why."""
        self.noted.append(f"{name} {generation.finish_reason}")


class Counted:
    """Counts answers and failures."""

    def __init__(self) -> None:
        self.answers: list[str] = []
        self.failures: list[str] = []

    def answered(self, model: str, generation: Generation) -> None:
        """Count an answer."""
        self.answers.append(f"{model} {generation.finish_reason}")

    def failed(self, model: str) -> None:
        """Count a failure."""
        self.failures.append(model)
