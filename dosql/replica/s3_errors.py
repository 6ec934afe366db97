"""What boto3 raises, sorted by what it says about the request's effect.

The error codes are S3's, MinIO's where they begin with ``XMinio`` or are a kind of ``SlowDown``.
Imported together with boto3 only.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProxyConnectionError,
    SSLError,
)
from urllib3.exceptions import HTTPError

from dosql.errors import DosqlError
from dosql.replica.bucket_errors import (
    BucketDeniedError,
    BucketMissingError,
    BucketUnavailableError,
    condition_failed,
    key_missing,
)


class Verdict(Enum):
    """What a failed request leaves behind."""

    REFUSED = "refused"
    """Nothing happened, and the same request will fail again."""
    NOT_NOW = "not now"
    """Nothing happened; the same request may succeed."""
    UNKNOWN = "unknown"
    """It may have happened."""


_NOT_NOW = frozenset(
    {
        "SlowDown",
        "ServiceUnavailable",
        "RequestLimitExceeded",
        "ThrottlingException",
        "TooManyRequests",
        "TooManyRequestsException",
        "RequestTimeout",
        "OperationAborted",
        "ConditionalRequestConflict",
        "XMinioServerNotInitialized",
        "SlowDownRead",
    }
)
"""Said before the store takes anything. ``SlowDownWrite`` is not among them: MinIO says it when
too few drives took the write, and some of them may have."""
_DENIED = frozenset({"ExpiredToken", "InvalidToken", "AuthorizationHeaderMalformed"})
"""Those that do not come with status 401 or 403."""
_KEY_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
_CONDITION = frozenset({"PreconditionFailed", "412"})


def verdict_of(error: Exception) -> Verdict:
    """For any exception of boto3. What is not known is UNKNOWN."""
    if isinstance(error, ClientError):
        status, code, _ = _parts(error)
        if code in _NOT_NOW or status == 429:
            return Verdict.NOT_NOW
        return Verdict.UNKNOWN if status >= 500 or status < 300 else Verdict.REFUSED
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return Verdict.REFUSED
    if isinstance(error, EndpointConnectionError | ConnectTimeoutError | ProxyConnectionError):
        return Verdict.NOT_NOW
    if isinstance(error, SSLError):
        return Verdict.REFUSED if "CERTIFICATE_VERIFY_FAILED" in str(error) else Verdict.UNKNOWN
    if isinstance(error, HTTPClientError | IncompleteReadError):
        return Verdict.UNKNOWN
    # Before a request is built: an invalid region, a profile that is not there.
    return Verdict.REFUSED if isinstance(error, BotoCoreError) else Verdict.UNKNOWN


def translate(error: Exception, bucket: str, key: str, *, matching: bool = False) -> DosqlError:
    """As one of ``bucket_errors``; for a verdict of UNKNOWN only where nothing was to be written.

    ``matching``: the request was a PUT with ``If-Match``, for which a missing key is a failed
    condition.
    """
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return BucketDeniedError("There are no credentials for the bucket (AWS_ACCESS_KEY_ID ...).")
    if not isinstance(error, ClientError):
        return BucketUnavailableError(f"The bucket was not reached: {_reason(error)}.")
    status, code, message = _parts(error)
    if code in _CONDITION or (matching and code in _KEY_MISSING):
        return condition_failed(key)
    if code == "NoSuchBucket":
        return BucketMissingError(f"There is no bucket {bucket}.")
    if code in _KEY_MISSING:
        return key_missing(key)
    if status in (401, 403) or code in _DENIED:
        return BucketDeniedError(f"The bucket refuses {error.operation_name}: {code}, {message}")
    return BucketUnavailableError(
        f"The bucket failed at {error.operation_name}: {status} {code}.",
        retryable=verdict_of(error) is not Verdict.REFUSED,
    )


def is_of_boto(error: Exception) -> bool:
    """boto3 lets errors of its HTTP library through while a body is read."""
    return isinstance(error, BotoCoreError | ClientError | HTTPError | OSError)


def error_of_entry(entry: Mapping[str, Any], operation: str) -> ClientError:
    """The error that one entry of a successful reply stands for, as if the request had failed."""
    code = str(entry.get("Code", ""))
    status = 403 if code == "AccessDenied" else 503
    response: Any = {"Error": dict(entry), "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, operation)


def is_beyond_end(error: Exception) -> bool:
    """A range was asked for that starts at or after the end of the content."""
    return isinstance(error, ClientError) and _parts(error)[1] in ("InvalidRange", "416")


def _parts(error: ClientError) -> tuple[int, str, str]:
    response: Any = error.response
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    told = response.get("Error", {})
    return status, str(told.get("Code", "")), str(told.get("Message", ""))


def _reason(error: Exception) -> str:
    """The kind of failure; botocore's own text would show the address and query."""
    if isinstance(error, EndpointConnectionError | ConnectTimeoutError | ProxyConnectionError):
        return "no connection"
    return type(error).__name__.removesuffix("Error")
