"""Writing one key to S3: in one request, or in parts that become visible all at once."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, TypeVar

from dosql.replica.bucket_errors import BucketOutcomeUnknownError
from dosql.replica.s3_requests import S3Requests

T = TypeVar("T")
PARTS_MAX = 10_000
"""S3's bound of parts per upload."""


class Upload:
    """One content on its way to one key."""

    def __init__(
        self,
        requests: S3Requests,
        key: str,
        data: bytes | BinaryIO,
        *,
        condition: Mapping[str, str],
        metadata: Mapping[str, str],
    ) -> None:
        """``condition`` is ``IfNoneMatch`` or ``IfMatch`` as boto3 takes them, or nothing."""
        self._requests = requests
        self._key = key
        self._target = requests.target(key)
        self._condition: dict[str, Any] = dict(condition)
        self._metadata = dict(metadata)
        # A file stays one, so that a large content never is in memory as a whole.
        self._file: BinaryIO = io.BytesIO(data) if isinstance(data, bytes) else data
        self._start = self._file.tell()
        self.size = self._file.seek(0, io.SEEK_END) - self._start

    def run(self) -> str:
        """The ETag. Raises what `Bucket.put` does."""
        options = self._requests.options
        single_max = options.single_put_bytes_max
        if not self._condition:
            single_max = min(single_max, options.multipart_bytes_min - 1)
        return self._in_one() if self.size <= single_max else self._in_parts()

    def _in_one(self) -> str:
        def attempt() -> str:
            self._file.seek(self._start)
            reply = self._requests.client.put_object(
                **self._target,
                **self._condition,
                Body=self._file,
                ContentLength=self.size,
                Metadata=self._metadata,
            )
            return str(reply["ETag"]).strip('"')

        return self._write(attempt, up=self.size, conditional=bool(self._condition))

    def _in_parts(self) -> str:
        client = self._requests.client
        upload_id = self._send(
            lambda: client.create_multipart_upload(**self._target, Metadata=self._metadata)
        )["UploadId"]
        try:
            parts = self._send_parts(upload_id)
            # Not repeated after a lost reply: a second completion finds the upload gone.
            reply = self._write(
                lambda: client.complete_multipart_upload(
                    **self._target,
                    **self._condition,
                    UploadId=upload_id,
                    MultipartUpload={"Parts": parts},
                ),
                conditional=True,
            )
        except BucketOutcomeUnknownError:
            raise  # perhaps it is complete; if not, the bucket's rule for old uploads clears it
        except BaseException:
            with contextlib.suppress(Exception):
                client.abort_multipart_upload(**self._target, UploadId=upload_id)
            raise
        return str(reply["ETag"]).strip('"')

    def _send_parts(self, upload_id: str) -> list[Any]:
        part_bytes = max(self._requests.options.part_bytes, -(-self.size // PARTS_MAX))
        parts: list[Any] = []
        self._file.seek(self._start)
        while piece := self._file.read(part_bytes):
            parts.append(self._send_part(upload_id, len(parts) + 1, piece))
        return parts

    def _send_part(self, upload_id: str, number: int, piece: bytes) -> dict[str, Any]:
        reply = self._send(
            lambda: self._requests.client.upload_part(
                **self._target, UploadId=upload_id, PartNumber=number, Body=piece
            ),
            up=len(piece),
        )
        return {"PartNumber": number, "ETag": reply["ETag"]}

    def _send(self, call: Callable[[], T], *, up: int = 0) -> T:
        """A request that makes nothing visible: lost replies do no harm."""
        return self._requests.read(lambda: self._counted(call, up), self._key)

    def _write(self, call: Callable[[], T], *, up: int = 0, conditional: bool) -> T:
        return self._requests.write(
            lambda: self._counted(call, up),
            self._key,
            conditional=conditional,
            matching="IfMatch" in self._condition,
        )

    def _counted(self, call: Callable[[], T], up: int) -> T:
        self._requests.counter.request("puts", up=up)
        return call()
