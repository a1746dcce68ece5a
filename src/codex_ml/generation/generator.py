"""The one text generator: batched, greedy or sampled, whole or as a stream, safety on both sides."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from codex_ml.data.tokenization.tokenizer import answer_ends
from codex_ml.errors import UserError
from codex_ml.generation.decoding import Decoding
from codex_ml.generation.filters import EncodeText, FilteredPrompt, OutputStream, TextFilter, filter_prompt_tokens
from codex_ml.generation.requests import Generation, GenerationRequest, StreamedPiece
from codex_ml.generation.streaming import LOOK_AHEAD_TOKENS, Row
from codex_ml.modeling.modes import evaluation_mode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def never(_index: int) -> bool:
    """Say that no request was cancelled."""
    return False


class TextGenerator:
    """Answers prompts with one model.

    The tokens of an answer depend on the weights, the prompt and the settings of its request and on nothing else: in
    float32 not on the batch that it is computed in.

    Parameters
    ----------
    model : nn.Module
        Causal language model, with or without a PEFT adapter. Its mode is left as it was.
    tokenizer : PreTrainedTokenizerBase
        Decodes the answers; its begin token (or, without one, its end token) replaces an empty prompt.
    filter_prompt, filter_output : callable, optional
        Safety filters. A redacted prompt keeps its special tokens; what cannot be made clean is blocked.
    open_output_stream : callable, optional
        Gives a filter for one answer that is streamed. Required with ``filter_output``, or a stream would pass by it.
    encode_text : callable, optional
        Makes ids of redacted text; by default the tokenizer does, in this process.
    stop_token_ids : collection of int, optional
        Tokens that end an answer; by default end-of-sequence, and what the chat template ends turns with. Empty: only
        limits and stop strings end it.
    device : torch.device or str, optional
        Where the model is; by default where its first parameter is.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        filter_prompt: TextFilter | None = None,
        filter_output: TextFilter | None = None,
        open_output_stream: Callable[[], OutputStream] | None = None,
        encode_text: EncodeText | None = None,
        stop_token_ids: Collection[int] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self._model, self._tokenizer, self._device = model, tokenizer, device
        self._filter_prompt, self._filter_output = filter_prompt, filter_output
        self._open_output_stream, self._encode_text = open_output_stream, encode_text
        self._stop_token_ids = frozenset(answer_ends(tokenizer) if stop_token_ids is None else stop_token_ids)

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        batch_size: int = 32,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[Generation]:
        """Answer every request; the batch size changes the speed and, in float32, nothing else.

        Parameters
        ----------
        requests : sequence of GenerationRequest
            Prompts are used as they are: nothing is added before or after.
        batch_size : int
            Prompts in one forward pass. Those of similar length share a batch, so that little is padded.
        on_progress : callable, optional
            Called with requests done and requests in all after each batch.

        Returns
        -------
        list of Generation
            One for each request, in their order.

        Raises
        ------
        UserError
            If the batch size is out of range, a prompt is empty and no token can replace it, or a prompt and its
            answer do not fit into the positions of the model; before anything is generated.
        ModelError, NonFiniteError
            If the model cannot generate.
        """
        if batch_size < 1:
            raise UserError(
                f"batch_size is {batch_size}", fix="it must be at least 1", code="GENERATION_PARAMETER_OUT_OF_RANGE"
            )
        rows = [self._row(request, prompt, False) for request, prompt in self._prepared(requests)]
        waiting = [index for index, row in enumerate(rows) if row.ended is None]
        # Longest first: a batch that does not fit into memory fails at once and not after an hour.
        waiting.sort(key=lambda index: -len(rows[index].prompt.token_ids or ()))
        done = len(rows) - len(waiting)
        for start in range(0, len(waiting), batch_size):
            batch = [rows[index] for index in waiting[start : start + batch_size]]
            for _ in self._decode(batch):
                pass
            done += len(batch)
            if on_progress is not None:
                on_progress(done, len(rows))
        return [row.finish(self._filter_output)[1] for row in rows]

    def stream(
        self, requests: Sequence[GenerationRequest], *, cancelled: Callable[[int], bool] = never
    ) -> Iterator[StreamedPiece]:
        """Answer some requests side by side in one batch and give out their texts as they come.

        The pieces of an answer make up its `Generation.text`. What the output filter lets through is that of
        `generate`, but where a later line shows an earlier one to be forbidden, or blocks: what was given out stays.

        Parameters
        ----------
        cancelled : callable
            Asked before each token whether the request of this number is still wanted.

        Raises
        ------
        UserError, ModelError, NonFiniteError
            As `generate`, with the first piece.
        """
        rows = [self._row(request, prompt, True) for request, prompt in self._prepared(requests)]
        for index, row in enumerate(rows):
            if row.ended is not None:
                yield StreamedPiece(index, *row.finish(None))
        numbers = [index for index, row in enumerate(rows) if row.ended is None]
        batch = [rows[index] for index in numbers]
        for place, shown in self._decode(batch, lambda place: cancelled(numbers[place])):
            row = batch[place]
            if row.ended is None:
                yield StreamedPiece(numbers[place], shown)
            else:
                rest, generation = row.finish(None)
                yield StreamedPiece(numbers[place], shown + rest, generation)

    def _decode(self, rows: Sequence[Row], cancelled: Callable[[int], bool] = never) -> Iterator[tuple[int, str]]:
        """Let rows grow until each has ended, and yield the place of a row and what may be shown, token by token."""
        if not rows:
            return
        device = torch.device(self._device) if self._device is not None else next(self._model.parameters()).device
        pad_token_id = self._tokenizer.pad_token_id
        decoding = Decoding(
            self._model,
            [row.prompt.token_ids or () for row in rows],
            [row.sampler for row in rows],
            pad_token_id=pad_token_id if isinstance(pad_token_id, int) else 0,
            device=device,
        )
        running = set(range(len(rows)))
        while running:
            for place in sorted(running):
                if cancelled(place):
                    rows[place].cancel()
                    running.remove(place)
                    yield place, ""
            if not running:
                return
            decoding.keep(running)
            # Disabled for each step, not around the yield: the reader of the stream keeps its gradients.
            with evaluation_mode(self._model):
                chosen = decoding.step()
            for place, token_id in chosen:
                shown = rows[place].take(token_id)
                if rows[place].ended is not None:
                    running.remove(place)
                yield place, shown

    def _row(self, request: GenerationRequest, prompt: FilteredPrompt, streamed: bool) -> Row:
        stream = None
        if streamed and self._open_output_stream is not None:
            stream = self._open_output_stream()
        elif streamed and self._filter_output is not None:
            raise ValueError("a stream is asked for, and the output filter has no form for streams")
        limit = maximum_positions(self._model)
        needed = len(prompt.token_ids or ()) + request.sampling.max_new_tokens
        return Row(
            self._tokenizer,
            prompt,
            request.sampling,
            self._stop_token_ids,
            stream=stream,
            streamed=streamed,
            filter_output=self._filter_output,
            look_ahead=LOOK_AHEAD_TOKENS if limit is None else max(0, min(LOOK_AHEAD_TOKENS, limit - needed)),
        )

    def _prepared(self, requests: Sequence[GenerationRequest]) -> list[tuple[GenerationRequest, FilteredPrompt]]:
        """Return every request with its prompt after the filter; each fits into the context of the model."""
        prepared = [
            (request, _prepare(self._tokenizer, index, request.prompt_ids, self._filter_prompt, self._encode_text))
            for index, request in enumerate(requests)
        ]
        require_room(
            self._model,
            [len(prompt.token_ids or ()) for _, prompt in prepared],
            [request.sampling.max_new_tokens for request, _ in prepared],
        )
        return prepared


