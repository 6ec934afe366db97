"""Bucket: the seam to the store that outlives this machine.

All calls block: make them on a worker thread, never on the event loop. All are safe from any number
of threads. A call returns when the store has taken the effect for durable.

Conditions exist on `put` only, as ``If-None-Match: *`` and ``If-Match``. A conditional delete does
not exist: MinIO takes one and ignores its condition.

A key is a relative path of ASCII names; see `check_key`. Keys that begin with another key and ``/``
cannot stand beside it, because a directory could not hold both. A *prefix* is any beginning of a
key, also ``""``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import BinaryIO, Protocol

import msgspec

from dosql.errors import InvalidRequestError
from dosql.replica.bucket_usage import BucketUsage

KEY_BYTES_MAX = 800
"""S3 ends at 1,024 with the bucket's own prefix, a path of Linux at 4,096."""
NAME_BYTES_MAX = 200
"""Of one name between slashes; file systems end at 255."""
RESERVED_NAME = ".bucket"
"""First name that no key may have: `LocalBucket` keeps its own files there."""
METADATA_BYTES_MAX = 2_048
"""S3's limit, keys and values together."""
TIMESTAMP_METADATA = "litestream-timestamp"
"""RFC 3339 time of the newest change in an LTX file; Litestream reads and writes it."""
NO_METADATA: Mapping[str, str] = MappingProxyType({})

_NAME = re.compile(r"[A-Za-z0-9_.=+@~,-]+", re.ASCII)
_METADATA_NAME = re.compile(r"[a-z0-9-]{1,64}", re.ASCII)
_METADATA_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?", re.ASCII)


class ObjectInfo(msgspec.Struct, frozen=True):
    """What the store says of one key."""

    key: str
    size: int
    """Bytes."""
    etag: str
    """Opaque; changes with every write of different content. What ``if_match`` takes."""
    modified_ms: int
    """When it was written, by the store's clock, in ms since the epoch; S3 rounds to seconds."""
    metadata: Mapping[str, str] = msgspec.field(default_factory=lambda: NO_METADATA)
    """From `Bucket.head` only: a listing does not carry it."""


class Bucket(Protocol):
    """A store of immutable contents under keys, listed in the order of their bytes."""

    @property
    def url(self) -> str:
        """What opens this bucket, without secrets; no slash at its end."""
        ...

    @property
    def usage(self) -> BucketUsage:
        """Requests made so far."""
        ...

    def put(
        self,
        key: str,
        data: bytes | BinaryIO,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> ObjectInfo:
        """Write the content, all or nothing; with a condition, if that holds at the moment of
        writing: of any number of concurrent writers of one key under one condition, one wins.

        ``data`` is bytes, or a seekable file that is read from where it stands to its end. The
        info of the reply has no ``modified_ms`` (0): S3 does not tell.

        Raises PreconditionFailedError (nothing changed), BucketUnavailableError,
        BucketDeniedError and BucketMissingError (not written), and BucketOutcomeUnknownError.
        """
        ...

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The content, or the part of it from ``start`` of at most ``length`` bytes; a negative
        ``start`` counts from the end, and then ``length`` must not be given. Beyond the end there
        is ``b""``. Raises KeyMissingError."""
        ...

    def open(self, key: str) -> BinaryIO:
        """The content as a stream to be closed by the caller: for what may not fit in memory.
        Raises KeyMissingError; reading raises what `get` does."""
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """What is known of the key, with metadata; None if it is not there."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove the keys; those that are missing are fine. A failure may leave some of them."""
        ...

    def list(
        self, prefix: str = "", *, after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        """Keys that begin with the prefix and come after ``after``, in the order of their bytes,
        one request per 1,000. A key written or deleted meanwhile may or may not appear."""
        ...

    def list_directories(self, prefix: str = "") -> Iterator[str]:
        """The names one level below the prefix (``""`` or ending in ``/``) that have keys below
        them, in order, each with the prefix and a slash at its end."""
        ...

    def close(self) -> None:
        """Give connections and descriptors back. Later calls are an error; a second close is
        not."""
        ...


def check_key(key: str) -> str:
    """The key. Raises InvalidRequestError ``invalid_bucket_key`` if it could leave the bucket or
    be misread by one of the stores: anything but names of ``A-Z a-z 0-9 _ . = + @ ~ , -``,
    joined by single slashes."""
    names = key.split("/")
    if (
        len(key) > KEY_BYTES_MAX
        or names[0] == RESERVED_NAME
        or not all(_is_name(name) for name in names)
    ):
        raise _invalid_key(key)
    return key


def check_prefix(prefix: str) -> str:
    """The prefix. Raises like `check_key`; its last name may be empty or cut off."""
    *names, last = prefix.split("/")
    if (
        len(prefix) > KEY_BYTES_MAX
        or [*names, last][0] == RESERVED_NAME
        or not all(_is_name(name) for name in names)
        or (last and not _NAME.fullmatch(last))
    ):
        raise _invalid_key(prefix)
    return prefix


def check_directory(prefix: str) -> str:
    """A prefix that is a whole directory, or ``""``. Raises like `check_key`."""
    if prefix and not prefix.endswith("/"):
        raise _invalid_key(prefix)
    return check_prefix(prefix)


def check_metadata(metadata: Mapping[str, str]) -> Mapping[str, str]:
    """The metadata. Raises InvalidRequestError ``invalid_bucket_key`` for what HTTP headers do
    not carry unchanged: names are lower case, values printable ASCII without outer spaces."""
    for name, value in metadata.items():
        if not _METADATA_NAME.fullmatch(name) or not _METADATA_VALUE.fullmatch(value):
            raise InvalidRequestError(
                f"The metadata {name!r} cannot be kept in a bucket.", code="invalid_bucket_key"
            )
    if sum(len(name) + len(value) for name, value in metadata.items()) > METADATA_BYTES_MAX:
        raise InvalidRequestError("Too much metadata for a bucket.", code="invalid_bucket_key")
    return metadata


def check_condition(if_absent: bool, if_match: str | None) -> None:
    """Raises ValueError if both conditions are asked for: no content could satisfy them."""
    if if_absent and if_match is not None:
        raise ValueError("if_absent and if_match exclude each other")


def check_range(start: int, length: int | None) -> None:
    """Raises ValueError for a range that no store understands."""
    if length is not None and (length < 1 or start < 0):
        raise ValueError("a length is at least 1, and only counted from a start of 0 or more")


def _is_name(name: str) -> bool:
    return (
        len(name) <= NAME_BYTES_MAX
        and name not in (".", "..")
        and _NAME.fullmatch(name) is not None
    )


def _invalid_key(key: str) -> InvalidRequestError:
    shown = repr(key if len(key) <= 80 else f"{key[:80]}...")
    return InvalidRequestError(f"{shown} is not a key of a bucket.", code="invalid_bucket_key")
