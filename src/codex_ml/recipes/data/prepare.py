"""Preparation of data: raw files into clean records, splits and perhaps a tokenizer, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from codex_ml.config.schema.safety import SafetySection
from codex_ml.data.accounting import REJECTS_NAME, rejects_ndjson
from codex_ml.data.prepare.config import PreparerConfig
from codex_ml.data.prepare.files import (
    MANIFEST_NAME,
    Change,
    PrepareAccount,
    RecordMaker,
    WriteRecords,
    changes,
    digests_below,
    exclusive_lock,
    publish,
    recover,
    what_is_there,
    write_records,
)
from codex_ml.data.prepare.registry import Preparer
from codex_ml.data.prepare.tokenizer import texts_of, train_byte_level_bpe
from codex_ml.data.readers.jsonl import iter_jsonl
from codex_ml.data.records.builder import FilterText
from codex_ml.data.split_utils import SPLIT_NAMES
from codex_ml.data.splits.command import SplitOptions, split_file
from codex_ml.data.splits.staging import staging
from codex_ml.errors import DataError, UserError
from codex_ml.io.atomic import Storage, file_digest, json_bytes, remove_abandoned, staged_pattern
from codex_ml.io.fetching import Fetcher
from codex_ml.io.untrusted import kind_of
from codex_ml.recipes.inputs import emit, open_filters

RECORDS_NAME, SPLITS_NAME, TOKENIZER_NAME = "records.jsonl", "splits", "tokenizer"


@dataclass(frozen=True)
class PrepareDependencies:
    """What a preparation works with; tests pass others in.

    Attributes
    ----------
    fetch_fn : callable
        ``(url, sha256, target)``: brings a raw file, or says why not.
    write_fn : callable
        ``(records, file)``: writes records into a binary file and returns how many.
    tokenizer_factory : callable
        ``(texts, vocabulary_size, directory)``: trains a tokenizer.
    filter_text : callable
        The safety filter that every text passes before a tokenizer learns from it; default: the default policy.
    storage : Storage
        The disk.
    """

    fetch_fn: Callable[[str, str, Path], None] = field(default_factory=Fetcher)
    write_fn: WriteRecords = write_records
    tokenizer_factory: Callable[[Iterable[str], int, Path], None] = train_byte_level_bpe
    filter_text: FilterText = field(default_factory=lambda: open_filters(SafetySection()).apply)
    storage: Storage = field(default_factory=Storage)


@dataclass(frozen=True)
class Prepared:
    """What was prepared.

    Attributes
    ----------
    directory : Path
        Where it lies.
    changes : dict
        What became of each file: created, updated, skipped or removed.
    account : dict
        What became of the rows.
    splits : dict
        Number of records of each split.
    """

    directory: Path
    changes: dict[str, Change]
    account: dict[str, Any]
    splits: dict[str, int]


def prepare_data(
    name: str,
    preparer: Preparer,
    sources: Sequence[Path],
    out: Path,
    dependencies: PrepareDependencies | None = None,
) -> Prepared:
    """Make records, splits and perhaps a tokenizer of raw files.

    The directory appears, or is replaced, as a whole. Where the same sources were prepared in the same way already,
    nothing is written.

    Parameters
    ----------
    name : str
        Name of the preparer, for the manifest.
    preparer : Preparer
        What to do.
    sources : sequence of Path
        Raw files; a directory stands for the files in it. None: the preparer's own file is fetched.
    out : Path
        The directory to be made.
    dependencies : PrepareDependencies, optional
        Default: the real ones.

    Raises
    ------
    DataError, UserError, DiskSpaceError
        If a source cannot be used, or ``out`` holds something else. Nothing has changed then.
    """
    dependencies = dependencies or PrepareDependencies()
    storage, out = dependencies.storage, out.resolve()
    with exclusive_lock(out, storage):
        recover(out, storage)
        remove_abandoned(out.parent, staged_pattern(out), storage)
        before = what_is_there(out)
        files = _raw_files(sources, preparer.config, out, dependencies)
        origin = _origin(name, preparer, files)
        if before is not None and before.get("origin") == origin:
            return Prepared(out, changes(before["outputs"], before["outputs"]), before["account"], before["splits"])
        with staging(out, storage) as root:
            made = root / "made"
            storage.make_directory(made)
            account, splits = _build(preparer, files, made, dependencies)
            if _origin(name, preparer, files) != origin:
                raise DataError("--source: a file changed while it was read", fix="prepare when nothing writes to it")
            manifest = {
                "schema_version": 1,
                "origin": origin,
                "account": account.to_dict(),
                "splits": splits,
                "outputs": digests_below(made),
            }
            storage.write_bytes(made / MANIFEST_NAME, json_bytes(manifest))
            return Prepared(out, publish(made, out, before, storage), account.to_dict(), splits)


def _raw_files(
    sources: Sequence[Path], config: PreparerConfig, out: Path, dependencies: PrepareDependencies
) -> list[Path]:
    if not sources and config.url is not None and config.sha256 is not None:
        raw = out.with_name(f"{out.name}.raw") / Path(urlsplit(config.url).path).name
        if not raw.is_file():
            dependencies.fetch_fn(config.url, config.sha256, raw)
        sources = [raw]
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            files += _files_in(source)
        elif source.exists():
            files.append(source)
        else:
            raise DataError(f"--source: {source} does not exist", fix="correct the path, or make the file")
    if not files:
        raise UserError("this preparer needs a raw file", fix="name it: --source FILE")
    if config.sha256 is not None:
        _refuse_other_file(files, config.sha256)
    return files


def _files_in(source: Path) -> list[Path]:
    """Return the files of a directory; hidden ones and directories are reported, anything else is refused.

    Raises
    ------
    DataError
        If it holds no file, a link that leads out of it, or something that is neither a file nor a directory.
    """
    inside, left_out = [], []
    for path in sorted(source.iterdir()):
        if path.name.startswith("."):
            left_out.append(path.name)
            continue
        try:
            leads_out = path.is_symlink() and not path.resolve(strict=True).is_relative_to(source.resolve())
            kind = kind_of(path.stat().st_mode)
        except (OSError, RuntimeError) as error:
            raise _not_read(path, "it is a symbolic link that leads to no file") from error
        if leads_out:
            raise _not_read(path, "it is a symbolic link that leads out of the directory; you did not name its target")
        if path.is_dir():
            left_out.append(f"{path.name}/")
        elif kind is not None:
            raise _not_read(path, f"it is {kind}")
        else:
            inside.append(path)
    if not inside:
        raise DataError(f"--source: {source} holds no file", fix="name a file, or a directory of files")
    if left_out:
        shown = ", ".join(map(repr, left_out[:5])) + (", …" if len(left_out) > 5 else "")
        emit(f"--source: {len(left_out)} entries of {source} are not read (hidden files and directories): {shown}")
    return inside


def _not_read(path: Path, why: str) -> DataError:
    return DataError(
        f"--source: {path} is not read",
        why=why,
        fix="remove it from the directory, or name each file: --source FILE",
    )


def _refuse_other_file(files: Sequence[Path], sha256: str) -> None:
    found = file_digest(files[0]).removeprefix("sha256:")
    if len(files) > 1 or found != sha256:
        what = f"{len(files)} files are given" if len(files) > 1 else f"{files[0].name} has sha256 {found}"
        raise DataError(
            f"--source: {what}, and this preparer is for the one file with sha256 {sha256}",
            fix="give that file, or use the general preparers: text, records",
        )


def _origin(name: str, preparer: Preparer, files: Sequence[Path]) -> dict[str, Any]:
    """Return all that decides what comes out."""
    return {
        "preparer": name,
        "config": preparer.config.model_dump(mode="json"),
        "preparer_code": preparer.code_digest or None,
        "codex_ml": version("codex-ml"),
        "sources": [{"name": file.name, "bytes": file.stat().st_size, "digest": file_digest(file)} for file in files],
    }


def _build(
    preparer: Preparer, files: Sequence[Path], made: Path, dependencies: PrepareDependencies
) -> tuple[PrepareAccount, dict[str, int]]:
    config = preparer.config
    maker = RecordMaker(config)
    with (made / RECORDS_NAME).open("wb") as file:
        written = dependencies.write_fn(_all_records(preparer, files, maker), file)
    if written != maker.account.records_written:
        raise DataError(
            f"{maker.account.records_written} records were made and {written} written",
            why="a record was lost; nothing is kept",
            fix="this is a fault of codex-ml: please report it",
        )
    if config.on_bad_record == "drop":
        (made / REJECTS_NAME).write_bytes(rejects_ndjson(maker.rejects))
    options = SplitOptions(
        config.split.ratios, SPLIT_NAMES, config.split.seed, config.split.group_by, config.split.exact_sizes
    )
    report = split_file(made / RECORDS_NAME, made / SPLITS_NAME, options, dependencies.storage)
    if config.vocabulary_size is not None:
        directory = made / TOKENIZER_NAME
        dependencies.storage.make_directory(directory)
        train = (line.value for line in iter_jsonl(made / SPLITS_NAME / "train.jsonl"))
        texts = _fit_to_learn(texts_of(train), dependencies.filter_text)
        dependencies.tokenizer_factory(texts, config.vocabulary_size, directory)
    return maker.account, {part.name: part.records for part in report.parts}


def _fit_to_learn(texts: Iterable[str], filter_text: FilterText) -> Iterator[str]:
    """Yield texts as the safety filters let them be trained on; a vocabulary is read by whoever gets the tokenizer."""
    for text in texts:
        filtered = filter_text(text)
        if filtered.action in {"keep", "redact"}:
            yield filtered.text


def _all_records(preparer: Preparer, files: Sequence[Path], maker: RecordMaker) -> Iterator[dict[str, Any]]:
    for file in files:
        yield from maker.records(file, preparer.read_fn(file, preparer.config))
    maker.finish()
