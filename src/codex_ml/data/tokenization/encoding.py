"""Text encoded within length limits, in this process or in a child that can be stopped."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from codex_ml.data.records.chat import MessagesRecord
from codex_ml.errors import CodexError, ModelError
from codex_ml.io.native_calls import NativePanicError, native_call
from codex_ml.io.stoppable_process import StoppableProcess, WorkerError, WorkerLimitError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# The expressions of Llama 3, GPT-2 and Qwen 2 panic on 10 to 12 million spaces ("retry-limit-in-match over", a bound of
# ten million steps in Oniguruma), and one that looks at each run from every start takes the square of its length.
MAX_TEXT_CHARACTERS = 16 << 20
MAX_SPACE_RUN = 100_000
MAX_WORD_RUN = 2_000_000
# Some tokenizers group digits from the right, which takes the square of the length of a number.
MAX_DIGIT_RUN = 10_000
_SPACE, _WORD, _DIGITS = re.compile(r"\s+"), re.compile(r"\S+"), re.compile(r"\d+")


def check_text(text: str) -> None:
    """Refuse a text that a tokenizer may not survive: by its length, and by its longest run of one kind.

    Raises
    ------
    ValueError
        With lengths only, never the text.
    """
    if len(text) <= MAX_DIGIT_RUN:
        return
    if len(text) > MAX_TEXT_CHARACTERS:
        raise ValueError(
            f"the text is too long for a tokenizer (got {len(text)} characters, expected at most {MAX_TEXT_CHARACTERS})"
        )
    for kind, expression, bound in (
        ("of white space", _SPACE, MAX_SPACE_RUN),
        ("without white space", _WORD, MAX_WORD_RUN),
        ("of digits", _DIGITS, MAX_DIGIT_RUN),
    ):
        length = _run_beyond(text, expression, bound)
        if length:
            raise ValueError(
                f"the text has a run {kind} that is too long for a tokenizer (got {length} characters, "
                f"expected at most {bound})"
            )


def _run_beyond(text: str, expression: re.Pattern[str], bound: int) -> int:
    """Return the length of a run that is longer than the bound; 0 where there is none.

    Such a run takes in a place that is a multiple of the bound, so nothing else of the text is looked at.
    """
    for place in range(0, len(text), bound):
        after = _length_at(expression, text, place)
        if after:
            length = after + _length_at(expression, text[max(0, place - bound) : place][::-1], 0)
            if length > bound:
                return length
    return 0


def _length_at(expression: re.Pattern[str], text: str, place: int) -> int:
    found = expression.match(text, place)
    return 0 if found is None else found.end() - place


def encode(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    add_special_tokens: bool = False,
    split_special_tokens: bool = False,
) -> list[int]:
    """Return the ids of a text.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Makes them.
    text : str
        Within the bounds of `check_text`.
    add_special_tokens : bool
        Whether the tokenizer adds those of its post-processor.
    split_special_tokens : bool
        Whether special tokens that the text spells are read as ordinary text.

    Raises
    ------
    ValueError
        If the text is beyond the bounds, or the tokenizer panics on it; with its length only.
    """
    check_text(text)
    try:
        with native_call():
            encoded = tokenizer(
                text,
                add_special_tokens=add_special_tokens,
                split_special_tokens=split_special_tokens,
                return_attention_mask=False,
                verbose=False,  # the library would warn of long texts; their length is checked and counted here
            )
    except NativePanicError:
        raise ValueError(f"the tokenizer fails on this text of {len(text)} characters") from None
    return [int(index) for index in encoded["input_ids"]]


def decode(
    tokenizer: PreTrainedTokenizerBase,
    token_ids: Sequence[int],
    *,
    skip_special_tokens: bool = False,
) -> str:
    """Return ids as text, as the model sees it: without cleaning up spaces.

    Raises
    ------
    ModelError
        If the tokenizer panics on them.
    """
    try:
        with native_call():
            return str(
                tokenizer.decode(
                    list(token_ids),
                    skip_special_tokens=skip_special_tokens,
                    clean_up_tokenization_spaces=False,
                )
            )
    except NativePanicError:
        raise ModelError(
            "model: the tokenizer cannot decode",
            why=f"its native library panics on {len(token_ids)} token ids",
            fix="copy tokenizer.json again from its source",
            code="TOKENIZER_DECODE_FAILED",
        ) from None


Prompt = str | MessagesRecord

# Known templates and tokenizers take milliseconds for a short prompt, and one or two seconds for a mebibyte.
CPU_SECONDS = 1
_CPU_SECONDS_PER_MEBIBYTE = 4
_WALL_SECONDS = 30.0
_EXTRA_BYTES = 1 << 30
_PROMPT, _RECORD, _PLAIN = b"p", b"m", b"t"
_IDS, _REFUSAL = b"i", b"r"
_ID_TYPE = "I"  # 32 bits on all platforms with Linux


class PromptEncoder(Protocol):
    """Makes token ids of prompts and of plain text, as `RecordTokenizer` does."""

    def encode_prompt(self, prompt: Prompt, /) -> tuple[int, ...]:
        """Return the ids to generate from; a `ValueError` says, without content, why there are none."""
        ...

    def encode_text(self, text: str, /) -> Sequence[int]:
        """Return the ids of ordinary text; a `ValueError` says, without content, why there are none."""
        ...


class PromptProcess:
    """Encodes prompts as another encoder does, in a process that can be stopped.

    Parameters
    ----------
    encoder : PromptEncoder
        Used in the process.
    cpu_seconds : int
        Processor time that a short prompt may take; a longer one may take more.
    """

    def __init__(self, encoder: PromptEncoder, cpu_seconds: int = CPU_SECONDS) -> None:
        self._encoder = encoder
        self._process = StoppableProcess(
            self._answer,
            cpu_seconds=cpu_seconds,
            cpu_seconds_per_mebibyte=_CPU_SECONDS_PER_MEBIBYTE,
            wall_seconds=_WALL_SECONDS,
            extra_bytes=_EXTRA_BYTES,
        )

    def start(self) -> None:
        """Start the process; before the program starts threads, because it is forked.

        Raises
        ------
        CodexError
            If it cannot be started.
        """
        try:
            self._process.start()
        except (WorkerError, OSError) as error:
            raise CodexError(
                "the process that encodes prompts cannot be started",
                why=str(error),
                fix="check the memory and the number of processes (ulimit -u) of this machine, and start again",
                code="TOKENIZER_PROCESS_NOT_STARTED",
            ) from error

    def close(self) -> None:
        """End the process."""
        self._process.close()

    def encode_prompt(self, prompt: Prompt) -> tuple[int, ...]:
        """Return the ids to generate from; called by one thread at a time.

        Raises
        ------
        ValueError
            If the prompt is refused, or takes more time or memory than it is given; without content.
        WorkerError
            If there is no process to encode it, or it failed for a reason that is not the prompt.
        """
        if isinstance(prompt, str):
            return self._ask(_PROMPT + prompt.encode("utf-8", "surrogatepass"))
        return self._ask(_RECORD + prompt.model_dump_json().encode("utf-8"))

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Return the ids of ordinary text; see `encode_prompt`."""
        return self._ask(_PLAIN + text.encode("utf-8", "surrogatepass"))

    def _ask(self, question: bytes) -> tuple[int, ...]:
        try:
            answer = self._process.ask(question)
        except WorkerLimitError as error:
            raise ValueError(f"the chat template or the tokenizer cannot encode this prompt: {error}") from None
        if answer[:1] == _REFUSAL:
            raise ValueError(answer[1:].decode("utf-8"))
        ids = array(_ID_TYPE)
        ids.frombytes(answer[1:])
        return tuple(ids)

    def _answer(self, question: bytes) -> bytes:
        kind, body = question[:1], question[1:]
        try:
            if kind == _RECORD:
                ids: Sequence[int] = self._encoder.encode_prompt(MessagesRecord.model_validate_json(body))
            elif kind == _PROMPT:
                ids = self._encoder.encode_prompt(body.decode("utf-8", "surrogatepass"))
            else:
                ids = self._encoder.encode_text(body.decode("utf-8", "surrogatepass"))
            return _IDS + array(_ID_TYPE, ids).tobytes()
        except ValueError as error:
            return _REFUSAL + str(error).encode("utf-8", "replace")
        except CodexError as error:
            # A template that goes beyond its bounds; what and why hold nothing of the conversation.
            return _REFUSAL + f"{error.what}: {error.why}".encode("utf-8", "replace")
