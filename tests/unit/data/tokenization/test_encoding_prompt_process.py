"""Prompts encoded in another process: equal ids, refusals without content, and templates and tokenizers that hang."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from codex_ml.data.records.chat import Message, MessagesRecord
from codex_ml.data.tokenization.encoding import Prompt, PromptEncoder, PromptProcess
from codex_ml.data.tokenization.tokenizer import RecordTokenizer
from codex_ml.errors import CodexError
from codex_ml.io.stoppable_process import WorkerError

pytestmark = pytest.mark.timeout(300)
LOOP = (
    "{%- for m in messages -%}{%- if 'LOOP' in m['content'] -%}{%- for i in range(99999) -%}{%- for j in range(99999) "
    "-%}{%- for k in range(99999) -%}{%- endfor -%}{%- endfor -%}{%- endfor -%}{%- endif -%}"
    "<{{ m['content'] }}>{%- endfor -%}"
)
Start = Callable[[PromptEncoder], PromptProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts a process for an encoder."""
    with ExitStack() as stack:

        def started(encoder: PromptEncoder) -> PromptProcess:
            process = PromptProcess(encoder)
            process.start()
            stack.enter_context(closing(process))
            return process

        yield started


class _Unguarded:
    """Unchecked encoder whose expression takes exponential time."""

    def __init__(self) -> None:
        self._tokenizer = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
        self._tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"(a+)+$|\w+|."), "isolated", invert=False)

    def encode_prompt(self, prompt: Prompt, /) -> tuple[int, ...]:
        """Encode the words of the prompt."""
        return self.encode_text(str(prompt))

    def encode_text(self, text: str, /) -> tuple[int, ...]:
        """Encode the words of a text."""
        return tuple(self._tokenizer.encode(text).ids)


def _chat(text: str) -> MessagesRecord:
    return MessagesRecord(messages=(Message(role="user", content=text),))


def test_encode_prompt_ids_are_those_of_this_process(start: Start, tiny_tokenizer: Any) -> None:
    """The ids are equal for texts and conversations; a refusal has the same message."""
    prompts = RecordTokenizer(tiny_tokenizer)
    process = start(prompts)
    for prompt in ("What is 3 plus 4?", "\u4e2d \U0001f600\n", _chat("Who?")):
        assert process.encode_prompt(prompt) == prompts.encode_prompt(prompt)
    assert process.encode_text("a <b>") == tuple(prompts.encode_text("a <b>"))
    with pytest.raises(ValueError, match="prompt is empty"):
        process.encode_prompt("")


def test_encode_prompt_endless_template_is_stopped(start: Start, tiny_tokenizer: Any) -> None:
    """The next conversation is rendered in a new worker."""
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = LOOP
    prompts = RecordTokenizer(tokenizer)
    process = start(prompts)
    with pytest.raises(ValueError, match="cannot encode this prompt: it took more than 1 second of"):
        process.encode_prompt(_chat("LOOP"))
    assert process.encode_prompt(_chat("Who?")) == prompts.encode_prompt(_chat("Who?"))


def test_encode_prompt_tokenizer_that_hangs_or_panics_is_stopped(start: Start) -> None:
    """It runs in native code, which no Python exception can interrupt."""
    process = start(_Unguarded())
    for ask in (process.encode_prompt, process.encode_text):
        with pytest.raises(ValueError, match="cannot encode this prompt"):
            ask(("a" * 22 + "b ") * 100_000)
        # An unexpected panic counts as a fault of the encoder, not of the client.
        with pytest.raises(WorkerError, match="failed: PanicException"):
            ask("a" * 40 + "b")
        assert process.encode_prompt("a") == (0,)


def test_start_that_fails_is_explained(tiny_tokenizer: Any) -> None:
    """The error names the cause and the fix, and is no internal error."""
    process = PromptProcess(RecordTokenizer(tiny_tokenizer))
    process.close()
    with pytest.raises(CodexError, match="cannot be started") as caught:
        process.start()
    assert (caught.value.why, caught.value.exit_code) == ("the process for untrusted input was closed", 1)
    assert caught.value.fix
