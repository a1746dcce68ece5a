"""Collects what a run was made of (weights, data, configuration, code, versions, seeds) to be shown later."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from codex_ml.io.atomic import Storage, bytes_digest, file_digest
from codex_ml.io.clock import format_time
from codex_ml.offline import OFFLINE_SWITCHES, PRIVACY_SWITCHES
from codex_ml.runs.tokenizer_files import extra_tokenizer_files

PROVENANCE_VERSION = 1
LIBRARIES = (
    "codex-ml",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "tokenizers",
    "safetensors",
    "numpy",
    "pydantic",
    "hydra-core",
    "omegaconf",
    "jinja2",
    "sacrebleu",
    "rouge-score",
    "psutil",
    "mlflow",
)
# What decides how a model computes and reads text; other files of a model directory (READMEs, images) do not.
_MODEL_SUFFIXES = (".safetensors", ".json", ".model", ".jinja", ".txt")
# NO_PROXY is left out: where a user set it, it names hosts.
_SWITCHES = (
    *(name for name in (*OFFLINE_SWITCHES, *PRIVACY_SWITCHES) if name != "NO_PROXY"),
    "NO_NETWORK",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "MKL_CBWR",
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "PYTHONHASHSEED",
)
_GIT_TIMEOUT_SECONDS = 10.0


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def run_git(arguments: Sequence[str], directory: Path) -> str | None:
    """Return what git prints, or None when there is no git, no repository, or no answer in time."""
    try:
        answer = subprocess.run(  # nosec B607: the user's own git, without a shell; it reads local files only
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            check=False,
            timeout=_GIT_TIMEOUT_SECONDS,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.decode("utf-8", "replace").strip() if answer.returncode == 0 else None


@dataclass(frozen=True)
class ProvenanceDependencies:
    """Where provenance is read from; the defaults are this process and this machine."""

    version: Callable[[str], str | None] = installed_version
    git: Callable[[Sequence[str], Path], str | None] = run_git
    environment: Mapping[str, str] | None = None
    package_directory: Path = Path(__file__).resolve().parent.parent


def collect_provenance(
    *,
    run_id: str,
    started: datetime,
    config_digest: str,
    model_directory: Path | None,
    model_name: str | None = None,
    model_revision: str | None = None,
    tokenizer_directory: Path | None = None,
    digest_of: Callable[[Path], str] = file_digest,
    data: Mapping[str, Any],
    safety: Mapping[str, Any],
    seeds: Mapping[str, int],
    threads: Mapping[str, int],
    compute: Mapping[str, Any] | None = None,
    dependencies: ProvenanceDependencies | None = None,
) -> dict[str, Any]:
    """Return everything a later reader needs to tell whether a run can be repeated, and with what.

    The result names no host, no user (but who turned the safety filters off) and no absolute path: such a path in what
    the caller passes is cut to its last part (but for ``bypass_reason``, which is the user's own words).

    Parameters
    ----------
    run_id : str
        Identity of the run.
    started : datetime
        When it started.
    config_digest : str
        Digest of the resolved configuration.
    model_directory : Path, optional
        The base model; None for one made from a preset.
    model_name : str, optional
        What it is called; default: the name of the directory.
    model_revision : str, optional
        Commit of the snapshot, for a model out of the Hugging Face cache.
    tokenizer_directory : Path, optional
        The tokenizer, where it does not lie beside the base model (one made from a preset).
    digest_of : callable
        Gives the digest of a file of the model; a cache may supply it.
    data : mapping
        Digests of the data files and splits, from the data manifest.
    safety : mapping
        Policy digest, whether filters are on, and the reason where they are not.
    seeds : mapping of str to int
        Every seed by its purpose.
    threads : mapping of str to int
        Thread counts of the numeric libraries: they decide the order of additions, so the last bits of results.
    compute : mapping, optional
        Device, dtype and the kernels chosen.
    dependencies : ProvenanceDependencies, optional
        Where versions, revision and environment are read.

    Raises
    ------
    OSError
        If a file of the base model cannot be read.
    """
    dependencies = dependencies if dependencies is not None else ProvenanceDependencies()
    environment = os.environ if dependencies.environment is None else dependencies.environment
    collected = {
        "provenance_version": PROVENANCE_VERSION,
        "run_id": run_id,
        "started": format_time(started),
        "config_digest": config_digest,
        "base_model": (
            model_identity(model_directory, model_name, model_revision, digest_of)
            if model_directory is not None
            else None
        ),
        "tokenizer": (
            model_identity(tokenizer_directory, digest_of=digest_of) if tokenizer_directory is not None else None
        ),
        "data": data,
        "safety": safety,
        "seeds": seeds,
        "threads": threads,
        "compute": compute if compute is not None else {},
        "code": code_identity(dependencies.package_directory, dependencies.git),
        "versions": {name: dependencies.version(name) for name in LIBRARIES},
        "platform": platform_identity(),
        "environment": {name: environment[name] for name in sorted(_SWITCHES) if name in environment},
    }
    return {key: _without_directories(value, key) for key, value in collected.items()}


def model_identity(
    directory: Path,
    name: str | None = None,
    revision: str | None = None,
    digest_of: Callable[[Path], str] = file_digest,
    with_extra: bool = True,
) -> dict[str, Any]:
    """Return the digest and size of each file that makes a model what it is, and one digest over them all.

    Older versions did not count the extra files of a tokenizer; ``with_extra=False`` leaves them out as they did.

    Returns
    -------
    dict
        ``name`` (on the hub, or of the directory), ``revision`` (commit; None for a directory), ``digest`` (over the
        sorted names and digests), ``files`` (name to ``digest`` and ``bytes``).
    """
    beside = {file.name for file in directory.iterdir() if file.suffix in _MODEL_SUFFIXES and file.is_file()}
    extra = extra_tokenizer_files(directory) if with_extra else []
    files = {
        name: {"digest": digest_of(directory / name), "bytes": (directory / name).stat().st_size}
        for name in sorted(beside.union(extra))
    }
    return {
        "name": name if name is not None else directory.name,
        "revision": revision,
        "digest": _digest_of((name, files[name]["digest"]) for name in files),
        "files": files,
    }


def code_identity(
    package_directory: Path, git: Callable[[Sequence[str], Path], str | None] = run_git
) -> dict[str, Any]:
    """Return which code ran: a digest over the package's sources, and the git revision where it is a checkout.

    Returns
    -------
    dict
        ``source_digest`` (over every ``.py`` file, also when git knows nothing), ``git_commit`` (None when the package
        is installed, not checked out), ``git_dirty`` (whether the package differs from that commit).
    """
    sources = sorted(package_directory.rglob("*.py"))
    names = [(file.relative_to(package_directory).as_posix(), file_digest(file)) for file in sources]
    commit, dirty = None, None
    # A package installed into a virtual environment below some other project's checkout is no part of that project.
    if git(["ls-files", "--error-unmatch", "__init__.py"], package_directory) is not None:
        commit = git(["rev-parse", "HEAD"], package_directory)
        changes = git(["status", "--porcelain", "--untracked-files=all", "--", "."], package_directory)
        dirty = None if changes is None else bool(changes)
    return {"source_digest": _digest_of(names), "git_commit": commit, "git_dirty": dirty}


def platform_identity() -> dict[str, str]:
    """Return system, kernel, processor architecture and Python; not the machine's name."""
    return {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip(),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
    }


def write_provenance(path: Path, provenance: Mapping[str, Any], storage: Storage | None = None) -> None:
    """Write ``provenance.json`` atomically."""
    (storage if storage is not None else Storage()).write_json(path, provenance)


def _digest_of(names_and_digests: Any) -> str:
    return bytes_digest("".join(f"{name} {digest}\n" for name, digest in names_and_digests).encode("utf-8"))


def _without_directories(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _without_directories(item, str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_directories(item, key) for item in value]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str) and key != "bypass_reason":
        for kind in (PurePosixPath, PureWindowsPath):
            if kind(value).is_absolute():
                return kind(value).name
    return value
