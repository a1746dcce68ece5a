"""Options that the commands of `codex-ml data` share, and how they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from codex_ml.errors import UserError

RecordFormatName = Annotated[
    str,
    typer.Option(
        "--format", metavar="FORMAT", help="Record format, as in data.format; auto: detected from the first record."
    ),
]
FormatColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="FIELD=NAME",
        help="Field name in the file, such as prompt=question; repeatable.",
    ),
]
MaxLineBytes = Annotated[
    int,
    typer.Option(
        "--max-line-bytes",
        metavar="BYTES",
        min=1,
        max=1 << 30,
        help="Maximum length of a line or table row in bytes, as in data.max_line_bytes.",
    ),
]


def column_names(pairs: Sequence[str] | None) -> dict[str, str]:
    """Return field -> name in the file, as in ``data.columns``.

    Raises
    ------
    UserError
        If one has no two sides, or a field is mapped twice.
    """
    columns: dict[str, str] = {}
    for pair in pairs or ():
        field, _, name = pair.partition("=")
        if not field or not name:
            raise UserError(
                "--column: a mapping has two sides",
                fix="write --column FIELD=NAME, such as --column prompt=question",
                code="CLI_OPTION_VALUE",
            )
        if field in columns:
            raise UserError(f"--column: {field} is mapped twice", fix="write it once", code="CLI_OPTION_REPEATED")
        columns[field] = name
    return columns


def shares(text: str) -> list[float]:
    """Return the shares that ``--ratios`` lists.

    Raises
    ------
    UserError
        If they are not numbers.
    """
    try:
        return [float(part.strip()) for part in text.split(",")]
    except ValueError as error:
        raise UserError(
            f"--ratios: {text!r} is not a list of numbers",
            fix="write one share for each split: --ratios 0.9,0.05,0.05",
            code="CLI_OPTION_VALUE",
        ) from error
