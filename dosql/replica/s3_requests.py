"""Requests to one bucket of S3, tried until they are answered.

boto3's own retries are off: they repeat a conditional write whose reply was lost, and its second
attempt is then refused on account of the first.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from dosql.clock import jitter
from dosql.replica.bucket import check_key
from dosql.replica.bucket_errors import BucketOutcomeUnknownError
from dosql.replica.bucket_usage import UsageCounter

if TYPE_CHECKING:
    from boto3.session import Session
    from types_boto3_s3 import S3Client

T = TypeVar("T")


class S3Options(msgspec.Struct, frozen=True):
    """How patiently to talk to the store. Times in seconds."""

    attempts: int = 4
    """Per request, the first one included."""
    backoff_s: float = 0.1
    """Bound of the random wait before the second attempt; it doubles with each further one."""
    backoff_max_s: float = 5.0
    connect_s: float = 3.0
    read_s: float = 30.0
    """Between two pieces of a reply, not for all of it."""
    connections: int = 32
    """More threads than this wait for each other."""
    single_put_bytes_max: int = 5 * 1024**3
    """S3's bound; a conditional write goes in one request up to it, because that is what the
    check at the start has tried."""
    multipart_bytes_min: int = 64 * 1024**2
    """From here on an unconditional write goes in parts, so that a failure repeats one part."""
    part_bytes: int = 16 * 1024**2
    """S3 wants at least 5 MiB, and at most 10,000 parts."""
    page_keys: int = 1_000
    """Of one request that lists or deletes; S3's bound."""


class S3Requests:
    """The client, and how often to try; waits are uniform in [0, bound) (full jitter)."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        client: S3Client,
        options: S3Options,
        *,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[float, float], float] = jitter,
    ) -> None:
        """``prefix`` is empty or ends in a slash."""
        from dosql.replica import s3_errors

        self.bucket = bucket
        self.prefix = prefix
        self.client = client
        self.options = options
        self.counter = UsageCounter()
        self._errors = s3_errors
        self._sleep = sleep
        self._jitter = jitter

    def target(self, key: str) -> dict[str, Any]:
        """What names the key in a request. Raises InvalidRequestError."""
        return {"Bucket": self.bucket, "Key": self.prefix + check_key(key)}

    def read(self, attempt: Callable[[], T], key: str) -> T:
        """The result of an idempotent request. Raises the errors of a bucket."""
        for number in range(1, self.options.attempts + 1):
            try:
                return attempt()
            except Exception as error:
                if not self._errors.is_of_boto(error):
                    raise
                last = number == self.options.attempts
                if last or self._errors.verdict_of(error) is self._errors.Verdict.REFUSED:
                    raise self._errors.translate(error, self.bucket, key) from error
            self._wait(number)
        raise AssertionError("unreachable")

    def write(
        self, attempt: Callable[[], T], key: str, *, conditional: bool, matching: bool = False
    ) -> T:
        """The same for a write. A conditional one is repeated only after replies that say that
        nothing happened. Raises BucketOutcomeUnknownError if any attempt may have written.

        ``matching``: the condition is ``If-Match``, which a missing key fails.
        """
        maybe_written = False
        for number in range(1, self.options.attempts + 1):
            try:
                return attempt()
            except Exception as error:
                if not self._errors.is_of_boto(error):
                    raise
                verdict = self._errors.verdict_of(error)
                maybe_written |= verdict is self._errors.Verdict.UNKNOWN
                last = number == self.options.attempts or verdict is self._errors.Verdict.REFUSED
                if maybe_written and (conditional or last):
                    raise BucketOutcomeUnknownError(
                        f"The reply to the write of {key} was lost."
                    ) from error
                if last:
                    raise self._errors.translate(
                        error, self.bucket, key, matching=matching
                    ) from error
            self._wait(number)
        raise AssertionError("unreachable")

    def _wait(self, failures: int) -> None:
        bound = self.options.backoff_s * 2 ** (failures - 1)
        self._sleep(self._jitter(0, min(bound, self.options.backoff_max_s)))


@functools.cache
def _session() -> Session:
    """One for all: to load the description of S3 takes longer than to start the server."""
    # Imported here, because a server without a bucket in S3 need not spend a third of a second.
    import boto3

    return boto3.session.Session()


_session_lock = threading.Lock()
"""Clients may be used by many threads, but not made."""


def connect(options: S3Options, endpoint: str | None, region: str | None) -> S3Client:
    """A client with the environment's credentials. It sends nothing yet."""
    from botocore.config import Config

    settings: dict[str, Any] = {
        "connect_timeout": options.connect_s,
        "read_timeout": options.read_s,
        "max_pool_connections": options.connections,
        "tcp_keepalive": True,
        "retries": {"mode": "standard", "total_max_attempts": 1},
        # Stores other than AWS refuse the trailing checksums that are boto3's default.
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    if endpoint:
        settings["s3"] = {"addressing_style": "path"}
    with _session_lock:
        session = _session()
        client: S3Client = session.client(
            "s3",
            endpoint_url=endpoint,
            region_name=region or session.region_name or "us-east-1",
            config=Config(**settings),
        )
    return client
