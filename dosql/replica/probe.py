"""What must be true of a bucket before anything is entrusted to it: four writes at the start.

Everything that keeps two servers from overwriting each other rests on the conditions of PUT. Some
stores ignore them and answer 200; nothing but trying tells.
"""

from __future__ import annotations

import contextlib

from dosql.clock import Randomness
from dosql.errors import DosqlError, UnavailableError
from dosql.replica.bucket import Bucket
from dosql.replica.bucket_errors import PreconditionFailedError

PROBE_DIRECTORY = "probe/"
"""One key below it exists while a probe runs, and after one that was killed."""


class NotConditionalError(UnavailableError):
    """The store does not keep the conditions of PUT."""

    default_code = "bucket_not_conditional"
    default_retryable = False


def probe(bucket: Bucket, randomness: Randomness) -> None:
    """Return if the bucket can be written, read, listed and deleted from, and keeps conditions.

    Raises NotConditionalError with what it lacks, or what the requests themselves raise:
    BucketUnavailableError, BucketDeniedError, BucketMissingError.
    """
    key = f"{PROBE_DIRECTORY}{randomness.token_bytes(16).hex()}"
    try:
        _try_conditions(bucket, key)
        _try_reading(bucket, key)
    except DosqlError:
        # The first failure is the one to tell of; it often is the reason for the next, too.
        with contextlib.suppress(DosqlError):
            bucket.delete([key])
        raise
    bucket.delete([key])
    if bucket.head(key) is not None:
        raise _lacking("deletes nothing: a deleted key is still there")


def _try_conditions(bucket: Bucket, key: str) -> None:
    created = bucket.put(key, b"created", if_absent=True)
    if _accepts(bucket, key, b"created again", if_absent=True):
        raise _lacking("ignores If-None-Match: it overwrote a key that must not have been there")
    try:
        bucket.put(key, b"updated", if_match=created.etag)
    except PreconditionFailedError:
        raise _lacking("refuses If-Match with the right ETag") from None
    if _accepts(bucket, key, b"updated again", if_match=created.etag):
        raise _lacking("ignores If-Match: it overwrote a content other than the one named")


def _try_reading(bucket: Bucket, key: str) -> None:
    if bucket.get(key) != b"updated":
        raise _lacking("does not give back what was written last")
    if [info.key for info in bucket.list(key)] != [key]:
        raise _lacking("does not list a key that was just written")


def _accepts(
    bucket: Bucket, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None
) -> bool:
    try:
        bucket.put(key, data, if_absent=if_absent, if_match=if_match)
    except PreconditionFailedError:
        return False
    return True


def _lacking(what: str) -> NotConditionalError:
    return NotConditionalError(
        f"This store cannot keep two servers apart, and is not used: it {what}."
    )
