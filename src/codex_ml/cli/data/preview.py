"""`codex-ml data preview`: the first records as the model will see them, supervised tokens told from the others."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codex_ml.cli.boundary import print_results
from codex_ml.cli.options import ConfigDirectory, ConfigName, Overrides
from codex_ml.io.stopping import STOP
from codex_ml.io.terminal import visible

if TYPE_CHECKING:
    from codex_ml.recipes.data.preview import PreviewedRecord, ShownToken

_INDENT = "  "
_DATA_FILES = ("data.train", "data.valid", "data.test")


def preview(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Data file (read only).")],
    overrides: Overrides = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="PATH", help="Model or tokenizer directory (default: from the config)."),
    ] = None,
    records: Annotated[int, typer.Option("--records", min=1, help="Number of records to show, from the first.")] = 5,
    record: Annotated[
        int | None,
        typer.Option("--record", min=1, help="Show only this record, counted from 1; fast if FILE has a manifest."),
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Print one line per token, with its id.")] = False,
    whole: Annotated[bool, typer.Option("--whole", help="Show long records completely.")] = False,
    config_name: ConfigName = None,
    config_dir: ConfigDirectory = None,
) -> None:
    """Show records as the model will see them, filtered, tokenised and cut as the configuration says.

    Supervised tokens are green on a terminal and enclosed in ⟦ ⟧ elsewhere; ↵ marks a line end of the record.
    """
    with STOP.deferred():
        from codex_ml.config.compose import compose
        from codex_ml.config.validate import validate_train
        from codex_ml.recipes.data.preview import preview_records
    STOP.check()

    values: dict[str, object] = {"data.path": file, **dict.fromkeys(_DATA_FILES)}
    if model is not None:
        values |= {"model.path": model, "model.name": None, "model.revision": None}
        values |= {"model.preset": None, "model.tokenizer": None}
    composed = compose("train", config_name or "default", config_dir, overrides or (), extra_values=values)
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for previewed in preview_records(validate_train(composed), file, records, record, whole=whole):
        # Characters of the record are made visible before they are coloured, so only our own colours get through.
        print_results(_rendered(previewed, colour, ids), is_visible=True)


def _rendered(previewed: PreviewedRecord, colour: bool, ids: bool) -> Iterator[str]:
    yield visible(f"{previewed.name}: {previewed.outcome}")
    if previewed.plain:
        yield _indented(_shown(previewed.plain))
    elif ids:
        yield from _table(previewed, colour)
    elif previewed.tokens:
        tokens, head = previewed.tokens, previewed.head
        yield _indented(_marked(tokens[:head], colour))
        if previewed.left_out:
            yield f"{_INDENT}… {previewed.left_out:,} tokens are not shown (--whole) …"
            yield _indented(_marked(tokens[head:], colour))


def _marked(tokens: Sequence[ShownToken], colour: bool) -> str:
    """Return text with its supervised stretches marked, by colour or by brackets; special tokens are bold."""
    parts: list[str] = []
    for supervised, stretch in groupby(tokens, key=lambda token: token.supervised):
        if colour:
            parts += [_coloured(token) for token in stretch]
        else:
            text = "".join(_shown(token.text) for token in stretch)
            parts.append(f"⟦{text}⟧" if supervised else text)
    return "".join(parts)


def _coloured(token: ShownToken) -> str:
    text = _shown(token.text)
    if not token.supervised and not token.special:
        return text
    return typer.style(text, fg=typer.colors.GREEN if token.supervised else None, bold=token.special or None)


def _table(previewed: PreviewedRecord, colour: bool) -> Iterator[str]:
    for index, token in enumerate(previewed.tokens):
        if previewed.left_out and index == previewed.head:
            yield f"{_INDENT}… {previewed.left_out:,} tokens are not shown (--whole) …"
        position = index if index < previewed.head else index + previewed.left_out
        kind = "special" if token.special else ""
        yield f"{_INDENT}{position:>7,}  {token.token_id:>7}  {kind:7}  {_marked([token], colour)}".replace("↵\n", "↵")


def _shown(text: str) -> str:
    return visible(text).replace("\n", "↵\n")


def _indented(text: str) -> str:
    # Whatever a record holds, it cannot pass for a line of ours.
    return "\n".join(_INDENT + line for line in text.split("\n"))
