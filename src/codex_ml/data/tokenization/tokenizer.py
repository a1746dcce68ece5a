"""Records made into token ids and supervision masks, the prompt by construction the same in training and generation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from codex_ml.data.records.chat import Message, MessagesRecord, last_assistant_turn
from codex_ml.data.records.formats import Record, TextRecord
from codex_ml.data.tokenization.chat import ChatRenderer, Conversation, Segment
from codex_ml.data.tokenization.chat_template import TEMPLATE_DATE, template_reads_clock
from codex_ml.data.tokenization.encoding import decode, encode
from codex_ml.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Supervise = Literal["all_assistant_turns", "last_assistant_turn"]

_SPELLS_CONTROL_TOKEN = "the text spells a control token, and this tokenizer cannot read it as ordinary text"
# How much of the segment before another is looked at; no special token is longer.
_CONTEXT_CHARACTERS = 64


@dataclass(frozen=True)
class TokenizedRecord:
    """One record as the model sees it.

    Attributes
    ----------
    record_id : str
        ``"<file name>:<line>"``.
    input_ids : tuple of int
        Token ids, [sequence].
    supervised : tuple of bool
        Whether the model is to learn the token, [sequence]. The first token is never supervised: nothing predicts it.
    prompt_length : int
        How many of the tokens are the prompt; 0 for running text.
    prompt : str
        The prompt as text after the safety filters; a conversation as the chat template renders it.
    reference : str or None
        The completion, or the last turn of the assistant, after the safety filters; None for running text.
    prompt_redacted, reference_redacted : bool
        Whether the safety filters changed prompt or reference when the record was read.
    """

    record_id: str
    input_ids: tuple[int, ...]
    supervised: tuple[bool, ...]
    prompt_length: int
    prompt: str
    reference: str | None
    prompt_redacted: bool = False
    reference_redacted: bool = False

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The ids to generate from."""
        return self.input_ids[: self.prompt_length]

    @property
    def supervised_count(self) -> int:
        """How many tokens are learned."""
        return sum(self.supervised)


