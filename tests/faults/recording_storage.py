"""A storage that does every operation for real and keeps a log of it, and the disks that a power loss may leave."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from codex_ml.io.atomic import Storage

# Of a directory: its names as of its last fsync, all that were there, or the one or the other for each.
Names = Literal["synced", "at_once", "either"]
# Of a file: what its last fsync left, that and half of what came later, all of it, or one of the three for each.
Data = Literal["synced", "torn", "kept", "either"]
# The kernel's lock is bound to the process, and the debug log is kept for as long as it is, and no longer, by design.
IGNORED = ("run.lock", "debug.log")


@dataclass(frozen=True)
class Operation:
    """One change of the disk, or one request to force something to it; paths are relative to the recorded root."""

    kind: Literal["create", "write", "truncate", "sync", "rename", "unlink", "make_directory", "remove_directory"]
    node: int
    path: str = ""
    target: str = ""
    data: bytes = b""
    size_bytes: int = 0


@dataclass
class Node:
    """A file or directory: what the running system sees, and what has been forced to the disk."""

    is_directory: bool
    content: bytes = b""
    synced_content: bytes = b""
    # How much of the content has been the same since it was last forced to the disk.
    untouched_bytes: int = 0
    names: dict[str, int] = field(default_factory=dict)
    synced_names: dict[str, int] = field(default_factory=dict)


class Disk:
    """What operations have made of a tree, seen from the running system and from behind a power loss."""

    ROOT = 0

    def __init__(self) -> None:
        self.nodes = {self.ROOT: Node(is_directory=True)}

    def find(self, path: str) -> int | None:
        """Return the node that the running system finds at a path."""
        node = self.ROOT
        for part in Path(path).parts:
            found = self.nodes[node].names.get(part)
            if found is None:
                return None
            node = found
        return node

    def apply(self, operation: Operation) -> None:
        """Do what an operation does."""
        getattr(self, f"_{operation.kind}")(operation)

    def after_power_loss(self, names: Names, data: Data, chance: random.Random) -> dict[str, bytes | None]:
        """Return the files (bytes) and directories (None) that are there when the power comes back."""
        tree: dict[str, bytes | None] = {}
        self._collect(self.ROOT, "", (names, data), chance, tree)
        return tree

    def _collect(
        self,
        number: int,
        prefix: str,
        model: tuple[Names, Data],
        chance: random.Random,
        tree: dict[str, bytes | None],
    ) -> None:
        names, data = model
        node = self.nodes[number]
        at_once = names == "at_once" or (names == "either" and chance.random() < 0.5)
        for name, child in sorted((node.names if at_once else node.synced_names).items()):
            path = f"{prefix}{name}"
            if self.nodes[child].is_directory:
                tree[path] = None
                self._collect(child, f"{path}/", model, chance, tree)
            else:
                tree[path] = _surviving(self.nodes[child], data, chance)

    def _names_beside(self, path: str) -> dict[str, int]:
        parent = self.find(str(Path(path).parent))
        assert parent is not None, f"the directory of {path} is known"
        return self.nodes[parent].names

    def _create(self, operation: Operation) -> None:
        self.nodes[operation.node] = Node(is_directory=False)
        self._names_beside(operation.path)[Path(operation.path).name] = operation.node

    def _make_directory(self, operation: Operation) -> None:
        self.nodes[operation.node] = Node(is_directory=True)
        self._names_beside(operation.path)[Path(operation.path).name] = operation.node

    def _write(self, operation: Operation) -> None:
        self.nodes[operation.node].content += operation.data

    def _truncate(self, operation: Operation) -> None:
        node = self.nodes[operation.node]
        node.content = node.content[: operation.size_bytes]
        node.untouched_bytes = min(node.untouched_bytes, operation.size_bytes)

    def _sync(self, operation: Operation) -> None:
        node = self.nodes[operation.node]
        node.synced_content, node.synced_names = node.content, dict(node.names)
        node.untouched_bytes = len(node.content)

    def _rename(self, operation: Operation) -> None:
        moved = self._names_beside(operation.path).pop(Path(operation.path).name)
        self._names_beside(operation.target)[Path(operation.target).name] = moved

    def _unlink(self, operation: Operation) -> None:
        del self._names_beside(operation.path)[Path(operation.path).name]

    def _remove_directory(self, operation: Operation) -> None:
        self._unlink(operation)


class RecordingStorage(Storage):
    """Does and records; what is changed under the root by others than itself is recorded too, as never forced.

    Parameters
    ----------
    root : Path
        Existing directory; what lies outside is not recorded. What lies in it counts as on the disk.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.log: list[Operation] = []
        self._disk = Disk()
        self._open: dict[int, int] = {}
        self._stamps: dict[str, tuple[int, int, int]] = {}
        self._discover()
        for number in list(self._disk.nodes):
            self._record(Operation("sync", number))
        # How many records it took to write down what was there.
        self.began_at = len(self.log)

    def open_file(self, path: Path, flags: int) -> int:
        """Record a new name, and that a file was emptied."""
        name = self._enter(path)
        descriptor = super().open_file(path, flags)
        if name is None:
            return descriptor
        if name and self._disk.find(name) is None:
            self._create(name)
        node = self._disk.find(name)
        assert node is not None
        if flags & os.O_TRUNC and self._disk.nodes[node].content:
            self._record(Operation("truncate", node))
        self._open[descriptor] = node
        self._note_stamp(name)
        return descriptor

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Record what the kernel took; every writer of the toolkit appends."""
        self._discover()
        written = super().write(descriptor, data)
        self._record_open("write", descriptor, data=bytes(data[:written]))
        return written

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        """Record that a file was cut."""
        self._discover()
        super().truncate(descriptor, size_bytes)
        self._record_open("truncate", descriptor, size_bytes=size_bytes)

    def fsync(self, descriptor: int) -> None:
        """Record what was forced to the disk."""
        self._discover()
        super().fsync(descriptor)
        self._record_open("sync", descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """Record a rename."""
        name, new_name = self._enter(source), self._enter(target)
        super().replace(source, target)
        assert name is not None
        assert new_name is not None
        node = self._disk.find(name)
        assert node is not None
        self._record(Operation("rename", node, name, new_name))
        moved = {path: stamp for path, stamp in self._stamps.items() if path == name or path.startswith(f"{name}/")}
        for path, stamp in moved.items():
            del self._stamps[path]
            self._stamps[new_name + path.removeprefix(name)] = stamp

    def unlink(self, path: Path) -> None:
        """Record a deletion."""
        name = self._enter(path)
        super().unlink(path)
        if name is not None:
            self._forget(name)

    def make_one_directory(self, path: Path) -> None:
        """Record a new directory."""
        name = self._enter(path)
        super().make_one_directory(path)
        if name is not None:
            self._record(Operation("make_directory", len(self._disk.nodes), name))

    def remove_tree(self, path: Path) -> None:
        """Record the deletion of every file and directory, one by one: each instant in between is a prefix."""
        name = self._enter(path)
        assert name is not None
        below = sorted(self._paths_below(name), reverse=True)
        super().remove_tree(path)
        for entry in [*below, name]:
            self._forget(entry)

    def _enter(self, path: Path) -> str | None:
        """Take in what others did before an operation, and return the path relative to the root; None outside."""
        self._discover()
        absolute = path.absolute()
        if not absolute.is_relative_to(self.root) or absolute.name in IGNORED:
            return None
        name = absolute.relative_to(self.root).as_posix()
        return "" if name == "." else name

    def _record(self, operation: Operation) -> None:
        self._disk.apply(operation)
        self.log.append(operation)

    def _record_open(self, kind: Literal["write", "truncate", "sync"], descriptor: int, **details: object) -> None:
        # A descriptor of a file outside the root was never taken in, but its number may have been used before.
        here = Path(f"/proc/self/fd/{descriptor}").resolve()
        node = self._open.get(descriptor)
        if node is not None and here.is_relative_to(self.root):
            self._record(Operation(kind, node, **details))  # type: ignore[arg-type]
            self._note_stamp("" if here == self.root else here.relative_to(self.root).as_posix())

    def _create(self, name: str) -> None:
        self._record(Operation("create", len(self._disk.nodes), name))

    def _forget(self, name: str) -> None:
        node = self._disk.find(name)
        assert node is not None
        kind = "remove_directory" if self._disk.nodes[node].is_directory else "unlink"
        self._record(Operation(kind, node, name))  # type: ignore[arg-type]
        self._stamps.pop(name, None)

    def _discover(self) -> None:
        """Record what somebody else, a library say, has done under the root since the last operation."""
        present = dict(self._walk(self.root, ""))
        known = set(self._paths_below(""))
        for name in sorted(known - set(present), reverse=True):
            self._forget(name)
        for name, entry in sorted(present.items()):
            if name not in known:
                if entry.is_dir():
                    self._record(Operation("make_directory", len(self._disk.nodes), name))
                    continue
                self._create(name)
            if entry.is_file() and self._stamps.get(name) != _stamp(entry):
                node = self._disk.find(name)
                assert node is not None
                if self._disk.nodes[node].content:
                    self._record(Operation("truncate", node))
                self._record(Operation("write", node, data=entry.read_bytes()))
                self._note_stamp(name)

    def _walk(self, directory: Path, prefix: str) -> Iterator[tuple[str, Path]]:
        for entry in os.scandir(directory):
            if entry.name in IGNORED:
                continue
            yield f"{prefix}{entry.name}", Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(Path(entry.path), f"{prefix}{entry.name}/")

    def _paths_below(self, name: str) -> Iterator[str]:
        start = self._disk.find(name)
        if start is None:
            return
        for child_name, child in self._disk.nodes[start].names.items():
            path = f"{name}/{child_name}" if name else child_name
            yield path
            if self._disk.nodes[child].is_directory:
                yield from self._paths_below(path)

    def _note_stamp(self, name: str) -> None:
        path = self.root / name
        if path.is_file():
            self._stamps[name] = _stamp(path)


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _surviving(node: Node, data: Data, chance: random.Random) -> bytes:
    """Return what a file holds behind the power loss."""
    if data == "either":
        data = chance.choice(("synced", "torn", "kept"))
    if data == "synced" or node.content == node.synced_content:
        return node.synced_content
    if data == "kept":
        return node.content
    start = node.untouched_bytes
    return node.content[: start + (len(node.content) - start) // 2]
