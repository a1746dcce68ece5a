"""One prompt answered, or a conversation held: the texts go out as they come, what concerns the user beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from codex_ml.data.conversations.messages import Message
from codex_ml.errors import UserError
from codex_ml.generation.requests import Generation
from codex_ml.recipes.answering import Answerer, require_template
from codex_ml.stopping import STOP

RESET = "/reset"


def answer_prompt(answerer: Answerer, prompt: str, write: Callable[[str], None], say: Callable[[str], None]) -> None:
    """Answer one prompt.

    Parameters
    ----------
    answerer : Answerer
        The model.
    prompt : str
        Given to the model as it is.
    write : callable
        Takes the answer piece by piece.
    say : callable
        Takes what is said of it.

    Raises
    ------
    UserError
        If the prompt cannot be answered.
    """
    _answer(answerer, prompt, "prompt", write, say)


def hold_conversation(
    answerer: Answerer,
    turns: Iterable[str],
    write: Callable[[str], None],
    say: Callable[[str], None],
    *,
    system: str | None = None,
) -> None:
    """Answer turn after turn, each with all that was said before; ``/reset`` begins anew, an empty turn is passed over.

    Parameters
    ----------
    turns : iterable of str
        What the user says.
    system : str, optional
        What stands before the first turn.

    Raises
    ------
    UserError
        If there is no chat template, or a turn cannot be answered, as when the conversation has grown too long.
    """
    require_template(answerer)
    beginning = [] if system is None else [Message(role="system", content=system)]
    said = list(beginning)
    number = 0
    for turn in turns:
        STOP.check()
        if turn.strip() == RESET:
            said = list(beginning)
            say("the conversation begins anew")
        elif turn.strip():
            number += 1
            said.append(Message(role="user", content=turn))
            answer = _answer(answerer, said, f"turn-{number}", write, say)
            said.append(Message(role="assistant", content=answer.text))


def _answer(
    answerer: Answerer,
    prompt: str | list[Message],
    name: str,
    write: Callable[[str], None],
    say: Callable[[str], None],
) -> Generation:
    try:
        request = answerer.request(prompt, answerer.config.generation.seed)
    except ValueError as error:
        raise UserError(
            f"the {'prompt' if isinstance(prompt, str) else 'conversation'} cannot be answered",
            why=str(error),
            fix="shorten it, or lower generation.max_new_tokens"
            if isinstance(prompt, str)
            else f"begin anew with {RESET}, or lower generation.max_new_tokens",
        ) from error
    last_character = "\n"
    result: Generation | None = None
    for piece in answerer.stream(request, name):
        if isinstance(piece, Generation):
            result = piece
        else:
            write(piece)
            last_character = piece[-1]
    assert result is not None, "a stream ends with its result"
    if last_character != "\n" or not result.text:
        write("\n")
    for line in remarks(result):
        say(line)
    return result


def remarks(generation: Generation) -> list[str]:
    """Return what the user should know of an answer beyond its text; rules by name, never what they matched."""
    lines = []
    if generation.prompt_redacted and generation.finish_reason == "blocked" and not generation.token_count:
        lines.append(f"warning: the safety policy blocks the prompt ({_rules(generation.prompt_findings)})")
        return lines
    if generation.prompt_redacted:
        lines.append(f"warning: the safety policy changed the prompt ({_rules(generation.prompt_findings)})")
    if generation.finish_reason == "blocked":
        lines.append(f"warning: the safety policy blocks the answer ({_rules(generation.output_findings)})")
    elif generation.redacted:
        lines.append(f"warning: the safety policy changed the answer ({_rules(generation.output_findings)})")
    if generation.finish_reason == "length":
        lines.append(f"the answer was cut at {generation.token_count} tokens (generation.max_new_tokens)")
    return lines


def _rules(findings: Iterable[object]) -> str:
    names = sorted({str(getattr(finding, "rule_id", "?")) for finding in findings})
    return f"rule {', '.join(names)}" if names else "no rule named"
