"""Conversations rendered by the tokenizer's chat template, assistant turns marked, and cut for tokenising."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from codex_ml.data.records import Message
from codex_ml.data.template_guard import check_template, render_guarded
from codex_ml.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]

_GENERATION_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
# The date that a template is given for today. Token ids must not depend on the day on which a run is resumed.
TEMPLATE_DATE = datetime(2026, 1, 1, tzinfo=UTC)
_CLOCK_CALL = re.compile(r"""strftime_now\(\s*(['"])([^'"\\]*)\1\s*\)""")
_CLOCK_OTHERWISE = re.compile(r"strftime_now(?!\s+is\b)")
# Supplementary private use area: unassigned by Unicode, so that one of them is absent from any real conversation.
_MARKER_CANDIDATES = range(0xF0000, 0xF1000)


@dataclass(frozen=True)
class Segment:
    """A stretch of a rendered conversation that is tokenised by itself.

    ``literal`` text comes from a message and spells a control token; it must be tokenised as ordinary characters.
    """

    text: str
    supervised: bool
    literal: bool


@dataclass(frozen=True)
class Conversation:
    """A rendered conversation: its segments, and how many of them come before the last assistant turn."""

    segments: tuple[Segment, ...]
    prompt_segments: int


class ChatRenderer:
    """Renders conversations with the tokenizer's own chat template.

    What the assistant said is found in two ways. A template with ``{% generation %}`` marks it itself (transformers'
    convention). For any other template the conversation is rendered turn by turn, and each rendering must begin with
    the one before it, else the template cannot be followed and the record is refused. In both, the end-of-sequence
    token directly behind an assistant turn belongs to the turn.

    The text is cut at the borders of assistant turns and each stretch is tokenised by itself, so that no token reaches
    over a border and the tokens of the prompt are the same in training and in generation, by construction.

    A message that spells a special token (``<|im_end|>``) must not gain its power: such strings are tokenised as
    ordinary characters. That holds for tokens the tokenizer declares as special; added tokens that it declares as
    ordinary (such as ``<think>``) are part of what a model writes and stay tokens. Roles are checked elsewhere to be
    one of four words. The template itself is a program from elsewhere: it runs in Jinja's sandbox, within bounds.

    A template that asks for today (``strftime_now``) is given `TEMPLATE_DATE`, in training as in generation.

    Raises
    ------
    DataError
        If the tokenizer has no chat template, one that reads the clock in a way that cannot be pinned, or one whose
        arithmetic, time or memory has no bounds.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, special_tokens: Sequence[str]) -> None:
        if not tokenizer.chat_template:
            raise DataError(
                "the tokenizer has no chat template, which records with messages need",
                fix="use a tokenizer with a chat_template (a chat or instruct model), or prompt/completion records",
            )
        template = tokenizer.get_chat_template()
        check_template(template)
        self._template = _without_clock(template)
        self._special_tokens_map: dict[str, Any] = dict(tokenizer.special_tokens_map)
        self._end_of_sequence = str(tokenizer.eos_token or "")
        self._special_tokens = sorted(special_tokens, key=len, reverse=True)
        self._has_marks = bool(_GENERATION_MARK.search(self._template))

    def conversation(self, messages: Sequence[Message]) -> Conversation:
        """Return a conversation to learn from; the prompt is all that stands before its last assistant turn.

        Raises
        ------
        ValueError
            If the template refuses the conversation, or does not render it so that a prompt is a prefix of it.
        """
        marker = self._unused_character(messages)
        text, spans = self._render_with_spans(messages, marker)
        last = max((index for index, message in enumerate(messages) if message.role == "assistant"), default=None)
        if last is None:
            return Conversation(self._segments(text, [], len(text), marker), 0)
        prompt, _ = self._render(messages[:last], marker, add_generation_prompt=True)
        if not text.startswith(prompt):
            raise ValueError(_NO_PREFIX)
        before = self._segments(text[: len(prompt)], spans, len(prompt), marker)
        after = self._segments(text, spans, len(text), marker, start=len(prompt))
        return Conversation((*before, *after), len(before))

    def prompt(self, messages: Sequence[Message]) -> Conversation:
        """Return a conversation up to where the assistant is to speak; all of its segments are the prompt.

        Raises
        ------
        ValueError
            If the template refuses the conversation.
        """
        marker = self._unused_character(messages)
        text, spans = self._render_with_spans(messages, marker) if messages else ("", [])
        rendered, _ = self._render(messages, marker, add_generation_prompt=True)
        if not rendered.startswith(text):
            # The generation prompt may replace a trailing part of the last turn, but never what the assistant said.
            spans = [span for span in spans if rendered[: span[1]] == text[: span[1]]]
        segments = self._segments(rendered, spans, len(rendered), marker)
        return Conversation(segments, len(segments))

    def _render_with_spans(self, messages: Sequence[Message], marker: str) -> tuple[str, list[Span]]:
        text, spans = self._render(messages, marker)
        if not self._has_marks:
            spans = self._walk(messages, text, marker)
        return text, [(start, self._end_of_turn(text, end)) for start, end in spans if start < end]

    def _walk(self, messages: Sequence[Message], text: str, marker: str) -> list[Span]:
        """Return the assistant turns of a template without marks, by rendering the conversation turn by turn."""
        spans: list[Span] = []
        for index, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before, _ = self._render(messages[:index], marker, add_generation_prompt=True)
            through, _ = self._render(messages[: index + 1], marker)
            if not (through.startswith(before) and text.startswith(through)):
                raise ValueError(_NO_PREFIX)
            spans.append((len(before), self._without_separator(through, len(before))))
        return spans

    def _without_separator(self, through: str, start: int) -> int:
        """Return where a turn ends: white space behind its last special token only separates it from the next."""
        end = len(through.rstrip())
        closed = end > start and through[:end].endswith(tuple(self._special_tokens))
        return end if closed else len(through)

    def _end_of_turn(self, text: str, end: int) -> int:
        token = self._end_of_sequence
        return end + len(token) if token and text.startswith(token, end) else end

    def _render(
        self, messages: Sequence[Message], marker: str, add_generation_prompt: bool = False
    ) -> tuple[str, list[Span]]:
        """Render through transformers; ``marker`` goes into every special token that a message spells."""
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        turns = [{"role": message.role, "content": self._guard(message.content, marker)} for message in messages]
        try:
            result: Any = render_guarded(  # a pair of lists, though it is annotated as a string
                lambda: render_jinja_template(
                    conversations=[turns],
                    chat_template=self._template,
                    return_assistant_tokens_mask=self._has_marks,
                    add_generation_prompt=add_generation_prompt,
                    **self._special_tokens_map,
                )
            )
        except TemplateError as error:
            # A message that stands in the template was written by its author; any other may quote the record.
            reason = f": {error.message}" if error.message and error.message in self._template else ""
            raise ValueError(f"the chat template refuses this conversation{reason}") from None
        rendered, spans = result
        return str(rendered[0]), [(int(start), int(end)) for start, end in (spans[0] if spans else [])]

    def _guard(self, content: str, marker: str) -> str:
        for token in self._special_tokens:
            content = content.replace(token, token[0] + marker + token[1:])
        return content

    def _unused_character(self, messages: Sequence[Message]) -> str:
        used = set().union(*(message.content for message in messages))
        return next(chr(code) for code in _MARKER_CANDIDATES if chr(code) not in used)

    def _segments(self, text: str, spans: Sequence[Span], end: int, marker: str, start: int = 0) -> tuple[Segment, ...]:
        """Cut ``text[start:end]`` at the borders of spans and around guarded strings."""
        borders = {start, end}
        for first, last in spans:
            borders |= {min(max(position, start), end) for position in (first, last)}
        literals = [token[0] + marker + token[1:] for token in self._special_tokens]
        guarded = re.compile("|".join(re.escape(literal) for literal in literals)) if literals else None
        segments: list[Segment] = []
        ordered = sorted(borders)
        for first, last in pairwise(ordered):
            supervised = any(span_start <= first and last <= span_end for span_start, span_end in spans)
            position = first
            for match in guarded.finditer(text, first, last) if guarded and marker in text else ():
                if match.start() > position:
                    segments.append(Segment(text[position : match.start()], supervised, literal=False))
                segments.append(Segment(match.group().replace(marker, ""), supervised, literal=True))
                position = match.end()
            if position < last:
                segments.append(Segment(text[position:last], supervised, literal=False))
        return tuple(segments)


_NO_PREFIX = (
    "the chat template renders this conversation so that its beginning is no prefix of the whole, "
    "so the turns of the assistant cannot be told apart; use a template with {% generation %} marks"
)


def template_reads_clock(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether the tokenizer's chat template, if it has one, asks for today's date."""
    return bool(tokenizer.chat_template) and bool(_CLOCK_CALL.search(tokenizer.get_chat_template()))


def _without_clock(template: str) -> str:
    """Return the template with `TEMPLATE_DATE` written out where it asks for today; transformers takes no other clock.

    Raises
    ------
    DataError
        If it asks in another way than by a format that stands in it.
    """
    pinned = _CLOCK_CALL.sub(lambda call: f"{call[1]}{TEMPLATE_DATE.strftime(call[2])}{call[1]}", template)
    if _CLOCK_OTHERWISE.search(pinned):
        raise DataError(
            "the tokenizer's chat template reads the clock (strftime_now)",
            why="token ids would depend on the day on which a run is resumed or evaluated",
            fix="write a fixed date into the chat_template, or call strftime_now with a format in quotes: that is "
            f"taken as {TEMPLATE_DATE:%Y-%m-%d}",
        )
    return pinned
