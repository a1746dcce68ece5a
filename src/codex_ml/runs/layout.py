"""Names and paths of a run directory, and the files in it that the toolkit may touch."""

from __future__ import annotations

import difflib
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from codex_ml.errors import UserError
from codex_ml.io.atomic import Storage
from codex_ml.io.clock import format_time
from codex_ml.io.untrusted import kind_of, read_json

# Read and written in all their depth; what trackers keep in directories of their own is their business.
_OWN_DIRECTORIES = ("checkpoints", "eval")


def require_own_files(directory: Path) -> None:
    """Refuse a run directory in which something leads elsewhere: what is written through it would be written there.

    Raises
    ------
    UserError
        With the first entry that is no file and no directory.
    """
    for entry in _entries(directory):
        try:
            kind = kind_of(entry.stat(follow_symlinks=False).st_mode)
        except FileNotFoundError:
            continue  # an active run has moved or deleted it meanwhile
        if kind is not None and not entry.is_dir(follow_symlinks=False):
            raise UserError(
                f"{directory} is not used: {Path(entry.path).relative_to(directory)} is {kind}",
                why="codex-ml puts none into a run, and what a run writes through it would be written elsewhere",
                fix="find out who put it there, and remove it or put the file itself there",
                code="RUN_FOREIGN_FILE",
            )


def _entries(directory: Path) -> Iterator[os.DirEntry[str]]:
    yield from _scan(directory)
    pending = [directory / name for name in _OWN_DIRECTORIES]
    while pending:
        for entry in _scan(pending.pop()):
            yield entry
            if entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))


def _scan(directory: Path) -> list[os.DirEntry[str]]:
    if directory.is_symlink() and directory.name in _OWN_DIRECTORIES:
        return []
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


RunStatus = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
_RECORD_BYTES, _LONGEST_TEXT = 65536, 200
# Of a checkpoint: the state of the trainer as JSON, and that of optimizer and generators as tensors.
TRAINER_STATE_NAME = "trainer_state.json"
TRAINING_STATE_NAME = "training_state.safetensors"
_STAMP_FORMAT = "%Y%m%dT%H%M%SZ"
_RUN_NAME = re.compile(r"\d{8}T\d{6}Z-(?P<name>.+)")


@dataclass(frozen=True)
class RunLayout:
    """Names of the files in one run directory (DESIGN.md, section 5)."""

    directory: Path

    @property
    def record(self) -> Path:
        """Identity and status of the run."""
        return self.directory / "run.json"

    @property
    def lock(self) -> Path:
        """File whose kernel lock says that a process is working here."""
        return self.directory / "run.lock"

    @property
    def config(self) -> Path:
        """Resolved configuration."""
        return self.directory / "config.yaml"

    @property
    def provenance(self) -> Path:
        """Digests, versions, seeds and the safety policy."""
        return self.directory / "provenance.json"

    @property
    def data_account(self) -> Path:
        """Rows and tokens by split and reason."""
        return self.directory / "data_account.json"

    @property
    def data_splits(self) -> Path:
        """Digest, size and membership of each split."""
        return self.directory / "data_splits.json"

    @property
    def rejects(self) -> Path:
        """Lines of the data files that were left out, with reason and position, one JSON object a line."""
        return self.directory / "rejects.ndjson"

    @property
    def metrics(self) -> Path:
        """Metrics, one JSON object a line."""
        return self.directory / "metrics.ndjson"

    @property
    def events(self) -> Path:
        """Lifecycle, warnings, sink status and safety audit, one JSON object a line."""
        return self.directory / "events.ndjson"

    @property
    def checkpoints(self) -> Path:
        """Directory of checkpoints and of the pointers `latest` and `best`."""
        return self.directory / "checkpoints"

    @property
    def evaluations(self) -> Path:
        """Directory that holds one directory an evaluated checkpoint."""
        return self.directory / "eval"


@dataclass(frozen=True)
class RunRecord:
    """Identity and state of a run; times are UTC in RFC 3339.

    Attributes
    ----------
    ended : str, optional
        When it ended; None while it runs, and forever if its process died unexpectedly.
    found_dead : str, optional
        When a later command found that its process was gone, and closed it as KILLED.
    last_sign_of_life : str, optional
        Of a run that was found dead: when it last wrote a file. It ended between then and `found_dead`.
    """

    run_id: str
    name: str
    started: str
    status: RunStatus
    ended: str | None = None
    found_dead: str | None = None
    last_sign_of_life: str | None = None


