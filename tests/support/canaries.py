"""Canaries: whatever secret a test gives a server, or gets from it, is looked for when the server
ends: in its log, and in all that it has stored.

Known are the token of every server, what any HTTP client of this process sent as a bearer, as a
password or as a ticket, and what it got as a token or a ticket; and by their shape all tokens that
a server makes, whoever got them. Searched are databases, their -wal, the commit log, and the pages
of the bucket's LTX files, which are compressed there. The file that keeps a created admin token is
the one exception.

Bounds: of a bucket of S3 the newest `_OBJECTS_MAX` objects are read. A file is read again only if
it has changed, at most `FILE_BYTES_MAX` of it and `SEARCH_BYTES_MAX` at one end of a server. What
was left out is counted, and printed at the end.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dosql.errors import DosqlError
from dosql.replica.ltx.decoder import decode
from server.admin_token import FILE_NAME
from tests.support.heard_secrets import CHARACTERS_MIN, SHAPE, heard_at

_PREFIXES = (b"dsk_", b"dss_", b"dst_")
_RANDOM_PART = 32
"""Also looked for alone: a token without its prefix is as good to whoever finds it."""
FILE_BYTES_MAX = 64 * 1024 * 1024
SEARCH_BYTES_MAX = 1024 * 1024 * 1024
_OBJECTS_MAX = 500
_PIECE_BYTES = 4 * 1024 * 1024


@dataclass
class Figures:
    """What the search did in this process."""

    ends: int = 0
    secrets: int = 0
    files: int = 0
    bytes: int = 0
    skipped: int = 0
    seconds: float = 0.0

    def add(self, other: Mapping[str, float]) -> None:
        """Of another process."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + other[each.name])

    def __str__(self) -> str:
        return (
            f"canaries: {self.ends} ends of servers, {self.secrets} secrets, {self.files} files "
            f"({self.bytes / 1e6:.0f} MB) searched in {self.seconds:.1f} s; "
            f"{self.skipped} files only in part or not at all"
        )


FIGURES = Figures()


@dataclass
class Canaries:
    """The secrets of one server, over all its starts."""

    _own: list[str] = field(default_factory=list[str])
    _addresses: list[str] = field(default_factory=list[str])
    _seen: dict[Path, tuple[int, int]] = field(default_factory=dict[Path, tuple[int, int]])

    def register(self, *secrets: str) -> None:
        """Secrets that the server was given."""
        self._own += [each for each in secrets if len(each) >= CHARACTERS_MIN]

    def listen(self, url: str) -> None:
        """What is sent to this address is the server's."""
        self._addresses.append(urlsplit(url).netloc)

    def search(
        self, log: Path, folders: Iterable[Path], others: Iterable[tuple[str, bytes]] = ()
    ) -> list[str]:
        """Where a secret was found, without telling it. The server has ended.

        ``others``: names and contents of what is no file.
        """
        started = time.perf_counter()
        needles = self._needles()
        FIGURES.ends += 1
        FIGURES.secrets += len(needles)
        hits: list[str] = []
        for name, content in others:
            for piece in _plain(name, content):
                FIGURES.bytes += len(piece)
                hits += [f"{name}: {each}" for each in _found(piece, needles)]
        left = SEARCH_BYTES_MAX
        for path in [log, *(each for folder in folders for each in _files(folder))]:
            try:
                status = path.stat()
                state = status.st_mtime_ns, status.st_size
                if self._seen.get(path) == state or left <= 0:
                    FIGURES.skipped += left <= 0
                    continue
                self._seen[path] = state
                for piece in _contents(path):
                    left -= len(piece)
                    FIGURES.bytes += len(piece)
                    hits += [f"{path.name}: {each}" for each in _found(piece, needles)]
                FIGURES.files += 1
            except OSError:  # a test took it away
                FIGURES.skipped += 1
        FIGURES.seconds += time.perf_counter() - started
        return sorted(set(hits))

    def _needles(self) -> list[bytes]:
        texts = list(self._own)
        for address in self._addresses:
            texts += heard_at(address)
        parts = {
            each[-_RANDOM_PART:] if SHAPE.fullmatch(each.encode("utf-8", "replace")) else each
            for each in texts
        }
        return [each.encode("utf-8", "replace") for each in parts]


def _found(data: bytes, needles: Iterable[bytes]) -> Iterator[str]:
    for needle in needles:
        if needle in data:
            at = data.index(needle)
            yield f"{needle[:6].decode(errors='replace')}... ({len(needle)} bytes) at {at}"
    for prefix in _PREFIXES:
        at = data.find(prefix)
        while at >= 0:
            if SHAPE.match(data, at):
                yield f"{prefix.decode()}... at {at}"
                break
            at = data.find(prefix, at + 1)


def _files(folder: Path) -> Iterator[Path]:
    """The newest first: they are the ones that have not been searched yet."""
    found: list[tuple[int, Path]] = []
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            try:
                status = path.lstat()
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode) and name != FILE_NAME:
                found.append((status.st_mtime_ns, path))
    return (path for _, path in sorted(found, reverse=True))


def _contents(path: Path) -> Iterator[bytes]:
    """A file's bytes, holes left out; of an LTX file its pages too."""
    size = path.stat().st_size
    if path.suffix == ".ltx" and size <= FILE_BYTES_MAX:
        yield from _plain(path.name, path.read_bytes())
        return
    with path.open("rb") as file:
        left = FILE_BYTES_MAX
        for start, end in _extents(file.fileno(), size):
            at = start
            while at < end and left > 0:
                piece = os.pread(file.fileno(), min(_PIECE_BYTES, end - at, left), at)
                if not piece:
                    break
                yield piece
                at += len(piece)
                left -= len(piece)
        FIGURES.skipped += left <= 0


def _plain(name: str, data: bytes) -> Iterator[bytes]:
    """The bytes as they are; of an LTX file its pages."""
    if name.endswith(".ltx") and data:
        try:
            yield b"".join(decode(data).pages.values())
        except (DosqlError, ValueError, MemoryError):  # a test damaged it
            FIGURES.skipped += 1
        else:
            return
    yield data


def objects_of_s3(
    url: str, endpoint: str, environ: Mapping[str, str]
) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the newest objects of a bucket; none if it does not answer."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    where = urlsplit(url)
    s3 = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
        config=Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 1}),
    )
    try:
        prefix = where.path.lstrip("/")
        found = s3.list_objects_v2(Bucket=where.netloc, Prefix=prefix).get("Contents", [])
        found.sort(key=lambda each: each["LastModified"], reverse=True)
        FIGURES.skipped += max(0, len(found) - _OBJECTS_MAX)
        for each in found[:_OBJECTS_MAX]:
            if each["Size"] <= FILE_BYTES_MAX:
                reply = s3.get_object(Bucket=where.netloc, Key=each["Key"])
                yield each["Key"], reply["Body"].read()
                FIGURES.files += 1
    except (BotoCoreError, ClientError, OSError):  # a test has ended it
        FIGURES.skipped += 1
    finally:
        s3.close()


def _extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has data: a segment of the commit log is mostly a hole."""
    at = 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # nothing but a hole follows
            return
        at = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, at


# --- figures at the end of the run --------------------------------------------------------------


class Report:
    """A plugin of pytest's: adds up what the processes of a run did, and prints it."""

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """In a worker: hand the figures over."""
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["canaries"] = vars(FIGURES)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """In the process that started the workers."""
        FIGURES.add(getattr(node, "workeroutput", {}).get("canaries", vars(Figures())))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """One line."""
        if FIGURES.ends:
            terminalreporter.write_line(str(FIGURES))
