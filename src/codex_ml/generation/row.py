"""One answer in the making: tokens become text, stop strings end it, and the filter lets through what may be shown."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from codex_ml.generation.detokenization import Detokenizer, decode
from codex_ml.generation.prompt_filter import FilteredPrompt
from codex_ml.generation.requests import FinishReason, Generation
from codex_ml.generation.sampling import Sampler, SamplingSettings
from codex_ml.generation.stop_strings import StopStrings
from codex_ml.generation.text_filter import OutputStream, TextFilter, allowed_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Row:
    """What became of one request so far.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Makes text of tokens.
    prompt : FilteredPrompt
        The prompt after the filter; a blocked one is an answer that has ended.
    settings : SamplingSettings
        Limit, stop strings, temperature.
    stop_token_ids : collection of int
        Tokens that end the answer and are no part of it.
    stream : OutputStream, optional
        Filters the answer as it comes; without it the answer is filtered as a whole when it is finished.
    streamed : bool
        Whether text is given out as it comes.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt: FilteredPrompt,
        settings: SamplingSettings,
        stop_token_ids: Collection[int],
        *,
        stream: OutputStream | None = None,
        streamed: bool = False,
    ) -> None:
        self.prompt = prompt
        self.sampler = Sampler(settings) if settings.temperature > 0 else None
        self.ended: FinishReason | None = None
        if prompt.token_ids is None:
            self.ended = "blocked"
        elif settings.max_new_tokens == 0:
            self.ended = "length"
        self._tokenizer, self._settings, self._stop_token_ids = tokenizer, settings, stop_token_ids
        self._stream = stream
        self._token_ids: list[int] = []
        # Text token by token costs time, and is needed where somebody reads along or a stop string may come.
        self._detokenizer = Detokenizer(tokenizer) if streamed or settings.stop else None
        self._stops = StopStrings(settings.stop)
        self._said: list[str] = []
        self._shown: list[str] = []

    def take(self, token_id: int) -> str:
        """Take the next token, and return the text that may be shown now; `ended` says whether it was the last."""
        if token_id in self._stop_token_ids:
            self.ended = "stop"
            return ""
        self._token_ids.append(token_id)
        shown = self._show(self._detokenizer.feed(token_id)) if self._detokenizer is not None else ""
        if self.ended is None and len(self._token_ids) == self._settings.max_new_tokens:
            self.ended = "length"
        return shown

    def cancel(self) -> None:
        """End the answer here: nobody waits for it."""
        self.ended = "cancelled"

    def finish(self, filter_output: TextFilter | None) -> tuple[str, Generation]:
        """Return the rest of a streamed answer that may be shown, and the whole result."""
        assert self.ended is not None, "an answer is finished when it has ended"
        rest = self._flush()
        if self._stream is not None:
            return rest, self._streamed_result(self._stream)
        text = "".join(self._said) if self._detokenizer is not None else decode(self._tokenizer, self._token_ids)
        return rest, self._result(text, filter_output)

    def _show(self, text: str) -> str:
        """Return what of a further piece may be shown; a stop string, or a filter that blocks, ends the answer."""
        said = self._stops.feed(text)
        if self._stops.found_at is not None:
            self.ended = "stop"
        return self._filtered(said)

    def _filtered(self, said: str) -> str:
        self._said.append(said)
        shown = said if self._stream is None else self._stream.feed(said)
        if self._stream is not None and self._stream.action not in ("keep", "redact"):
            self.ended = "blocked"
        self._shown.append(shown)
        return shown

    def _flush(self) -> str:
        """Return what was kept back for want of what follows; nothing of an answer that was blocked or given up."""
        if self._detokenizer is None or self.ended in ("blocked", "cancelled"):
            return ""
        rest = ""
        if self._stops.found_at is None:
            # What follows a stop string is not looked at; else the last bytes may still make one.
            rest = self._show(self._detokenizer.close())
            rest += self._filtered(self._stops.close())
        if self._stream is not None and self.ended != "blocked":
            last = self._stream.close()
            if self._stream.action not in ("keep", "redact"):
                self.ended = "blocked"
            self._shown.append(last)
            rest += last
        return rest

    def _streamed_result(self, stream: OutputStream) -> Generation:
        shown, said = "".join(self._shown), "".join(self._said)
        findings = tuple(stream.take_findings())
        # Of an answer that was given up, what was not judged is not given out as tokens either.
        token_ids = self._spelling(said) if shown == said else ()
        return self._generation(shown, token_ids, findings, bool(findings) and shown != said)

    def _result(self, text: str, filter_output: TextFilter | None) -> Generation:
        if filter_output is None:
            return self._generation(text, self._spelling(text), (), False)
        filtered = filter_output(text)
        findings = tuple(filtered.findings)
        allowed = allowed_text(filtered)
        if allowed is None:
            self.ended = "blocked"
            return self._generation("", (), findings, True)
        changed = allowed != text
        return self._generation(allowed, () if changed else self._spelling(text), findings, changed)

    def _spelling(self, text: str) -> tuple[int, ...]:
        """Return the tokens that spell the text, which a stop string may have made shorter."""
        count = len(self._token_ids)
        if self._stops.found_at is not None:
            while count and not text.startswith(decode(self._tokenizer, self._token_ids[:count])):
                count -= 1
        return tuple(self._token_ids[:count])

    def _generation(
        self, text: str, token_ids: tuple[int, ...], findings: tuple[Any, ...], changed: bool
    ) -> Generation:
        assert self.ended is not None
        return Generation(
            text,
            token_ids,
            len(self._token_ids),
            self.ended,
            prompt_findings=self.prompt.findings,
            output_findings=findings,
            redacted=changed,
            prompt_redacted=self.prompt.redacted,
            prompt_token_count=len(self.prompt.token_ids or ()),
        )