@dataclass(frozen=True)
class Unreadable:
    """A directory that is named like a run and cannot be read as one, and why."""

    directory: Path
    reason: str


def format_stamp(moment: datetime) -> str:
    """Return a moment as the UTC stamp that begins the names of directories."""
    return moment.astimezone(UTC).strftime(_STAMP_FORMAT)


def create_run(output_dir: Path, name: str, started: datetime, storage: Storage) -> tuple[RunLayout, RunRecord]:
    """Make a new private run directory ``<UTC stamp>-<name>`` and write its record.

    Raises
    ------
    UserError
        If the directory cannot be made (missing rights, a file in the way).
    """
    stamp = format_stamp(started)
    directory = output_dir / f"{stamp}-{name}"
    try:
        storage.make_directory(output_dir)
        attempt = 1
        while True:
            try:
                storage.make_one_directory(directory)
                break
            except FileExistsError:
                # Two runs of one name within one second: the later gets a number, nobody shares a directory.
                attempt += 1
                directory = output_dir / f"{stamp}-{name}.{attempt}"
    except OSError as error:
        raise UserError(
            f"run.output_dir: cannot make a run directory in {output_dir}",
            why=error.strerror or str(error),
            fix="choose another run.output_dir, or correct its permissions",
            code="RUN_DIRECTORY_INACCESSIBLE",
        ) from error
    layout = RunLayout(directory)
    record = RunRecord(run_id=secrets.token_hex(8), name=name, started=format_time(started), status="RUNNING")
    try:
        storage.fsync_directory(output_dir)
        storage.make_directory(layout.checkpoints)
        write_record(layout, record, storage)
    except OSError:
        # A full disk, say: without its record it is no run, only something to stumble over.
        storage.remove_tree(directory)
        raise
    return layout, record


def write_record(layout: RunLayout, record: RunRecord, storage: Storage) -> None:
    """Write the run's record atomically."""
    storage.write_json(layout.record, asdict(record))


def close_record(
    layout: RunLayout, record: RunRecord, status: RunStatus, ended: datetime, storage: Storage
) -> RunRecord:
    """Write how the run ended and return the new record."""
    closed = replace(record, status=status, ended=format_time(ended), found_dead=None, last_sign_of_life=None)
    write_record(layout, closed, storage)
    return closed


def read_record(layout: RunLayout, *, any_files: bool = False) -> RunRecord:
    """Read the run's record.

    Parameters
    ----------
    layout : RunLayout
        The run.
    any_files : bool
        Accept a run that contains links, pipes or devices: to delete it, or to report each of them.

    Raises
    ------
    UserError
        If the directory is not a run directory, its record is damaged, or it holds links, pipes or devices.
    """
    if not any_files:
        require_own_files(layout.directory)
    try:
        record = RunRecord(**read_json(layout.record, _RECORD_BYTES, follow_links=False))
        _check_record(record)
        return record
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"{layout.directory} is not a run directory",
            why="it has no run.json",
            fix="name a directory below runs/, or a checkpoint directory",
            code="RUN_NOT_FOUND",
        ) from error
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{layout.record} is damaged", why=str(error), fix="restore the file from a copy", code="RUN_FILE_DAMAGED"
        ) from error


def is_named_for(directory: Path, name: str) -> bool:
    """Tell whether `create_run` may have made a directory for a run of this name; its record is not asked."""
    match = _RUN_NAME.fullmatch(directory.name)
    return match is not None and re.fullmatch(rf"{re.escape(name)}(\.\d+)?", match["name"]) is not None


def is_renamed(directory: Path) -> bool:
    """Tell whether a directory has a name that `create_run` gives to none."""
    return _RUN_NAME.fullmatch(directory.name) is None


