"""`codex-ml data manifest`: what identifies a file, and where each record begins; or whether it is still that file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codex_ml.cli.boundary import print_json, print_results
from codex_ml.cli.data.options import MaxLineBytes
from codex_ml.cli.options import AsJson
from codex_ml.io.stopping import STOP

if TYPE_CHECKING:
    from codex_ml.data.inspect.offsets import FileManifest, LoadedManifest


def manifest(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON Lines file (read only).")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="PATH",
            help=("Path of the manifest; the offsets are written next to it (default: next to FILE)."),
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Compare FILE with its manifest; write nothing.")] = False,
    max_line_bytes: MaxLineBytes = 16 * 1024 * 1024,
    as_json: AsJson = False,
) -> None:
    """Write SHA-256, size, schema and the offset of every record of a file, so that one is read by seeking."""
    with STOP.deferred():
        from codex_ml.data.inspect.offsets import check_manifest, load_manifest, make_manifest, manifest_path
        from codex_ml.io.atomic import Storage
    STOP.check()

    target = output or manifest_path(file)
    if check:
        loaded, outcome = load_manifest(target), "agrees"
        check_manifest(file, loaded)
    else:
        loaded, written = make_manifest(file, target, Storage(), max_line_bytes)
        outcome = "written" if written else "unchanged"
    if as_json:
        answer = {**loaded.content.model_dump(mode="json"), "outputs": str(loaded.path), "outcome": outcome}
        print_json(answer)
    else:
        print_results(_rendered(loaded, outcome))


def _rendered(loaded: LoadedManifest, outcome: str) -> Iterator[str]:
    content = loaded.content
    yield f"{content.file}: {content.records:,} records, {content.bytes:,} bytes, {content.digest}"
    if content.empty_lines:
        yield f"empty lines: {content.empty_lines:,}"
    yield f"shapes: {_counted(content.shapes)}"
    yield from _fields(content)
    yield {
        "agrees": "the file and its offsets are those of the manifest",
        "unchanged": "size and time of the file are those of its manifest; nothing was written",
        "written": f"offsets: {loaded.offsets_path}",
    }[outcome]
    yield f"outputs: {loaded.path}"


def _fields(content: FileManifest) -> Iterator[str]:
    for name, types in content.fields.items():
        yield f"field {name}: {_counted(types)}"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
