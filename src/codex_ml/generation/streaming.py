"""Text of one answer as its tokens arrive."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from codex_ml.data.tokenization import encoding
from codex_ml.generation.decoding import Sampler, SamplingSettings, StopStrings
from codex_ml.generation.filters import FilteredPrompt, OutputStream, TextFilter, allowed_text
from codex_ml.generation.requests import FinishReason, Generation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# What a decoder writes for bytes that are no character, or not yet one.
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def decode(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """Return new tokens as text, without special tokens."""
    return encoding.decode(tokenizer, token_ids, skip_special_tokens=True)


class Detokenizer:
    """Gives the text that each further token adds.

    What a token spells may depend on the one before it (a space that only opens a text, bytes that make one character
    together), so tokens are decoded behind some that were already given out, and their text is taken off again. Text
    that ends within a character waits for the rest of it. Where bytes make no character at all, a decoder with byte
    fallback replaces the whole run of them when all are decoded at once; here those that had made one stay.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Decodes.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._token_ids: list[int] = []
        # Tokens from `_context` on are decoded; those before `_given` were given out.
        self._context = self._given = 0

    def feed(self, token_id: int) -> str:
        """Take the next token, and return the text that is certain now; often nothing."""
        self._token_ids.append(token_id)
        new = self._new_text()
        if not new or new.endswith(_REPLACEMENT):
            return ""
        self._context, self._given = self._given, len(self._token_ids)
        return new

    def close(self) -> str:
        """Return the rest: bytes that became no character are shown as such."""
        new = self._new_text()
        self._context = self._given = len(self._token_ids)
        return new

    def _new_text(self) -> str:
        before = decode(self._tokenizer, self._token_ids[self._context : self._given])
        return decode(self._tokenizer, self._token_ids[self._context :])[len(before) :]


