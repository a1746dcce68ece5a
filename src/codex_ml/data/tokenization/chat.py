"""Conversations rendered by the tokenizer's chat template, assistant turns marked, and cut for tokenising."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from codex_ml.data.records.chat import Message, last_assistant_turn
from codex_ml.data.tokenization.chat_template import ChatTemplate, Span, Tools

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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


@dataclass(frozen=True)
class _Rendered:
    """A text, the spans in it that the assistant said, and those of them that are to be learned."""

    text: str
    spans: tuple[Span, ...]
    learned: frozenset[Span]
    marker: str


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

    A template may leave out what it has no place for. Where that is part of an answer, the record is refused; where it
    is part of the prompt, it is counted in ``left_out`` by role, or as tools.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        With a chat template.
    special_tokens : sequence of str
        The strings of its control tokens.
    last_turn_only : bool
        Whether only the last turn of the assistant is learned; earlier ones then need not be told apart.
    guarded : bool
        False: control tokens that messages spell are control tokens.

    Raises
    ------
    DataError
        As `ChatTemplate`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        special_tokens: Sequence[str],
        last_turn_only: bool = False,
        guarded: bool = True,
    ) -> None:
        self._template = ChatTemplate(tokenizer, special_tokens if guarded else ())
        self._special_tokens = tuple(special_tokens)
        self._end_of_sequence = str(tokenizer.eos_token or "")
        self._last_turn_only = last_turn_only
        self.left_out: Counter[str] = Counter()

    def conversation(self, messages: Sequence[Message], tools: Tools = ()) -> Conversation:
        """Return a conversation to learn from; the prompt is everything before its last assistant turn.

        Raises
        ------
        ValueError
            If the template refuses the conversation, does not render it so that a prompt is a prefix of it, or leaves
            out a part of an answer.
        """
        marker = self._template.unused_character(messages, tools)
        rendered = self._rendered(messages, tools, marker)
        text = rendered.text
        last = last_assistant_turn(messages)
        if last is None:
            self._count_left_out(messages, tools, rendered)
            return Conversation(self._segments(rendered, 0, len(text)), 0)
        prompt, _ = self._template.render(messages[:last], tools, marker, add_generation_prompt=True)
        if not text.startswith(prompt):
            raise ValueError(_NO_PREFIX)
        if self._last_turn_only:
            before = self._prompt_segments(messages[:last], tools, marker)
            rendered = self._last_turn_of(messages, tools, rendered, len(prompt))
        else:
            before = self._segments(rendered, 0, len(prompt))
        self._refuse_lost_answers(messages, rendered)
        self._refuse_rewritten_answers(messages, rendered)
        self._count_left_out(messages, tools, rendered)
        return Conversation((*before, *self._segments(rendered, len(prompt), len(text))), len(before))

    def prompt(self, messages: Sequence[Message], tools: Tools = ()) -> Conversation:
        """Return a conversation up to where the assistant is to speak; all of its segments are the prompt.

        Raises
        ------
        ValueError
            If the template refuses the conversation.
        """
        segments = self._prompt_segments(messages, tools, self._template.unused_character(messages, tools))
        return Conversation(segments, len(segments))

    def turn_end(self) -> str | None:
        """Return the control token with which the template ends a turn of the assistant; None where it has none.

        It need not be the end-of-sequence token: some families close turns with one and texts with another.
        """
        probe = (Message(role="user", content="a"), Message(role="assistant", content="b"))
        try:
            segments = self.conversation(probe).segments
        except ValueError:
            return None
        _, _, behind = "".join(segment.text for segment in segments if segment.supervised).partition("b")
        found = {behind.index(token): token for token in self._special_tokens if token in behind}
        return found[min(found)] if found else None

    def _prompt_segments(self, messages: Sequence[Message], tools: Tools, marker: str) -> tuple[Segment, ...]:
        rendered, _ = self._template.render(messages, tools, marker, add_generation_prompt=True)
        spans: tuple[Span, ...] = ()
        if messages:
            whole = self._rendered(messages, tools, marker)
            # The generation prompt may replace a trailing part of the last turn, but never what the assistant said.
            spans = tuple(span for span in whole.spans if rendered[: span[1]] == whole.text[: span[1]])
        return self._segments(_Rendered(rendered, spans, frozenset(), marker), 0, len(rendered))

    def _rendered(self, messages: Sequence[Message], tools: Tools, marker: str) -> _Rendered:
        """Return a conversation with the turns of the assistant, and which of them are learned."""
        text, spans = self._template.render(messages, tools, marker)
        if not self._template.has_marks:
            try:
                spans = self._walk(messages, tools, text, marker)
            except ValueError:
                if not self._last_turn_only:
                    raise
                spans = []  # earlier turns need not be told apart where none of them is learned
        ended = [(start, self._end_of_turn(text, end)) for start, end in spans]
        turns = [message for message in messages if message.role == "assistant"]
        if len(turns) == len(ended):
            learned = [span for span, turn in zip(ended, turns, strict=True) if turn.supervised]
        elif all(turn.supervised for turn in turns) or self._last_turn_only:
            learned = ended
        else:
            raise ValueError(
                "some answers of this conversation are not to be learned, and the chat template marks "
                f"{len(ended)} spans for {len(turns)} turns of the assistant, so it cannot be said which"
            )
        return _Rendered(text, tuple(span for span in ended if span[0] < span[1]), frozenset(learned), marker)

    def _walk(self, messages: Sequence[Message], tools: Tools, text: str, marker: str) -> list[Span]:
        """Return the assistant turns of a template without marks, by rendering the conversation turn by turn."""
        spans: list[Span] = []
        for index, message in enumerate(messages):
            if message.role == "assistant":
                before, _ = self._template.render(messages[:index], tools, marker, add_generation_prompt=True)
                spans.append(self._turn_behind(before, messages[: index + 1], tools, text, marker))
        return spans

    def _turn_behind(self, before: str, messages: Sequence[Message], tools: Tools, text: str, marker: str) -> Span:
        """Return the last turn of some messages in the text of all, verified to follow its prompt."""
        through, _ = self._template.render(messages, tools, marker)
        if not text.startswith(through) and self._end_of_sequence:
            # Some templates close every conversation with end-of-sequence, wherever it is broken off.
            through = through.removesuffix(self._end_of_sequence)
        if not (through.startswith(before) and text.startswith(through)):
            raise ValueError(_NO_PREFIX)
        return len(before), self._without_separator(through, len(before))

    def _last_turn_of(
        self, messages: Sequence[Message], tools: Tools, rendered: _Rendered, prompt_length: int
    ) -> _Rendered:
        """Return the conversation with its last assistant turn as the only span behind the prompt."""
        last = last_assistant_turn(messages)
        assert last is not None
        text, marker = rendered.text, rendered.marker
        if self._template.has_marks:
            spans = tuple(span for span in rendered.spans if span[1] > prompt_length)
        else:
            start, end = self._turn_behind(text[:prompt_length], messages[: last + 1], tools, text, marker)
            spans = ((start, self._end_of_turn(text, end)),)
        return _Rendered(text, spans, frozenset(spans if messages[last].supervised else ()), marker)

    def _without_separator(self, through: str, start: int) -> int:
        """Return where a turn ends: white space behind its last special token only separates it from the next."""
        end = len(through.rstrip())
        closed = end > start and through[:end].endswith(self._special_tokens)
        return end if closed else len(through)

    def _end_of_turn(self, text: str, end: int) -> int:
        token = self._end_of_sequence
        return end + len(token) if token and text.startswith(token, end) else end

    def _refuse_rewritten_answers(self, messages: Sequence[Message], rendered: _Rendered) -> None:
        """Stop where a turn that is learned is not what the record says, but for white space.

        Else other words would be taught than those that an evaluation holds the model to.
        """
        last = last_assistant_turn(messages)
        turns = [
            index
            for index, message in enumerate(messages)
            if message.role == "assistant" and message.supervised and (not self._last_turn_only or index == last)
        ]
        written_turns = ["".join(rendered.text[start:end].split()) for start, end in sorted(rendered.learned)]
        if len(written_turns) != len(turns):
            # Marks of a template need not come one for a turn; then all of them together contain the answers.
            written_turns = ["".join(written_turns)] * len(turns)
        for index, written in zip(turns, written_turns, strict=True):
            message = messages[index]
            if not message.content or message.tool_calls:
                continue
            words = "".join(self._template.guard(message.content, rendered.marker).split())
            if words not in written and json.dumps(words, ensure_ascii=False)[1:-1] not in written:
                raise ValueError(
                    f"the chat template does not write messages[{index}] of the assistant unchanged, so other words "
                    "would be learned; use a template that writes it whole, or write it as the template gives it (one "
                    "that cuts the thinking of earlier turns goes with data.supervise=last_assistant_turn)"
                )

    def _refuse_lost_answers(self, messages: Sequence[Message], rendered: _Rendered) -> None:
        """Stop where a turn that calls tools lost its calls, or the words beside them, to the template."""
        said = "\n".join(rendered.text[start:end] for start, end in rendered.spans)
        last = last_assistant_turn(messages)
        for index, message in enumerate(messages):
            if not message.tool_calls or (self._last_turn_only and index != last):
                continue
            if not all(self._stands_in(call.name, said, rendered.marker) for call in message.tool_calls):
                raise ValueError(
                    f"the chat template leaves out the tool calls of messages[{index}]; use a template that writes "
                    "tool_calls, or write the calls into the content, as the model is to write them"
                )
            if message.content and not self._stands_in(message.content, said, rendered.marker):
                raise ValueError(
                    f"the chat template leaves out the content of messages[{index}] beside its tool calls; give the "
                    "two as turns of their own, or take the content out"
                )

    def _count_left_out(self, messages: Sequence[Message], tools: Tools, rendered: _Rendered) -> None:
        text, marker = rendered.text, rendered.marker
        lost: set[str] = {
            message.role
            for message in messages
            if message.role != "assistant" and not self._stands_in(message.content or "", text, marker)
        }
        if tools and not self._template.reads_tools:
            lost.add("tools")
        self.left_out.update(lost)

    def _stands_in(self, text: str, rendered: str, marker: str) -> bool:
        """Tell whether a text was rendered: as it is but for white space around it, or as a JSON string."""
        guarded = self._template.guard(text, marker).strip()
        return guarded in rendered or json.dumps(guarded, ensure_ascii=False)[1:-1] in rendered

    def _segments(self, rendered: _Rendered, start: int, end: int) -> tuple[Segment, ...]:
        """Cut a part of the text at the borders of spans and around guarded strings."""
        text, marker = rendered.text, rendered.marker
        borders = {start, end}
        for first, last in rendered.spans:
            borders |= {min(max(position, start), end) for position in (first, last)}
        guarded = self._template.guarded_strings(marker) if marker in text else None
        segments: list[Segment] = []
        for first, last in pairwise(sorted(borders)):
            supervised = any(span[0] <= first and last <= span[1] for span in rendered.learned)
            position = first
            for match in guarded.finditer(text, first, last) if guarded else ():
                if match.start() > position:
                    segments.append(Segment(text[position : match.start()], supervised, literal=False))
                segments.append(Segment(match.group().replace(marker, ""), supervised, literal=True))
                position = match.end()
            if position < last:
                segments.append(Segment(text[position:last], supervised, literal=False))
        return tuple(segments)


_NO_PREFIX = (
    "the chat template renders this conversation so that its beginning is no prefix of the whole, "
    "so the turns of the assistant cannot be told apart; use a template with {% generation %} marks, or where the "
    "answer to the last question is enough data.supervise=last_assistant_turn"
)
