"""What can go wrong at a bucket, by what the caller may conclude.

UnavailableError
├── BucketUnavailableError     surely not written (or not read); try again later
├── BucketDeniedError          surely not written; somebody must change keys or policy first
└── BucketMissingError         surely not written; there is no such bucket
OutcomeUnknownError
└── BucketOutcomeUnknownError  a write whose reply was lost: HEAD the key before going on
ConflictError
└── PreconditionFailedError    the condition of a write did not hold; the bucket is unchanged
NotFoundError
└── KeyMissingError            a read of a key that is not there
"""

from __future__ import annotations

from dosql.errors import ConflictError, NotFoundError, OutcomeUnknownError, UnavailableError


class BucketUnavailableError(UnavailableError):
    """The store was not reached, or said that it cannot serve now. Nothing was written."""

    default_code = "bucket_unavailable"


class BucketDeniedError(UnavailableError):
    """The store knows the caller and refuses, or does not know the caller. Nothing was written."""

    default_code = "bucket_denied"
    default_retryable = False


class BucketMissingError(UnavailableError):
    """The store has no bucket of this name. Nothing was written; we never create one."""

    default_code = "bucket_missing"
    default_retryable = False


class BucketOutcomeUnknownError(OutcomeUnknownError):
    """A write was sent and its reply lost, or too vague to tell: it may be there, now or soon.

    A conditional write is never repeated by a bucket itself after this, because its second
    attempt would be refused on account of the first.
    """

    default_code = "bucket_outcome_unknown"


class PreconditionFailedError(ConflictError):
    """``if_absent`` met a key that is there, or ``if_match`` another content or none."""

    default_code = "bucket_precondition_failed"


class KeyMissingError(NotFoundError):
    """There is no such key."""

    default_code = "bucket_key_missing"


def key_missing(key: str) -> KeyMissingError:
    """The error for a read of ``key``."""
    return KeyMissingError(f"The bucket holds no {key}.")


def condition_failed(key: str) -> PreconditionFailedError:
    """The error for a conditional write to ``key``."""
    return PreconditionFailedError(f"The condition of the write to {key} does not hold.")
