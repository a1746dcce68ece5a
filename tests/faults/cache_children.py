"""Builds one entry of a token cache in children of its own, which are killed, or run at once; used by its tests."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from codex_ml.data.storage.arrays import RecordLocation, StoredRecords, TokenArraysWriter
from codex_ml.data.storage.cache import TokenCache
from codex_ml.data.tokenization.tokenizer import TokenizedRecord
from codex_ml.io.atomic import Storage

KEY = "a" * 64
RECORDS = [
    TokenizedRecord(f"f.jsonl:{number}", (1, 2, number), (False, True, True), 1, f"prompt {number}", "r")
    for number in range(1, 500)
]


class KillingStorage(Storage):
    """Dies before an operation, or in the middle of it, as if the power were cut for this process alone."""

    def __init__(self, operation: int, half: bool) -> None:
        self._left = operation
        self._half = half
        self.count = 0

    def _step(self) -> bool:
        """Count; tell whether this is the operation in whose middle to die."""
        self.count += 1
        self._left -= 1
        if self._left == 0 and not self._half:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._left == 0

    def open_file(self, path: Path, flags: int) -> int:
        """Die before a file is made."""
        if flags & os.O_CREAT:
            self._step()
        return super().open_file(path, flags)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Die before a write, or behind the first half of it."""
        if self._step():
            super().write(descriptor, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return super().write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        """Die before something is forced to the disk."""
        self._step()
        super().fsync(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """Die before a rename."""
        self._step()
        super().replace(source, target)

    def make_one_directory(self, path: Path) -> None:
        """Die before a directory is made."""
        self._step()
        super().make_one_directory(path)

    def remove_tree(self, path: Path) -> None:
        """Die before a directory is deleted, or when one file of it is gone."""
        if self._step():
            next(iter(sorted(path.iterdir()))).unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        super().remove_tree(path)


def take_or_build(directory: Path, storage: Storage | None = None) -> list[TokenizedRecord]:
    """Do what a run does: take the entry, or build it; return the records."""
    cache = TokenCache(directory, storage)
    entry = cache.open(KEY)
    if entry is not None:
        return list(StoredRecords(entry.arrays["train"]))
    with cache.building(KEY) as builder:
        writer = TokenArraysWriter(builder.sinks("train"))
        for number, record in enumerate(RECORDS, start=1):
            writer.add(record, RecordLocation("f.jsonl", number, number, bytes(16), b""))
            if number % 100 == 0:
                writer.flush()
        writer.flush()
        records = StoredRecords(builder.arrays("train", writer.file_names))
        builder.publish({"file_names": {"train": writer.file_names}}, b"")
        return list(records)


def in_child(action: Callable[[], bool]) -> int:
    """Start a child that does something and exits 0 where it says that all is well; return its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        code = 0 if action() else 3
    except BaseException:  # noqa: BLE001 - the end of a child: it says what happened, and leaves
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """Wait for a child; return its exit code, or the negative number of the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_everywhere(place: Path) -> dict[str, object]:
    """Kill a builder at every operation; return what each left for the next, which must be whole or nothing."""
    counting = KillingStorage(0, half=False)
    take_or_build(place / "undisturbed", counting)
    faults, survivors = [], 0
    for operation in range(1, counting.count + 1):
        for half in (False, True):
            directory = place / f"{operation}-{half}"
            storage = KillingStorage(operation, half)
            code = ended(in_child(lambda: bool(take_or_build(directory, storage))))  # noqa: B023 - called at once
            survivors += code == 0
            after = ended(in_child(lambda: take_or_build(directory) == RECORDS))  # noqa: B023 - called at once
            again = ended(in_child(lambda: take_or_build(directory) == RECORDS))  # noqa: B023 - called at once
            left = sorted(item.name for item in directory.iterdir() if not item.name.startswith("."))
            if code not in (0, -signal.SIGKILL) or (after, again) != (0, 0) or left != [KEY]:
                faults.append([operation, half, code, after, again, left])
    return {"operations": counting.count, "survivors": survivors, "faults": faults}


def all_at_once(place: Path) -> dict[str, object]:
    """Let several processes take or build the same entry while another deletes it, many times."""
    faults = []
    for number in range(25):
        directory = place / str(number)
        children = [in_child(lambda: take_or_build(directory) == RECORDS) for _ in range(4)]  # noqa: B023 - at once
        children.append(in_child(lambda: all(TokenCache(directory).discard(KEY) is None for _ in range(50))))  # noqa: B023
        codes = [ended(child) for child in children]
        whole = take_or_build(directory) == RECORDS
        left = sorted(item.name for item in directory.iterdir())
        if codes != [0] * 5 or not whole or left != [KEY]:
            faults.append([number, codes, whole, left])
    return {"faults": faults}


if __name__ == "__main__":
    work = {"kill": kill_everywhere, "race": all_at_once}[sys.argv[1]]
    print(json.dumps(work(Path(sys.argv[2]))))
