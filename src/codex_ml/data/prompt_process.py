"""Prompts of clients encoded in a process that can be stopped: chat templates and tokenizers are not ours."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Protocol

from codex_ml.data.conversations.messages import MessagesRecord
from codex_ml.errors import CodexError
from codex_ml.stoppable_process import StoppableProcess, WorkerError, WorkerLimitError

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
