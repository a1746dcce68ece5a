"""The only download path: disabled unless --online is given, and only for named files with a known digest."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from codex_ml.errors import UserError
from codex_ml.io.atomic import Storage, open_locked_file, remove_abandoned, staged_path, staged_pattern
from codex_ml.offline import GUARD, NetworkGuard

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 30.0


class Fetcher:
    """Fetches files by URL and digest.

    Parameters
    ----------
    online : bool
        Whether the user has asked for it.
    environment : mapping, optional
        ``NO_NETWORK`` set in it forbids it all the same; default: that of the process.
    guard : NetworkGuard
        Lifted for the time of a transfer.
    largest_bytes : int
        A longer answer is refused.
    """

    def __init__(
        self,
        online: bool = False,
        environment: Mapping[str, str] | None = None,
        guard: NetworkGuard = GUARD,
        largest_bytes: int = 1 << 34,
    ) -> None:
        forced = (os.environ if environment is None else environment).get("NO_NETWORK", "").strip() not in ("", "0")
        self._online = online and not forced
        self._why = "NO_NETWORK is set" if forced else "codex-ml works offline unless --online is given"
        self._guard = guard
        self._largest_bytes = largest_bytes

    def __call__(self, url: str, sha256: str, target: Path, storage: Storage | None = None) -> None:
        """Fetch a file to ``target``: whole, with the expected digest, or not at all.

        Raises
        ------
        UserError
            If fetching is off, or the server does not give the file, or gives another.
        """
        if not self._online:
            raise UserError(
                f"{target.name} is not here, and is not fetched from {url}",
                why=self._why,
                fix=f"bring the file yourself and name it: --source FILE (sha256 {sha256})",
                code="NETWORK_NOT_ALLOWED",
            )
        storage = storage or Storage()
        storage.make_directory(target.parent)
        remove_abandoned(target.parent, staged_pattern(target), storage)
        staged = staged_path(target)
        was_active = self._guard.active
        self._guard.deactivate()
        try:
            # Locked until it has its name: another process removes what is not.
            with open_locked_file(staged) as file:
                found = self._transfer(url, file)
                if found != sha256:
                    raise UserError(
                        f"{url} gives another file than expected",
                        why=f"sha256 is {found}, expected is {sha256}",
                        fix="see whether the file was changed by its owner; what was fetched is not kept",
                        code="NETWORK_DIGEST_DIFFERS",
                    )
                file.flush()
                storage.fsync_file(staged)
                storage.replace(staged, target)
                storage.fsync_directory(target.parent)
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            raise UserError(
                f"{url} cannot be fetched",
                why=f"{type(error).__name__}: {error}",
                fix="try again, or bring the file yourself and name it: --source FILE",
                code="NETWORK_DOWNLOAD_FAILED",
            ) from error
        finally:
            if was_active:
                self._guard.activate()
            staged.unlink(missing_ok=True)

    def _transfer(self, url: str, file: BinaryIO) -> str:
        """Write what a URL gives into a file and return its SHA-256."""
        if not url.startswith(("https://", "http://")):
            raise UserError(
                f"{url} is not fetched",
                why="only https and http are",
                fix="correct the URL",
                code="NETWORK_URL_UNSUPPORTED",
            )
        digest = hashlib.sha256()
        size_bytes = 0
        # Bandit fears other schemes; they were refused just above.
        request = urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS)  # nosec B310
        with request as answer:
            while chunk := answer.read(_CHUNK_BYTES):
                size_bytes += len(chunk)
                if size_bytes > self._largest_bytes:
                    what = f"{url} gives more than {self._largest_bytes} bytes"
                    raise UserError(
                        what, fix="bring the file yourself: --source FILE", code="NETWORK_DOWNLOAD_TOO_LARGE"
                    )
                digest.update(chunk)
                file.write(chunk)
        return digest.hexdigest()