def _check_record(record: RunRecord) -> None:
    """Refuse a record whose values could not be shown or compared; a run directory may be untrusted."""
    texts = [record.run_id, record.name, record.started, record.status]
    if not all(isinstance(value, str) for value in texts):
        raise ValueError("run_id, name, started and status must be text")
    texts += [value for value in (record.ended, record.found_dead, record.last_sign_of_life) if value is not None]
    if not all(isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST_TEXT for value in texts):
        raise ValueError("it holds what is no printable text")
    if "/" in record.name:
        raise ValueError("its name is none that codex-ml gives")
    if record.status not in get_args(RunStatus):
        raise ValueError(f"the status {record.status!r} is none of {', '.join(get_args(RunStatus))}")
    datetime.fromisoformat(record.started)


def find_runs(output_dir: Path, name: str | None = None) -> list[tuple[RunLayout, RunRecord]]:
    """Return the runs below a directory, newest first by their recorded start (not by directory name or mtime).

    A run is known by its record, whatever its directory is called now. Directories without a readable one are passed
    over: they are no runs, or died before they became one.
    """
    return [(layout, record) for layout, record in read_runs(output_dir)[0] if name is None or record.name == name]


def read_runs(output_dir: Path) -> tuple[list[tuple[RunLayout, RunRecord]], list[Unreadable]]:
    """Return the runs below a directory, newest first by their recorded start, and what only looks like one."""
    found: list[tuple[RunLayout, RunRecord]] = []
    unreadable: list[Unreadable] = []
    if not output_dir.is_dir():
        return found, unreadable
    for directory in sorted(output_dir.iterdir()):
        if not _may_be_run(directory):
            continue
        layout = RunLayout(directory)
        try:
            found.append((layout, read_record(layout)))
        except UserError as error:
            unreadable.append(Unreadable(directory, f"{error.what}: {error.why}"))
        except PermissionError:
            unreadable.append(Unreadable(directory, "it belongs to another user"))
    found.sort(key=lambda pair: (pair[1].started, pair[0].directory.name), reverse=True)
    return found, unreadable


def _may_be_run(directory: Path) -> bool:
    """Tell whether a directory has a record, whatever its name is, or at least the name of a run."""
    # Hidden are torsos: what is being removed, and staging.
    if directory.name.startswith(".") or not directory.is_dir():
        return False
    if not is_renamed(directory):
        return True
    # A second name for a run that is listed already, such as a link `newest`, is no second run.
    alias = directory.is_symlink() and directory.resolve().parent == directory.parent.resolve()
    return not alias and RunLayout(directory).record.exists()


_SHOWN_RUNS = 5


def resolve_run(reference: str, output_dir: Path) -> RunLayout:
    """Return the run that a reference means.

    Parameters
    ----------
    reference : str
        ``latest`` (the newest run by its recorded start), a run directory, or the name of a directory below
        ``output_dir``.
    output_dir : Path
        Where runs lie.

    Raises
    ------
    UserError
        If there is no such run; the message names those that are there.
    """
    if reference == "latest":
        runs = find_runs(output_dir)
        if not runs:
            raise UserError(
                f"there is no run in {output_dir}",
                fix="train first, or name the place: --output-dir DIR",
                code="RUN_NOT_FOUND",
            )
        return runs[0][0]
    for directory in (Path(reference), output_dir / reference):
        layout = RunLayout(directory)
        if layout.record.is_file():
            return layout
    raise UserError(
        f"there is no run {reference}",
        why=f"neither {Path(reference).absolute()} nor {(output_dir / reference).absolute()} holds a run.json",
        fix=_advice(reference, output_dir),
        code="RUN_NOT_FOUND",
    )


def near_names(name: str, names: Iterable[str]) -> list[str]:
    """Return the names that a mistyped one probably meant, each once, the nearest first."""
    return difflib.get_close_matches(name, dict.fromkeys(names))


def _advice(reference: str, output_dir: Path) -> str:
    runs = find_runs(output_dir)
    if not runs:
        return f"{output_dir} holds no runs; name the place: --output-dir DIR"
    directories = [layout.directory.name for layout, _ in runs]
    meant = next((layout.directory.name for layout, record in runs if record.name == reference), None)
    near = difflib.get_close_matches(reference, directories, n=1)
    meant = meant or (near[0] if near else None)
    hint = f"did you mean {meant}? " if meant else ""
    more = " …" if len(directories) > _SHOWN_RUNS else ""
    return f"{hint}{output_dir} holds {', '.join(directories[:_SHOWN_RUNS])}{more}"
