"""Finds a model by its name in the local Hugging Face cache: path logic only, the hub is never called."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from codex_ml.errors import ModelError
from codex_ml.io.untrusted import read_bytes

DEFAULT_REVISION = "main"
_REPOSITORY_PREFIX = "models--"
_SHOWN = 8
_REF_BYTES = 1024


@dataclass(frozen=True)
class Snapshot:
    """One revision of a model in the cache.

    Attributes
    ----------
    name : str
        As on the hub, such as ``organisation/model``.
    commit : str
        The revision that a branch or tag stood for when it was fetched.
    directory : Path
        Holds the files; in the usual layout each is a link into ``blobs/``.
    """

    name: str
    commit: str
    directory: Path


def cache_directory(environment: Mapping[str, str]) -> Path:
    """Return where huggingface_hub keeps its cache, by the variables that it reads, in its order.

    ``HF_HUB_CACHE``, ``HUGGINGFACE_HUB_CACHE`` (its older name), ``HF_HOME``/hub, ``XDG_CACHE_HOME``/huggingface/hub,
    ``~/.cache/huggingface/hub``.
    """
    home = environment.get("HOME", "~")
    for variable, below in (
        ("HF_HUB_CACHE", "."),
        ("HUGGINGFACE_HUB_CACHE", "."),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
    ):
        # As the hub's own library does, ~ and $NAME are filled in.
        value = Template(environment.get(variable, "")).safe_substitute(environment)
        if value:
            expanded = home + value[1:] if value == "~" or value.startswith("~/") else value
            return Path(os.path.normpath(Path(expanded).absolute() / below))
    return Path(home) / ".cache" / "huggingface" / "hub"


def find_snapshot(name: str, revision: str | None = None, environment: Mapping[str, str] | None = None) -> Snapshot:
    """Return the snapshot of a model that the cache holds.

    Parameters
    ----------
    name : str
        ``ORGANISATION/MODEL``; the schema has checked its characters.
    revision : str, optional
        Branch, tag or whole commit; default: the branch ``main``.
    environment : mapping, optional
        Says where the cache is; default: that of the process.

    Raises
    ------
    ModelError
        If the cache, the model, the revision or files of it are not there: where it looked, what is there, and how to
        bring what is missing.
    """
    cache = cache_directory(os.environ if environment is None else environment)
    repository = cache / (_REPOSITORY_PREFIX + name.replace("/", "--"))
    option = f" --revision {revision}" if revision else ""
    bring = (
        f"on a machine with network: `hf download {name}{option}`, then copy its "
        f"{repository.name} (below ~/.cache/huggingface/hub, links and blobs: rsync -a, tar) into {cache}; or download "
        "with `--local-dir DIR`, copy DIR here and set model.path to it"
    )
    if not repository.is_dir():
        raise ModelError(
            f"model.name: {name} is not in the Hugging Face cache",
            why=f"looked for {repository}; {_what_the_cache_holds(cache, name)}",
            fix=bring,
            code="MODEL_NOT_IN_CACHE",
        )
    commit = _commit_of(repository, revision or DEFAULT_REVISION)
    directory = repository / "snapshots" / (commit or "")
    if commit is None or not directory.is_dir():
        raise ModelError(
            f"model.name: the Hugging Face cache has no revision {revision or DEFAULT_REVISION} of {name}",
            why=f"{repository} holds {_what_the_model_has(repository)}",
            fix=f"set model.revision to one that is there, or {bring}",
            code="MODEL_REVISION_NOT_IN_CACHE",
        )
    dangling = sorted(entry.name for entry in directory.iterdir() if entry.is_symlink() and not entry.exists())
    if dangling:
        raise ModelError(
            f"model.name: files of {name} in the Hugging Face cache are links to nothing",
            why=f"in {directory}: {', '.join(dangling[:_SHOWN])}; the blobs were not copied, or a download broke off",
            fix=bring,
            code="MODEL_CACHE_BROKEN_LINKS",
        )
    return Snapshot(name, commit, directory)


def _commit_of(repository: Path, revision: str) -> str | None:
    """Return the commit of a revision: the content of its ref, or the revision itself; None if there is no such ref."""
    try:
        commit = read_bytes(repository / "refs" / revision, _REF_BYTES).decode("utf-8").strip()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        commit = revision
    # A ref file is data from elsewhere: it names one directory, and never a way out of this one.
    if not commit or "/" in commit or commit in (".", ".."):
        return None
    return commit


def _what_the_cache_holds(cache: Path, name: str) -> str:
    if not cache.is_dir():
        return f"there is no cache at {cache} (HF_HUB_CACHE or HF_HOME say where it is)"
    prefix = len(_REPOSITORY_PREFIX)
    names = sorted(entry.name[prefix:].replace("--", "/", 1) for entry in cache.glob(f"{_REPOSITORY_PREFIX}*"))
    lowered = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name.lower(), lowered, n=1)
    hint = f"did you mean {lowered[near[0]]}? " if near else ""
    return f"{hint}{cache} holds {_listing(names, 'no models')}"


def _what_the_model_has(repository: Path) -> str:
    references = repository / "refs"
    named = sorted(path.relative_to(references).as_posix() for path in references.rglob("*") if path.is_file())
    snapshots = repository / "snapshots"
    commits = sorted(entry.name for entry in snapshots.iterdir()) if snapshots.is_dir() else []
    return f"refs: {_listing(named, 'none')}; snapshots: {_listing(commits, 'none')}"


def _listing(names: list[str], none: str) -> str:
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "") if names else none