# Tokens generated behind a cut to judge it by; fewer where words enough have come.
LOOK_AHEAD_TOKENS = 32
_ENOUGH_WORDS, _WORDS_OF_DIGITS = 3, 8


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
    filter_output : TextFilter, optional
        Judges the end of an answer that is cut; without it nothing is generated beyond the cut.
    look_ahead : int
        Most tokens that may be generated beyond the limit of the answer.
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
        filter_output: TextFilter | None = None,
        look_ahead: int = 0,
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
        # Decoding token by token costs time; it is needed for streams and for stop strings.
        self._detokenizer = Detokenizer(tokenizer) if streamed or settings.stop else None
        self._stops = StopStrings(settings.stop)
        self._said: list[str] = []
        self._shown: list[str] = []
        self._filter_output, self._look_ahead = filter_output, look_ahead
        # What cut the answer while tokens beyond the cut are generated, and how many tokens were the answer's.
        self._cut_by: FinishReason | None = None
        self._counted: int | None = None
        # Characters seen when the limit of tokens was reached behind a stop string.
        self._limit_at: int | None = None

    def take(self, token_id: int) -> str:
        """Take the next token, and return the text that may be shown now; `ended` says whether it was the last."""
        if token_id in self._stop_token_ids:
            return self._conclude(is_end=True)
        self._token_ids.append(token_id)
        shown = ""
        if self._cut_by == "length":
            if self._is_settled():
                self.ended = "length"
            return ""
        if self._cut_by == "stop":
            assert self._detokenizer is not None
            self._stops.feed(self._detokenizer.feed(token_id))
        elif self._detokenizer is not None:
            shown = self._show(self._detokenizer.feed(token_id))
        if self.ended is None and len(self._token_ids) == self._settings.max_new_tokens:
            if self._cut_by is None:
                self._cut("length")
            else:
                self._limit_at = self._stops.length
        if self._cut_by == "stop" and self._is_settled():
            shown += self._conclude(is_end=False)
        return shown

    def _cut(self, reason: FinishReason) -> None:
        """Note what cut the answer; it ends here where nothing is to be judged beyond the cut."""
        self._counted = len(self._token_ids)
        may_look = self._filter_output is not None and (reason == "stop" or self._look_ahead > 0)
        if may_look:
            self._cut_by = reason
        else:
            self.ended = reason

    def _is_settled(self) -> bool:
        """Tell whether enough came behind the cut to judge it."""
        assert self._counted is not None
        beyond = len(self._token_ids) - self._counted
        over_limit = len(self._token_ids) - self._settings.max_new_tokens
        if beyond >= LOOK_AHEAD_TOKENS or over_limit >= self._look_ahead:
            return True
        words = decode(self._tokenizer, self._token_ids[self._counted :]).split()
        has_digits = any(any(map(str.isdigit, word)) for word in words)
        return len(words) > (_WORDS_OF_DIGITS if has_digits else _ENOUGH_WORDS)

    def _conclude(self, *, is_end: bool) -> str:
        """End an answer that needs no more tokens, or take it up again behind a stop string inside a value."""
        if self._cut_by != "stop":
            self.ended = self._cut_by or "stop"
            return ""
        said = "".join(self._said)
        stop_end = len(said) + self._stops.found_length
        passed = max((end for start, end in self._spans(said + self._stops.beyond) if start < stop_end), default=0)
        if passed <= len(said):
            self.ended = "stop"
            return ""
        self._cut_by = None
        shown = self._filtered(self._stops.pass_over(passed, self._limit_at))
        if self.ended is not None:
            return shown
        if self._limit_at is not None:
            self.ended, self._counted = "length", self._settings.max_new_tokens
        elif is_end:
            self.ended, self._counted = "stop", None
        elif self._stops.found_at is not None:
            self._cut("stop")
        else:
            self._counted = None
        return shown

    def _spans(self, text: str) -> list[tuple[int, int]]:
        assert self._filter_output is not None
        return [(found.start, found.start + found.length) for found in self._filter_output(text).findings]

    def _divided_rest(self, text: str) -> str:
        """Return what follows an answer that was cut up to the end of the value that the cut divides; or nothing."""
        if self._filter_output is None or self._counted is None or self._stops.found_at is not None:
            return ""
        whole = decode(self._tokenizer, self._token_ids)
        if len(self._token_ids) == self._counted or not whole.startswith(text):
            return ""
        ends = [end for start, end in self._spans(whole) if start < len(text) < end]
        return whole[len(text) : max(ends)] if ends else ""

    def cancel(self) -> None:
        """End the answer here: nobody waits for it."""
        self.ended = "cancelled"

    def finish(self, filter_output: TextFilter | None) -> tuple[str, Generation]:
        """Return the rest of a streamed answer that may be shown, and the whole result."""
        assert self.ended is not None, "an answer is finished when it has ended"
        rest = self._flush()
        if self._stream is not None:
            return rest, self._streamed_result(self._stream)
        answer_ids = self._token_ids[: self._counted]
        text = "".join(self._said) if self._detokenizer is not None else decode(self._tokenizer, answer_ids)
        return rest, self._result(text, filter_output)

    def _show(self, text: str) -> str:
        """Return what of a further piece may be shown; a stop string, or a filter that blocks, ends the answer."""
        said = self._stops.feed(text)
        if self._stops.found_at is not None and self.ended is None:
            self._cut("stop")
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
        if self._stops.found_at is None and self._limit_at is None:
            # What follows a stop string is not looked at; else the last bytes may still make one.
            rest = self._show(self._detokenizer.close())
            if self._stops.found_at is not None:
                self.ended = "stop"
            rest += self._filtered(self._stops.close())
        if self._stream is not None and self.ended != "blocked":
            divided = self._divided_rest("".join(self._said))
            last = (self._stream.feed(divided) if divided else "") + self._stream.close()
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
        filtered = filter_output(text + self._divided_rest(text))
        findings = tuple(filtered.findings)
        allowed = allowed_text(filtered)
        if allowed is None:
            self.ended = "blocked"
            return self._generation("", (), findings, True)
        changed = allowed != text
        return self._generation(allowed, () if changed else self._spelling(text), findings, changed)

    def _spelling(self, text: str) -> tuple[int, ...]:
        """Return the tokens that spell the text, which a stop string may have made shorter."""
        count = len(self._token_ids) if self._counted is None else self._counted
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
            len(self._token_ids) if self._counted is None else self._counted,
            self.ended,
            prompt_findings=self.prompt.findings,
            output_findings=findings,
            redacted=changed,
            prompt_redacted=self.prompt.redacted,
            prompt_token_count=len(self.prompt.token_ids or ()),
        )
