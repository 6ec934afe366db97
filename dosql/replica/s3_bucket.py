"""S3Bucket: a bucket of S3, MinIO, R2 or any store that keeps the conditions of PUT.

Whether a store does is tried by `dosql.replica.probe`. Credentials come from boto3's usual places
(``AWS_...`` variables, profiles, the instance's role).
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, BinaryIO, cast

from dosql.clock import jitter
from dosql.replica.bucket import (
    NO_METADATA,
    ObjectInfo,
    check_condition,
    check_directory,
    check_metadata,
    check_prefix,
    check_range,
)
from dosql.replica.bucket_errors import BucketDeniedError, KeyMissingError
from dosql.replica.bucket_usage import BucketUsage
from dosql.replica.s3_requests import S3Options, S3Requests, connect
from dosql.replica.s3_stream import S3Stream
from dosql.replica.s3_upload import Upload

_STREAM_BYTES = 256 * 1024


class S3Bucket:
    """Keys below ``prefix`` of a bucket that exists; we neither create nor configure one."""

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str | None = None,
        region: str | None = None,
        options: S3Options | None = None,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[float, float], float] = jitter,
    ) -> None:
        """``endpoint`` is a URL; none means AWS. Sends nothing. Raises BucketDeniedError if the
        region or profile that the environment names is of no use."""
        from botocore.exceptions import BotoCoreError

        from dosql.replica import s3_errors

        options = options or S3Options()
        try:
            client = connect(options, endpoint, region)
        except (BotoCoreError, ValueError) as error:
            raise BucketDeniedError(f"The bucket cannot be opened: {error}.") from error
        path = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._errors = s3_errors
        self._requests = S3Requests(bucket, path, client, options, sleep=sleep, jitter=jitter)

    @property
    def url(self) -> str:
        return f"s3://{self._requests.bucket}/{self._requests.prefix}".rstrip("/")

    @property
    def usage(self) -> BucketUsage:
        return self._requests.counter.usage

    def put(
        self,
        key: str,
        data: bytes | BinaryIO,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> ObjectInfo:
        check_condition(if_absent, if_match)
        check_metadata(metadata)
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        if if_match is not None:
            condition = {"IfMatch": f'"{if_match}"'}
        upload = Upload(self._requests, key, data, condition=condition, metadata=metadata)
        etag = upload.run()
        return ObjectInfo(key, upload.size, etag, 0, dict(metadata))

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        check_range(start, length)
        target = self._requests.target(key)
        if start < 0:
            target["Range"] = f"bytes={start}"
        elif start or length is not None:
            target["Range"] = f"bytes={start}-{'' if length is None else start + length - 1}"

        def attempt() -> bytes:
            self._requests.counter.request("gets")
            try:
                body = self._requests.client.get_object(**target)["Body"]
            except Exception as error:
                if self._errors.is_beyond_end(error):
                    return b""
                raise
            with body:
                data: bytes = body.read()
            self._requests.counter.received(len(data))
            return data

        return self._requests.read(attempt, key)

    def open(self, key: str) -> BinaryIO:
        return cast("BinaryIO", io.BufferedReader(S3Stream(self._requests, key), _STREAM_BYTES))

    def head(self, key: str) -> ObjectInfo | None:
        target = self._requests.target(key)

        def attempt() -> ObjectInfo:
            self._requests.counter.request("heads")
            reply = self._requests.client.head_object(**target)
            return _info(key, {**reply, "Size": reply["ContentLength"]}, reply["Metadata"])

        try:
            return self._requests.read(attempt, key)
        except KeyMissingError:
            return None

    def delete(self, keys: Iterable[str]) -> None:
        doomed = iter([self._requests.target(key)["Key"] for key in keys])
        while page := list(islice(doomed, self._requests.options.page_keys)):
            self._delete_page(page)

    def list(
        self, prefix: str = "", *, after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        return self._listing(check_prefix(prefix), after, limit)

    def list_directories(self, prefix: str = "") -> Iterator[str]:
        pages = self._pages({"Prefix": self._requests.prefix + check_directory(prefix)}, "/")
        cut = len(self._requests.prefix)
        return (entry["Prefix"][cut:] for page in pages for entry in page.get("CommonPrefixes", []))

    def close(self) -> None:
        self._requests.client.close()

    def _delete_page(self, keys: Iterable[str]) -> None:
        objects: Any = [{"Key": key} for key in keys]

        def attempt() -> None:
            self._requests.counter.request("deletes")
            reply = self._requests.client.delete_objects(
                Bucket=self._requests.bucket, Delete={"Objects": objects, "Quiet": True}
            )
            for entry in reply.get("Errors", []):
                if entry.get("Code") != "NoSuchKey":
                    raise self._errors.error_of_entry(dict(entry), "DeleteObjects")

        self._requests.read(attempt, "")

    def _listing(self, prefix: str, after: str, limit: int | None) -> Iterator[ObjectInfo]:
        arguments: dict[str, Any] = {"Prefix": self._requests.prefix + prefix}
        if after:
            arguments["StartAfter"] = self._requests.prefix + after
        if limit is not None and limit < 1:
            return
        page_keys = self._requests.options.page_keys
        arguments["MaxKeys"] = page_keys if limit is None else min(limit, page_keys)
        entries = (e for page in self._pages(arguments) for e in page.get("Contents", []))
        for entry in islice(entries, limit):
            yield _info(entry["Key"][len(self._requests.prefix) :], entry)

    def _pages(self, arguments: dict[str, Any], delimiter: str = "") -> Iterator[Any]:
        """Requested one after the other as they are used up."""
        if delimiter:
            arguments["Delimiter"] = delimiter
        while True:
            page = self._requests.read(lambda: self._page(arguments), "")
            yield page
            if not page.get("IsTruncated"):
                return
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    def _page(self, arguments: Mapping[str, Any]) -> Any:
        self._requests.counter.request("lists")
        return self._requests.client.list_objects_v2(Bucket=self._requests.bucket, **arguments)


def _info(
    key: str, entry: Mapping[str, Any], metadata: Mapping[str, str] = NO_METADATA
) -> ObjectInfo:
    modified_ms = int(entry["LastModified"].timestamp() * 1000)
    return ObjectInfo(key, entry["Size"], entry["ETag"].strip('"'), modified_ms, dict(metadata))
