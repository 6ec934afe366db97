"""A content of S3 as a stream that takes up again where its connection broke."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from dosql.replica.bucket_errors import BucketUnavailableError, PreconditionFailedError
from dosql.replica.s3_requests import S3Requests

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class S3Stream(io.RawIOBase):
    """All bytes are of the content that was there at the opening; if that was replaced and the
    connection breaks, reading raises BucketUnavailableError."""

    def __init__(self, requests: S3Requests, key: str) -> None:
        super().__init__()
        self._requests = requests
        self._key = key
        self._target = requests.target(key)
        self._at = 0
        first = self._request()
        self._body: Any = first["Body"]
        self._etag: str = first["ETag"]
        self._size: int = first["ContentLength"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        with memoryview(buffer).cast("B") as view:
            data = self._requests.read(lambda: self._piece(len(view)), self._key)
            view[: len(data)] = data
        self._at += len(data)
        self._requests.counter.received(len(data))
        return len(data)

    def close(self) -> None:
        if not self.closed and self._body is not None:
            self._body.close()
        super().close()

    def _piece(self, count: int) -> bytes:
        """At most so many bytes from where we are; none at the end only."""
        if self._at >= self._size:
            return b""
        if self._body is None:
            self._body = self._again()
        try:
            data: bytes = self._body.read(count)
            if not data:
                raise OSError("the connection ended before the content did")
        except Exception:
            self._body.close()
            self._body = None
            raise
        return data

    def _again(self) -> Any:
        try:
            return self._request(Range=f"bytes={self._at}-", IfMatch=self._etag)["Body"]
        except PreconditionFailedError:
            raise BucketUnavailableError(f"{self._key} was replaced while it was read.") from None

    def _request(self, **more: Any) -> Any:
        def attempt() -> Any:
            self._requests.counter.request("gets")
            return self._requests.client.get_object(**self._target, **more)

        return self._requests.read(attempt, self._key)
