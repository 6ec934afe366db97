"""What a disk may hold after a crash, computed from a trace of file operations.

The model is harsher than any real file system: a file's content is durable only after a sync of
that file, a name only after a sync of its directory. Until then each write may be lost, kept, or
torn at 512 bytes, in any combination, and so may each change of a name.
"""

from __future__ import annotations

import copy
import posixpath
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

BLOCK = 512

Kind = Literal[
    "mkdir", "create", "write", "truncate", "sync", "failed_sync", "rename", "unlink", "sync_dir"
]


@dataclass(frozen=True, slots=True)
class FileOperation:
    """One operation, with paths relative to the data directory ("" is itself)."""

    kind: Kind
    path: str
    data: bytes = b""
    offset: int = 0
    """Where ``data`` goes; the new size for a truncate."""
    target: str = ""
    """The new name for a rename."""


class Inode:
    """A file by identity: what is durable of it, and what was written since its last sync."""

    __slots__ = ("durable", "is_dir", "pending", "seen")

    def __init__(self, *, is_dir: bool = False) -> None:
        self.is_dir = is_dir
        self.seen = bytearray()
        """The content as a running program sees it."""
        self.durable = bytearray()
        self.pending: list[FileOperation] = []

    def change(self, operation: FileOperation) -> None:
        """A write or a truncate."""
        _perform(self.seen, operation)
        self.pending.append(operation)

    def sync(self) -> None:
        """Everything so far is durable."""
        for operation in self.pending:
            _perform(self.durable, operation)
        self.pending.clear()

    def fail_sync(self) -> None:
        """As Linux does it: what was not durable is still seen, and counts as written. No later
        sync writes it."""
        self.pending.clear()

    def content_after_power_loss(
        self, randomness: random.Random, keep: float, tear: float
    ) -> bytes:
        """The durable content and a random part of the rest: each operation since the last sync
        is kept with one probability, else, if it is a write, torn with the other."""
        found = bytearray(self.durable)
        for operation in self.pending:
            if randomness.random() < keep:
                _perform(found, operation)
            elif operation.kind == "write" and randomness.random() < tear:
                for part in _blocks(operation):
                    if randomness.random() < 0.5:
                        _perform(found, part)
        return bytes(found)


def _perform(content: bytearray, operation: FileOperation) -> None:
    if operation.kind == "truncate":
        del content[operation.offset :]
        content.extend(bytes(operation.offset - len(content)))
        return
    end = operation.offset + len(operation.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    content[operation.offset : end] = operation.data


def _blocks(operation: FileOperation) -> Iterable[FileOperation]:
    """The write as writes of one disk block each."""
    at, end = operation.offset, operation.offset + len(operation.data)
    while at < end:
        stop = min(end, (at // BLOCK + 1) * BLOCK)
        first = at - operation.offset
        data = operation.data[first : first + stop - at]
        yield FileOperation("write", operation.path, data, at)
        at = stop


Files = dict[str, bytes | None]
"""Path to content; None for a directory."""


class Image:
    """The disk after the operations applied so far."""

    def __init__(self) -> None:
        self.names: dict[str, Inode] = {}
        """As a running program sees them."""
        self._durable: dict[str, Inode] = {}
        self._changes: list[tuple[str, dict[str, Inode | None]]] = []
        """Changes of names since the sync of their directory, in order."""

    def copy(self) -> Image:
        """An independent image of the same disk."""
        return copy.deepcopy(self)

    def apply(self, operation: FileOperation) -> None:
        """The operation has happened; that does not make it durable."""
        path = operation.path
        match operation.kind:
            case "write" | "truncate":
                self.names[path].change(operation)
            case "sync":
                self.names[path].sync()
            case "failed_sync":
                self.names[path].fail_sync()
            case "create":
                self._change(path, {path: Inode()})
            case "mkdir":
                self._change(path, {path: Inode(is_dir=True)})
            case "unlink":
                self._change(path, {path: None})
            case "rename":
                moved = {path: None, operation.target: self.names[path]}
                self._change(operation.target, moved)
            case "sync_dir":
                for directory, change in self._changes:
                    if directory == path:
                        _rename(self._durable, change)
                self._changes = [each for each in self._changes if each[0] != path]

    def _change(self, path: str, change: dict[str, Inode | None]) -> None:
        _rename(self.names, change)
        self._changes.append((posixpath.dirname(path), change))

    # --- crashes ------------------------------------------------------------------------------

    def killed(self) -> Files:
        """What the next process finds when only this one died."""
        return {path: _seen(inode) for path, inode in self.names.items()}

    def powerless(self, randomness: random.Random) -> Files:
        """What may be left after a power loss."""
        keep = randomness.choice((0.0, 0.0, 0.2, 0.5, 0.8, 1.0))
        tear = randomness.choice((0.0, 0.3, 1.0))
        names = dict(self._durable)
        match randomness.choice(("none", "first", "any")):
            case "first":  # as a journal keeps them
                count = randomness.randint(0, len(self._changes))
                for _, change in self._changes[:count]:
                    _rename(names, change)
            case "any":
                for _, change in self._changes:
                    if randomness.random() < 0.5:
                        _rename(names, change)
            case _:
                pass
        return {
            path: _left(inode, randomness, keep, tear)
            for path, inode in names.items()
            if all(parent in names for parent in _parents(path))
        }


def _rename(names: dict[str, Inode], change: dict[str, Inode | None]) -> None:
    for path, inode in change.items():
        if inode is None:
            names.pop(path, None)
        else:
            names[path] = inode


def _seen(inode: Inode) -> bytes | None:
    return None if inode.is_dir else bytes(inode.seen)


def _left(inode: Inode, randomness: random.Random, keep: float, tear: float) -> bytes | None:
    return None if inode.is_dir else inode.content_after_power_loss(randomness, keep, tear)


def _parents(path: str) -> Iterable[str]:
    while path := posixpath.dirname(path):
        yield path


def materialise(files: Files, root: Path) -> None:
    """Write the files below ``root``, which is made."""
    root.mkdir(parents=True)
    for path in sorted(path for path, content in files.items() if content is None):
        (root / path).mkdir()
    for path, content in files.items():
        if content is not None:
            (root / path).write_bytes(content)
