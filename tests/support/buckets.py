"""Buckets of every kind for tests: S3 in moto's server, S3 in a real MinIO, local, memory.

The fixture ``s3_credentials`` puts the test servers' keys into the environment, for the session.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import pytest
from minio import Minio
from moto.server import ThreadedMotoServer

from dosql.replica.bucket import NO_METADATA, Bucket, ObjectInfo
from dosql.replica.bucket_usage import BucketUsage
from dosql.replica.s3_bucket import S3Bucket
from dosql.replica.s3_requests import S3Options
from tests.support.minio import ACCESS_KEY, SECRET_KEY, MinioServer

IMPATIENT = S3Options(
    attempts=3, backoff_s=0.01, connect_s=1, read_s=5, connections=64, page_keys=20
)
"""For tests: as the default, but failures come soon, and pages end soon."""
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def s3_credentials() -> Iterator[None]:
    """Those of the test servers; nothing of the user's own configuration is read."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="session")
def moto_url(s3_credentials: None) -> Iterator[str]:
    """The endpoint of a moto server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def minio_client(minio: MinioServer) -> Minio:
    """MinIO's own client: what it sees is in the store, whatever our code believes."""
    return Minio(f"127.0.0.1:{minio.port}", ACCESS_KEY, SECRET_KEY, secure=False)


def new_s3_bucket(endpoint: str) -> str:
    """The name of a new, empty bucket."""
    name = f"bucket-{next(_numbers)}"
    Minio(endpoint.partition("//")[2], ACCESS_KEY, SECRET_KEY, secure=False).make_bucket(name)
    return name


def s3_bucket(endpoint: str, **settings: Any) -> S3Bucket:
    """A new, empty bucket with a prefix, impatient."""
    settings.setdefault("options", IMPATIENT)
    return S3Bucket(new_s3_bucket(endpoint), "some/prefix", endpoint=endpoint, **settings)


class WrappedBucket:
    """Passes everything on; subclass it to change one thing."""

    def __init__(self, inner: Bucket) -> None:
        self.inner = inner

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def usage(self) -> BucketUsage:
        return self.inner.usage

    def put(
        self,
        key: str,
        data: bytes | BinaryIO,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> ObjectInfo:
        return self.inner.put(key, data, if_absent=if_absent, if_match=if_match, metadata=metadata)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        return self.inner.get(key, start=start, length=length)

    def open(self, key: str) -> BinaryIO:
        return self.inner.open(key)

    def head(self, key: str) -> ObjectInfo | None:
        return self.inner.head(key)

    def delete(self, keys: Iterable[str]) -> None:
        self.inner.delete(keys)

    def list(
        self, prefix: str = "", *, after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        return self.inner.list(prefix, after=after, limit=limit)

    def list_directories(self, prefix: str = "") -> Iterator[str]:
        return self.inner.list_directories(prefix)

    def close(self) -> None:
        self.inner.close()
