"""The one text generator: greedy, batched, results in the order of the prompts, safety on both sides."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from codex_ml.data.tokenize import answer_ends
from codex_ml.errors import UserError
from codex_ml.generation.decoding import DecodedRow, decode_greedily
from codex_ml.generation.prompt_filter import FilteredPrompt, filter_prompt_tokens
from codex_ml.generation.text_filter import TextFilter, allowed_text
from codex_ml.modeling.modes import evaluation_mode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Generation:
    """What the model said to one prompt.

    Attributes
    ----------
    text : str
        The new text without special tokens, after the output filter.
    token_ids : tuple of int
        The new tokens without the stop token; empty when the filter changed the text, because they would still
        spell what it took out.
    token_count : int
        How many tokens were generated, the stop token not counted, whatever the filter did.
    finish_reason : str
        ``"stop"``: a stop token came; ``"length"``: the limit came first; ``"blocked"``: the policy let the prompt
        or the whole answer not through, and the text is empty.
    prompt_findings, output_findings : tuple
        What the filters found, for the audit.
    redacted : bool
        Whether the output filter changed the text.
    prompt_redacted : bool
        Whether the prompt filter changed the prompt or took it away.
    """

    text: str
    token_ids: tuple[int, ...]
    token_count: int
    finish_reason: Literal["stop", "length", "blocked"]
    prompt_findings: tuple[Any, ...] = ()
    output_findings: tuple[Any, ...] = ()
    redacted: bool = False
    prompt_redacted: bool = False


def generate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int = 32,
    stop_token_ids: Collection[int] | None = None,
    device: torch.device | str | None = None,
    filter_prompt: TextFilter | None = None,
    filter_output: TextFilter | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Generation]:
    """Generate greedily for every prompt; the batch size changes the speed and, in float32, nothing else.

    Parameters
    ----------
    model : nn.Module
        Causal language model, with or without a PEFT adapter. Its mode is left as it was.
    tokenizer : PreTrainedTokenizerBase
        Decodes the answers; its begin token (or, without one, its end token) stands for an empty prompt.
    prompts : sequence of token id sequences
        Used as they are: nothing is added before or after.
    max_new_tokens : int
        Limit for each answer; 0 gives empty texts that end by ``"length"``.
    batch_size : int
        Prompts in one forward pass. Prompts of similar length share a batch, so that little is padded.
    stop_token_ids : collection of int, optional
        Tokens that end an answer; by default end-of-sequence, and what the chat template ends turns with. Empty: only
        the limit ends it.
    device : torch.device or str, optional
        Where the model is; by default where its first parameter is.
    filter_prompt, filter_output : callable, optional
        Safety filters. A redacted prompt keeps its special tokens; what cannot be made clean is blocked.
    on_progress : callable, optional
        Called with prompts done and prompts in all after each batch.

    Returns
    -------
    list of Generation
        One for each prompt, in the order of the prompts.

    Raises
    ------
    UserError
        If a limit is out of range, a prompt is empty and no token can stand for it, or a prompt and its answer do not
        fit into the positions of the model; before anything is generated.
    """
    if max_new_tokens < 0 or batch_size < 1:
        raise UserError(
            f"max_new_tokens is {max_new_tokens} and batch_size is {batch_size}",
            fix="max_new_tokens must be at least 0 and batch_size at least 1",
        )
    prepared = [_prepare(tokenizer, index, prompt, filter_prompt) for index, prompt in enumerate(prompts)]
    lengths = [len(prompt.token_ids) if prompt.token_ids is not None else 0 for prompt in prepared]
    require_room(model, lengths, max_new_tokens)
    if stop_token_ids is None:
        stop_token_ids = answer_ends(tokenizer)
    stops = frozenset(stop_token_ids)
    pad_token_id = tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else 0
    results: dict[int, Generation] = {}
    open_indices = []
    for index, prompt in enumerate(prepared):
        if prompt.token_ids is None:
            results[index] = Generation("", (), 0, "blocked", prompt_findings=prompt.findings)
        elif max_new_tokens == 0:
            results[index] = Generation("", (), 0, "length", prompt_findings=prompt.findings)
        else:
            open_indices.append(index)
    # Longest first: a batch that does not fit into memory fails at once and not after an hour.
    open_indices.sort(key=lambda index: -lengths[index])
    done = len(prompts) - len(open_indices)
    with evaluation_mode(model):
        for start in range(0, len(open_indices), batch_size):
            indices = open_indices[start : start + batch_size]
            rows = decode_greedily(
                model,
                [prepared[index].token_ids or () for index in indices],
                max_new_tokens=max_new_tokens,
                stop_token_ids=stops,
                pad_token_id=pad_token_id,
                device=torch.device(device) if device is not None else next(model.parameters()).device,
            )
            for index, row in zip(indices, rows, strict=True):
                results[index] = _finish(tokenizer, row, prepared[index].findings, filter_output)
            done += len(indices)
            if on_progress is not None:
                on_progress(done, len(prompts))
    return [replace(results[index], prompt_redacted=prompt.redacted) for index, prompt in enumerate(prepared)]


def require_room(model: nn.Module, prompt_lengths: Sequence[int], max_new_tokens: int) -> None:
    """Raise a `UserError` when a prompt and its answer need more positions than the model has.

    Parameters
    ----------
    model : nn.Module
        Its configuration names the positions; one that names none (relative positions) takes any length.
    prompt_lengths : sequence of int
        Tokens of each prompt.
    """
    limit = maximum_positions(model)
    if limit is None:
        return
    too_long = [index for index, length in enumerate(prompt_lengths) if length + max_new_tokens > limit]
    if too_long:
        index = max(too_long, key=lambda candidate: prompt_lengths[candidate])
        raise UserError(
            f"{len(too_long)} of {len(prompt_lengths)} prompts do not leave room for {max_new_tokens} new tokens; "
            f"the longest is number {index + 1} with {prompt_lengths[index]} tokens",
            why=f"the model has {limit} positions for a prompt and its answer together",
            fix="lower max_new_tokens, or shorten or leave out the long prompts",
        )


def maximum_positions(model: nn.Module) -> int | None:
    """Return how many positions the configuration of the model names, or None when it names no limit."""
    configuration = getattr(model, "config", None)
    text_configuration = getattr(configuration, "get_text_config", lambda: configuration)()
    limit = getattr(text_configuration, "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def _prepare(
    tokenizer: PreTrainedTokenizerBase, index: int, prompt: Sequence[int], filter_prompt: TextFilter | None
) -> FilteredPrompt:
    filtered = (
        FilteredPrompt(tuple(prompt))
        if filter_prompt is None
        else filter_prompt_tokens(tokenizer, prompt, filter_prompt)
    )
    if filtered.token_ids != ():
        return filtered
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if not isinstance(begin, int):
        raise UserError(
            f"prompt {index + 1} is empty",
            why="the tokenizer has neither a begin nor an end token that could stand for an empty prompt",
            fix="give the prompt at least one token",
        )
    return replace(filtered, token_ids=(begin,))


def _finish(
    tokenizer: PreTrainedTokenizerBase,
    row: DecodedRow,
    prompt_findings: tuple[Any, ...],
    filter_output: TextFilter | None,
) -> Generation:
    text = tokenizer.decode(list(row.token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    plain = Generation(text, row.token_ids, len(row.token_ids), row.finish_reason, prompt_findings)
    if filter_output is None:
        return plain
    filtered = filter_output(text)
    findings = tuple(filtered.findings)
    allowed = allowed_text(filtered)
    if allowed is None:
        return replace(plain, text="", token_ids=(), finish_reason="blocked", output_findings=findings, redacted=True)
    if allowed != text:
        return replace(plain, text=allowed, token_ids=(), output_findings=findings, redacted=True)
    return replace(plain, output_findings=findings)
