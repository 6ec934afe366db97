"""URLs of buckets: which open what, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from dosql.errors import InvalidRequestError
from dosql.replica.bucket_url import open_bucket
from dosql.replica.local_bucket import LocalBucket
from dosql.replica.memory_bucket import MemoryBucket
from dosql.replica.s3_bucket import S3Bucket
from tests.support.buckets import s3_credentials

__all__ = ["s3_credentials"]


def test_a_file_url_is_a_directory(tmp_path: Path) -> None:
    odd = tmp_path / "with space % and ü"
    bucket = open_bucket(f"file://{str(odd).replace('%', '%25').replace(' ', '%20')}")
    assert isinstance(bucket, LocalBucket)
    bucket.put("k", b"x")
    assert (odd / "k").read_bytes() == b"x"
    again = open_bucket(bucket.url)
    assert again.get("k") == b"x", "the URL of a bucket opens it"
    assert isinstance(open_bucket(f"file://localhost{tmp_path}/other"), LocalBucket)


def test_memory_is_memory() -> None:
    assert isinstance(open_bucket("memory:"), MemoryBucket)


@pytest.mark.usefixtures("s3_credentials")
@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://my.bucket-1/some/prefix/", "s3://my.bucket-1/some/prefix"),
    ],
)
def test_an_s3_url_is_a_bucket_and_a_prefix(url: str, shown: str) -> None:
    bucket = open_bucket(url, endpoint="http://127.0.0.1:9000")
    assert isinstance(bucket, S3Bucket)
    assert bucket.url == shown
    assert bucket.usage.requests == 0
    bucket.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "data/bucket",
        "/data/bucket",
        "file:relative",
        "file://host/path",
        "file:///a?b",
        "file:///a%00b",
        "memory://x",
        "s3:bucket",
        "s3://",
        "s3://UPPER/x",
        "s3://ab",
        "s3://key:secret@bucket/x",
        "s3://bucket/a//b",
        "s3://bucket/../x",
        "s3://bucket/x?endpoint=http://h",
        "s3://bucket/ü",
        "http://host/bucket",
        "gs://bucket",
        "s3://[",
    ],
)
def test_another_url_is_refused_with_a_reason(url: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        open_bucket(url)
    assert refused.value.code == "invalid_bucket_url"
    assert "secret" not in refused.value.message


@pytest.mark.parametrize(
    "endpoint",
    ["127.0.0.1:9000", "ftp://h", "http://", "http://u:secret@h", "http://h/path", "http://h:x"],
)
def test_an_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        open_bucket("s3://bucket", endpoint=endpoint)
    assert refused.value.code == "invalid_bucket_url"
    assert "secret" not in refused.value.message


def test_an_endpoint_goes_with_s3_only(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError):
        open_bucket(f"file://{tmp_path}", endpoint="http://127.0.0.1:9000")
