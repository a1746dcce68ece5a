"""Chat templates rendered in a sandbox with limits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from operator import is_
from typing import TYPE_CHECKING, Any, TypeVar

from codex_ml.data.records.chat import Message, ToolCall, map_json
from codex_ml.errors import DataError
from codex_ml.io.limits import LimitExceededError, limited

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Span = tuple[int, int]
Tools = Sequence[dict[str, Any]]

# The date that a template is given for today. Token ids must not depend on the day on which a run is resumed.
TEMPLATE_DATE = datetime(2026, 1, 1, tzinfo=UTC)
_GENERATION_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
_CLOCK_CALL = re.compile(r"""strftime_now\(\s*(['"])([^'"\\]*)\1\s*\)""")
_CLOCK_OTHERWISE = re.compile(r"strftime_now(?!\s+is\b)")
# Arguments of a call: a template that asks what they are takes both ways, one that prints them unchanged takes
# text alone (an object would come out as Python writes it), and all others take an object.
_ASKS_FOR_KIND = re.compile(r"arguments['\"\]]*\s+is\s+(?:not\s+)?(?:string|mapping)")
_WRITES_TEXT = re.compile(r"arguments['\"\]]*\s*(?:[-+]?\}\}|[+~])")
# Supplementary private use area: unassigned by Unicode, so that one of them is absent from any real conversation.
_MARKER_CANDIDATES = range(0xF0000, 0xF1000)


class ChatTemplate:
    """A chat template, checked and with its clock stopped.

    A message that spells a special token must not gain its power: ``marker``, a character that the conversation does
    not hold, is put into every such string, so that it can be told from what the template itself writes.

    Raises
    ------
    DataError
        If the tokenizer has no chat template, one that reads the clock in a way that cannot be pinned, or one whose
        arithmetic, time or memory has no bounds.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, guarded_tokens: Sequence[str]) -> None:
        if not tokenizer.chat_template:
            raise DataError(
                "the tokenizer has no chat template, which records with messages need",
                fix="use a tokenizer with a chat_template (a chat or instruct model), or prompt/completion records",
                code="TOKENIZER_CHAT_TEMPLATE_MISSING",
            )
        template = tokenizer.get_chat_template()
        check_template(template)
        self._template = _without_clock(template)
        self._special_tokens_map: dict[str, Any] = dict(tokenizer.special_tokens_map)
        self._guarded_tokens = sorted(guarded_tokens, key=len, reverse=True)
        self._asks_for_kind = bool(_ASKS_FOR_KIND.search(template))
        self._writes_text = bool(_WRITES_TEXT.search(template))
        self.has_marks = bool(_GENERATION_MARK.search(self._template))
        # Beginnings of one conversation are asked for again and again; what was rendered of it is kept until another
        # is. It is recognized by the identity of its messages, which do not change and are held here.
        self._conversation: tuple[Sequence[Message], Tools, str] = ((), (), "")
        self._renderings: dict[tuple[int, bool], tuple[str, list[Span]]] = {}
        self.reads_tools = "tools" in names_in_template(self._template)

    def render(
        self, messages: Sequence[Message], tools: Tools, marker: str, add_generation_prompt: bool = False
    ) -> tuple[str, list[Span]]:
        """Return the text of a conversation and, where the template marks them, the spans of the assistant.

        Raises
        ------
        ValueError
            If the template refuses the conversation, or fails on it; the message holds nothing of the conversation.
        """
        whole, with_tools, with_marker = self._conversation
        same = len(messages) <= len(whole) and all(map(is_, messages, whole))
        if not (same and tools is with_tools and marker == with_marker):
            self._conversation = (tuple(messages), tools, marker)
            self._renderings = {}
        asked = (len(messages), add_generation_prompt)
        if asked not in self._renderings:
            self._renderings[asked] = self._render(messages, tools, marker, add_generation_prompt)
        return self._renderings[asked]

    def guard(self, text: str, marker: str) -> str:
        """Return a text with the marker in every special token that it spells."""
        for token in self._guarded_tokens:
            if token in text:
                text = text.replace(token, token[0] + marker + token[1:])
        return text

    def guarded_strings(self, marker: str) -> re.Pattern[str] | None:
        """Return what finds the strings into which `guard` put the marker; None where there can be none."""
        literals = [re.escape(token[0] + marker + token[1:]) for token in self._guarded_tokens]
        return re.compile("|".join(literals)) if literals else None

    def unused_character(self, messages: Sequence[Message], tools: Tools) -> str:
        """Return a character that nothing in the conversation holds, to be the marker."""
        used: set[str] = set()
        for text in _strings([self._turn(message, "") for message in messages] + list(tools)):
            used.update(text)
        return next(chr(code) for code in _MARKER_CANDIDATES if chr(code) not in used)

    def _render(
        self, messages: Sequence[Message], tools: Tools, marker: str, add_generation_prompt: bool
    ) -> tuple[str, list[Span]]:
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        turns = [self._turn(message, marker) for message in messages]
        known = [map_json(tool, lambda text: self.guard(text, marker)) for tool in tools]
        try:
            result: Any = render_guarded(  # a pair of lists, though it is annotated as a string
                lambda: render_jinja_template(
                    conversations=[turns],
                    tools=known or None,
                    chat_template=self._template,
                    return_assistant_tokens_mask=self.has_marks,
                    add_generation_prompt=add_generation_prompt,
                    **self._special_tokens_map,
                )
            )
        except TemplateError as error:
            # A message that is part of the template was written by its author; any other may quote the record.
            reason = f": {error.message}" if error.message and error.message in self._template else ""
            raise ValueError(f"the chat template refuses this conversation{reason}") from None
        rendered, spans = result
        return str(rendered[0]), [(int(start), int(end)) for start, end in (spans[0] if spans else [])]

    def _turn(self, message: Message, marker: str) -> dict[str, Any]:
        turn: dict[str, Any] = {"role": message.role}
        for key in ("content", "name", "tool_call_id"):
            if (text := getattr(message, key)) is not None:
                turn[key] = self.guard(text, marker)
        turn.setdefault("content", None)
        if message.tool_calls:
            turn["tool_calls"] = [self._call(call, marker) for call in message.tool_calls]
        return turn

    def _call(self, call: ToolCall, marker: str) -> dict[str, Any]:
        arguments: Any = call.arguments
        if not self._asks_for_kind:
            arguments = call.argument_object()
            if self._writes_text:
                as_text = isinstance(call.arguments, str)
                arguments = call.arguments if as_text else json.dumps(arguments, ensure_ascii=False)
        function = {
            "name": self.guard(call.name, marker),
            "arguments": map_json(arguments, lambda text: self.guard(text, marker)),
        }
        identifier = {} if call.identifier is None else {"id": self.guard(call.identifier, marker)}
        return {**identifier, "type": "function", "function": function}


def template_reads_clock(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether the tokenizer's chat template, if it has one, asks for today's date."""
    return bool(tokenizer.chat_template) and bool(_CLOCK_CALL.search(tokenizer.get_chat_template()))


def _without_clock(template: str) -> str:
    """Return the template with `TEMPLATE_DATE` written out where it asks for today; transformers takes no other clock.

    Raises
    ------
    DataError
        If it asks in another way than by a literal format.
    """
    pinned = _CLOCK_CALL.sub(lambda call: f"{call[1]}{TEMPLATE_DATE.strftime(call[2])}{call[1]}", template)
    if _CLOCK_OTHERWISE.search(pinned):
        raise DataError(
            "the tokenizer's chat template reads the clock (strftime_now)",
            why="token ids would depend on the day on which a run is resumed or evaluated",
            fix="write a fixed date into the chat_template, or call strftime_now with a format in quotes: that is "
            f"taken as {TEMPLATE_DATE:%Y-%m-%d}",
            code="TOKENIZER_CHAT_TEMPLATE_USES_CLOCK",
        )
    return pinned


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


Result = TypeVar("Result")

# The longest templates of known models are a tenth of it.
MAX_TEMPLATE_CHARACTERS = 256 << 10
# For one conversation; known templates take milliseconds, and some times its length.
RENDER_CPU_SECONDS = 5.0
RENDER_EXTRA_BYTES = 1 << 30
# A text may be repeated as often; without a bound on it, a line of two products fills the memory.
_LARGEST_FACTOR = 10_000
_GENERATION_TAGS = re.compile(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}")
_FIX = "use the chat template of the model as it was published; this one is made to harm"


def check_template(template: str) -> None:
    """Refuse a template whose single operations could not be broken off: powers, and products without a small factor.

    Loops are bounded in time when it is rendered; the sandbox of Jinja refuses the attributes that lead to code.

    Raises
    ------
    DataError
        If it holds one, or is too long or too deep to be looked at. What is no template at all is left to rendering.
    """
    from jinja2 import Environment, TemplateError, nodes

    if len(template) > MAX_TEMPLATE_CHARACTERS:
        raise _refused(f"it is longer than {MAX_TEMPLATE_CHARACTERS} characters")
    environment = Environment(extensions=["jinja2.ext.loopcontrols"])  # nosec B701: only parsed, never rendered
    try:
        with limited(RENDER_CPU_SECONDS, RENDER_EXTRA_BYTES):
            tree = environment.parse(_GENERATION_TAGS.sub("", template))
            if next(tree.find_all(nodes.Pow), None) is not None:
                raise _refused("it holds a power (**), which can be a number of any length")
            if not all(_has_small_factor(product) for product in tree.find_all(nodes.Mul)):
                raise _refused(f"it holds a product without a constant factor up to {_LARGEST_FACTOR}")
    except TemplateError:
        return
    except (RecursionError, MemoryError, LimitExceededError) as error:
        raise _refused("it is nested too deep, or too long to be read") from error


def names_in_template(template: str) -> frozenset[str]:
    """Return the names that a template asks for, such as ``messages``; none where it is no template at all."""
    from jinja2 import Environment, TemplateError, nodes

    environment = Environment(extensions=["jinja2.ext.loopcontrols"])  # nosec B701: only parsed, never rendered
    try:
        tree = environment.parse(_GENERATION_TAGS.sub("", template))
    except TemplateError:
        return frozenset()
    return frozenset(name.name for name in tree.find_all(nodes.Name))


def render_guarded(render: Callable[[], Result]) -> Result:
    """Return what a rendering gives, within bounds on its time and memory.

    Raises
    ------
    ValueError
        If the template refuses the conversation, or fails on it; the message holds nothing of the conversation.
    DataError
        If it goes beyond the bounds: every other conversation would cost as much.
    """
    try:
        with limited(RENDER_CPU_SECONDS, RENDER_EXTRA_BYTES):
            return render()
    except LimitExceededError as error:
        raise _refused(f"rendering one conversation took {error}") from error
    except MemoryError as error:
        raise _refused(f"rendering one conversation needs more than {RENDER_EXTRA_BYTES >> 20} MiB") from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, SyntaxError, TypeError) as error:
        raise ValueError(f"the chat template fails on this conversation ({type(error).__name__})") from None


def _has_small_factor(product: Any) -> bool:
    from jinja2 import nodes

    return any(
        isinstance(side, nodes.Const) and isinstance(side.value, int | float) and abs(side.value) <= _LARGEST_FACTOR
        for side in (product.left, product.right)
    )


def _refused(why: str) -> DataError:
    return DataError(
        "the tokenizer's chat template is refused", why=why, fix=_FIX, code="TOKENIZER_CHAT_TEMPLATE_REFUSED"
    )