def require_room(model: nn.Module, prompt_lengths: Sequence[int], max_new_tokens: Sequence[int]) -> None:
    """Raise a `UserError` when a prompt and its answer need more positions than the model has.

    Parameters
    ----------
    model : nn.Module
        Its configuration names the positions; one that names none (relative positions) takes any length.
    prompt_lengths, max_new_tokens : sequence of int
        Tokens of each prompt, and the limit of its answer.
    """
    limit = maximum_positions(model)
    if limit is None:
        return
    needed = [length + new for length, new in zip(prompt_lengths, max_new_tokens, strict=True)]
    too_long = [index for index, count in enumerate(needed) if count > limit]
    if too_long:
        index = max(too_long, key=needed.__getitem__)
        raise UserError(
            f"{len(too_long)} of {len(needed)} prompts do not leave enough positions for "
            f"{max_new_tokens[index]} new tokens; number {index + 1} is the longest ({prompt_lengths[index]} tokens)",
            why=f"the model has {limit} positions for a prompt and its answer together",
            fix="lower max_new_tokens, or shorten or leave out the long prompts",
            code="GENERATION_PROMPT_TOO_LONG",
        )


def maximum_positions(model: nn.Module) -> int | None:
    """Return how many positions the configuration of the model names, or None when it names no limit."""
    configuration = getattr(model, "config", None)
    text_configuration = getattr(configuration, "get_text_config", lambda: configuration)()
    limit = getattr(text_configuration, "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def _prepare(
    tokenizer: PreTrainedTokenizerBase,
    index: int,
    prompt: Sequence[int],
    filter_prompt: TextFilter | None,
    encode_text: EncodeText | None,
) -> FilteredPrompt:
    filtered = (
        FilteredPrompt(tuple(prompt))
        if filter_prompt is None
        else filter_prompt_tokens(tokenizer, prompt, filter_prompt, encode_text)
    )
    if filtered.token_ids != ():
        return filtered
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if not isinstance(begin, int):
        raise UserError(
            f"prompt {index + 1} is empty",
            why="the tokenizer has neither a begin nor an end token that could replace an empty prompt",
            fix="give the prompt at least one token",
            code="GENERATION_PROMPT_EMPTY",
        )
    return replace(filtered, token_ids=(begin,))