class RecordTokenizer:
    """Tokenises records for one tokenizer.

    Prompt and completion are tokenised apart and joined: tokenised together, a token may reach over the border, and the
    prompt that generation sees would be no prefix of what was trained. The completion has the tokens that it has in
    running text behind its prompt, not those of a text that it opens (which differ with sentencepiece). The special
    tokens that the tokenizer's own post-processor puts in front (such as begin-of-sequence) occur once, before the
    prompt; those it appends occur once, at the end; an end-of-sequence token closes every record and is
    supervised. Text that spells a special token is tokenised as ordinary characters (``split_special_tokens``).
    Conversations: see `ChatRenderer`.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.
    supervise : {"all_assistant_turns", "last_assistant_turn"}
        What of a conversation is learned.
    trust_control_tokens_in_text : bool
        True: special tokens that the text of a record spells are control tokens. Text that is not to be trusted can
        then end a turn or begin one.

    Raises
    ------
    DataError
        If the tokenizer has no end-of-sequence token.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        supervise: Supervise = "all_assistant_turns",
        trust_control_tokens_in_text: bool = False,
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise DataError(
                "the tokenizer has no end-of-sequence token",
                why="a model that never learns it never stops",
                fix="set eos_token in the tokenizer's tokenizer_config.json",
                code="TOKENIZER_NO_EOS",
            )
        self.tokenizer = tokenizer
        self._supervise = supervise
        self._trust_control_tokens = trust_control_tokens_in_text
        assert isinstance(tokenizer.eos_token_id, int)
        self.eos_token_id: int = tokenizer.eos_token_id
        declared = {str(token) for token in tokenizer.all_special_tokens}
        added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._special_tokens = tuple(sorted((declared | set(added)) - {""}))
        unknown_id: Any = tokenizer.unk_token_id
        self._control_ids = (set(added.values()) | set(tokenizer.all_special_ids)) - {unknown_id}
        self._prefix, self._suffix = self._affixes()

    def tokenize(self, record_id: str, record: Record) -> TokenizedRecord:
        """Return the whole record, however long it is.

        Raises
        ------
        ValueError
            If the prompt has no token at all, or the chat template cannot be followed; the message holds no content.
        """
        if isinstance(record, MessagesRecord):
            return self._tokenize_messages(record_id, record)
        if isinstance(record, TextRecord):
            ids = self._with_suffix(self._with_prefix(self.encode_text(record.text)))
            mask = [True] * len(ids)
            return _tokenized(record_id, ids, mask, 0, "", None)
        prompt_ids = self.encode_prompt(record)
        completion_ids = self._with_suffix(self._encode_completion(record.prompt, record.completion))
        mask = [False] * len(prompt_ids) + [True] * len(completion_ids)
        ids = (*prompt_ids, *completion_ids)
        return _tokenized(record_id, ids, mask, len(prompt_ids), record.prompt, record.completion)

    def encode_prompt(self, record: Record | str) -> tuple[int, ...]:
        """Return the ids to generate from.

        A plain string is a prompt. A conversation that ends with the assistant is taken up to that turn; any other is
        taken whole and the assistant is to speak next.

        Raises
        ------
        ValueError
            As `tokenize`, and for running text, which has no prompt.
        """
        if isinstance(record, MessagesRecord):
            messages = record.messages[:-1] if record.messages[-1].role == "assistant" else record.messages
            return tuple(self._encode_conversation(self._renderer.prompt(messages, record.tools))[0])
        if isinstance(record, TextRecord):
            raise ValueError("a text record has no prompt to generate from")
        prompt = record if isinstance(record, str) else record.prompt
        ids = self._with_prefix(self.encode_text(prompt))
        if not ids:
            raise ValueError("prompt is empty, and this tokenizer puts no begin-of-sequence token before it")
        return ids

    def encode_text(self, text: str) -> list[int]:
        """Return the ids of ordinary text; control tokens that it spells become characters, unless asked otherwise.

        Raises
        ------
        ValueError
            If the tokenizer cannot keep them apart.
        """
        if not self._is_literal(text):
            return self._ids(text)
        ids = self._ids(text, split_special_tokens=True)
        if not self._control_ids.isdisjoint(ids):
            raise ValueError(_SPELLS_CONTROL_TOKEN)
        return ids

    def leading_tokens(self, record: TokenizedRecord) -> int:
        """Return how many tokens at the start of a record are no text of its own, such as begin-of-sequence."""
        if self._prefix and record.input_ids[: len(self._prefix)] == self._prefix:
            return len(self._prefix)
        return int(bool(record.input_ids) and record.input_ids[0] == self.tokenizer.bos_token_id)

    def end_ids(self, record: Record) -> frozenset[int]:
        """Return the tokens with which the model may end its answer to such a record."""
        turn_end = self._turn_end_id if isinstance(record, MessagesRecord) else None
        return frozenset({self.eos_token_id} if turn_end is None else {self.eos_token_id, turn_end})

    def decode(self, ids: Sequence[int]) -> str:
        """Return ids as text, control tokens included."""
        return decode(self.tokenizer, ids)

    @property
    def template_date(self) -> str | None:
        """The date that the chat template is given for today; None where it asks for none."""
        return f"{TEMPLATE_DATE:%Y-%m-%d}" if template_reads_clock(self.tokenizer) else None

    @property
    def left_out(self) -> Counter[str]:
        """How many conversations so far hold what the chat template has no place for: tools, or turns of a role."""
        return self._renderer.left_out if "_renderer" in vars(self) else Counter()

    @cached_property
    def _turn_end_id(self) -> int | None:
        token = self._renderer.turn_end()
        index: Any = None if token is None else self.tokenizer.convert_tokens_to_ids(token)
        return None if index is None else int(index)

    @cached_property
    def _renderer(self) -> ChatRenderer:
        last_turn_only = self._supervise == "last_assistant_turn"
        guarded = not self._trust_control_tokens
        return ChatRenderer(self.tokenizer, self._special_tokens, last_turn_only, guarded)

    def _is_literal(self, text: str) -> bool:
        """Tell whether a text spells a control token that must not become one."""
        return not self._trust_control_tokens and any(token in text for token in self._special_tokens)

    def _with_prefix(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Prepend the tokens that the tokenizer puts before a text, unless text may spell them and did."""
        has_prefix = bool(self._prefix) and tuple(ids[: len(self._prefix)]) == self._prefix
        return tuple(ids) if has_prefix else (*self._prefix, *ids)

    def _with_suffix(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Append the tokens that the tokenizer puts after a text, unless text may spell them and did."""
        has_suffix = tuple(ids[-len(self._suffix) :]) == self._suffix
        return tuple(ids) if has_suffix else (*ids, *self._suffix)

    def _encode_completion(self, prompt: str, completion: str) -> list[int]:
        if not prompt:
            return self.encode_text(completion)  # it does open the text
        # Neither may the two together spell a control token that neither of them spells.
        literal = self._is_literal(prompt[-_CONTEXT_CHARACTERS:] + completion)
        return self._encode_segment(Segment(completion, True, literal), Segment(prompt, False, literal))

    def _tokenize_messages(self, record_id: str, record: MessagesRecord) -> TokenizedRecord:
        conversation = self._renderer.conversation(record.messages, record.tools)
        ids, mask, prompt_length = self._encode_conversation(conversation)
        prompt = "".join(segment.text for segment in conversation.segments[: conversation.prompt_segments])
        last = last_assistant_turn(record.messages)
        if last is None:
            return _tokenized(record_id, tuple(ids), mask, 0, prompt, None)
        at_inference = self._encode_conversation(self._renderer.prompt(record.messages[:last], record.tools))[0]
        if ids[:prompt_length] != at_inference:
            raise ValueError("the chat template gives generation another prompt than the one that would be trained on")
        reference = record.messages[last].content
        if record.messages[last].tool_calls:
            # What a model writes to call a tool is known to the template alone.
            pairs = zip(ids[prompt_length:], mask[prompt_length:], strict=True)
            learned = [token for token, is_learned in pairs if is_learned]
            reference = decode(self.tokenizer, learned, skip_special_tokens=True)
        return _tokenized(record_id, tuple(ids), mask, prompt_length, prompt, reference)

    def _encode_conversation(self, conversation: Conversation) -> tuple[list[int], list[bool], int]:
        """Return ids, supervision and the number of prompt tokens of a rendered conversation."""
        ids: list[int] = []
        mask: list[bool] = []
        prompt_length = 0
        previous: Segment | None = None
        for index, segment in enumerate(conversation.segments):
            # The template writes its own begin-of-sequence token, so nothing is added to what it renders.
            part = self._encode_segment(segment, previous)
            previous = segment
            ids += part
            mask += [segment.supervised] * len(part)
            if index < conversation.prompt_segments:
                prompt_length = len(ids)
        return ids, mask, prompt_length

    def _encode_segment(self, segment: Segment, previous: Segment | None) -> list[int]:
        """Return the ids of a segment after the one before it; no token crosses the border.

        Depends on nothing that comes later, so that a prompt has the same ids in training and in generation.
        """
        if previous is not None and self._opening_differs:
            before = previous.text[-1:] if previous.literal else previous.text[-_CONTEXT_CHARACTERS:]
            for context in (before, *self._contexts):
                if (part := self._encode_behind(context, segment.text, segment.literal)) is not None:
                    return part
        return self.encode_text(segment.text) if segment.literal else self._ids(segment.text)

    def _encode_behind(self, context: str, text: str, literal: bool = False) -> list[int] | None:
        """Return the ids of a text behind a context; None where a token would reach over the border.

        Where none does, they are the ids that the text has behind any other context of which this is true.
        """
        left = self._ids(context, split_special_tokens=literal)
        whole = self._ids(context + text, split_special_tokens=literal)
        part = whole[len(left) :]
        if not left or not part or whole[: len(left)] != left:
            return None
        if literal and not self._control_ids.isdisjoint(part):
            raise ValueError(_SPELLS_CONTROL_TOKEN)
        return part

    @cached_property
    def _contexts(self) -> tuple[str, ...]:
        """Texts that may precede a segment whose own neighbour would merge with it."""
        return ("\n", ".", "a", str(self.tokenizer.eos_token))

    @cached_property
    def _opening_differs(self) -> bool:
        """Whether the first word of a text has other tokens than one further on, as with sentencepiece (``▁``)."""
        probes = ("a", "[", "<")
        return any(
            part is not None and part != self._ids(probe)
            for probe in probes
            for part in (self._encode_behind(context, probe) for context in self._contexts)
        )

    def _affixes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return what the tokenizer puts before and behind a text, the latter always ending with end-of-sequence."""
        bare = self._ids("a")
        whole = encode(self.tokenizer, "a", add_special_tokens=True)
        for start in range(len(whole) - len(bare) + 1):
            if whole[start : start + len(bare)] == bare:
                prefix, suffix = whole[:start], whole[start + len(bare) :]
                ending = suffix if suffix and suffix[-1] == self.eos_token_id else [*suffix, self.eos_token_id]
                return tuple(prefix), tuple(ending)
        raise DataError(
            "the tokenizer changes the text itself when it adds special tokens",
            fix="use a tokenizer whose post-processor only puts tokens before and behind the text",
            code="TOKENIZER_CHANGES_TEXT",
        )

    def _ids(self, text: str, split_special_tokens: bool = False) -> list[int]:
        return encode(self.tokenizer, text, split_special_tokens=split_special_tokens)


def answer_ends(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the tokens with which a model ends an answer: end-of-sequence, and what its chat template ends turns with.

    None where the tokenizer has no end-of-sequence token; a chat template that is refused names none.
    """
    end: Any = tokenizer.eos_token_id
    if end is None or not tokenizer.chat_template:
        return frozenset() if end is None else frozenset({int(end)})
    try:
        return RecordTokenizer(tokenizer).end_ids(MessagesRecord(messages=(Message(role="user", content="a"),)))
    except DataError:
        return frozenset({int(end)})


def encode_prompt(tokenizer: PreTrainedTokenizerBase, record: Record | str) -> tuple[int, ...]:
    """Return the ids to generate from: exactly the prompt that training on this record would use."""
    return RecordTokenizer(tokenizer).encode_prompt(record)


def _tokenized(
    record_id: str, ids: tuple[int, ...], mask: list[bool], prompt_length: int, prompt: str, reference: str | None
) -> TokenizedRecord:
    if mask:
        mask[0] = False
    return TokenizedRecord(record_id, ids, tuple(mask), prompt_length, prompt, reference)
