"""S3Bucket against a real MinIO: what its own client sees, and what lost replies lead to."""

from __future__ import annotations

import io
import os
import random
import re
import threading
from collections.abc import Iterator

import pytest
from minio.commonconfig import SnowballObject
from msgspec.structs import replace

from dosql.errors import UnavailableError
from dosql.replica.bucket_errors import (
    BucketDeniedError,
    BucketMissingError,
    BucketOutcomeUnknownError,
    BucketUnavailableError,
    KeyMissingError,
    PreconditionFailedError,
)
from dosql.replica.s3_bucket import S3Bucket
from dosql.replica.s3_requests import S3Options
from tests.support.buckets import (
    IMPATIENT,
    minio_client,
    new_s3_bucket,
    s3_bucket,
    s3_credentials,
)
from tests.support.faulty_proxy import Fault, FaultyProxy, by_chance
from tests.support.minio import MinioServer, free_port

__all__ = ["s3_credentials"]
pytestmark = pytest.mark.usefixtures("s3_credentials")

IN_PARTS = replace(
    IMPATIENT,
    multipart_bytes_min=6 << 20,
    single_put_bytes_max=6 << 20,
    part_bytes=5 << 20,
)


@pytest.fixture
def proxy(minio: MinioServer) -> Iterator[FaultyProxy]:
    made = FaultyProxy(minio.url)
    yield made
    made.close()


@pytest.fixture
def name(minio: MinioServer) -> str:
    return new_s3_bucket(minio.url)


@pytest.fixture
def bucket(proxy: FaultyProxy, name: str) -> Iterator[S3Bucket]:
    """By way of the proxy; three attempts."""
    made = S3Bucket(name, "p", endpoint=proxy.url, options=IMPATIENT)
    yield made
    made.close()


# --- the real thing -------------------------------------------------------------------------
def test_another_client_finds_what_was_written(minio: MinioServer) -> None:
    bucket = s3_bucket(minio.url)
    name = re.fullmatch(r"s3://(bucket-\d+)/some/prefix", bucket.url)
    assert name is not None
    bucket.put("t/1.ltx", b"content", metadata={"litestream-timestamp": "2026-01-31T12:00:00Z"})
    client = minio_client(minio)
    (found,) = client.list_objects(name[1], recursive=True)
    assert found.object_name == "some/prefix/t/1.ltx"
    head = client.stat_object(name[1], "some/prefix/t/1.ltx")
    assert head.metadata is not None
    assert head.metadata["x-amz-meta-litestream-timestamp"] == "2026-01-31T12:00:00Z"
    reply = client.get_object(name[1], "some/prefix/t/1.ltx")
    assert reply.read() == b"content"
    reply.close()
    bucket.close()


def test_a_listing_goes_on_after_the_first_thousand(minio: MinioServer, name: str) -> None:
    expected = [f"many/{number:04x}" for number in range(1005)]
    files = [SnowballObject(f"p/{k}", data=io.BytesIO(b"x"), length=1) for k in expected]
    minio_client(minio).upload_snowball_objects(name, files)
    bucket = S3Bucket(name, "p", endpoint=minio.url)
    assert [info.key for info in bucket.list("many/")] == expected
    assert bucket.usage.lists == 2
    bucket.close()


def test_a_content_in_parts_appears_at_once_and_keeps_conditions(
    minio: MinioServer, name: str
) -> None:
    bucket = S3Bucket(name, endpoint=minio.url, options=IN_PARTS)
    first, second = os.urandom(11 << 20), os.urandom(7 << 20)
    put = bucket.put("large", io.BytesIO(first), if_absent=True, metadata={"a": "b"})
    assert bucket.usage.puts == 5
    with pytest.raises(PreconditionFailedError):
        bucket.put("large", io.BytesIO(second), if_absent=True)
    assert bucket.get("large") == first
    bucket.put("large", second, if_match=put.etag)
    with pytest.raises(PreconditionFailedError):
        bucket.put("large", first, if_match=put.etag)
    with bucket.open("large") as stream:
        assert stream.read() == second
    unfinished = minio_client(minio)._list_multipart_uploads(name)
    assert unfinished.uploads == [], "refused uploads are aborted"
    bucket.close()


def test_a_bucket_that_is_not_there_is_told(minio: MinioServer) -> None:
    bucket = S3Bucket("no-such-bucket", endpoint=minio.url, options=IMPATIENT)
    for call in (lambda: bucket.put("k", b""), lambda: bucket.get("k"), lambda: [*bucket.list()]):
        with pytest.raises(BucketMissingError) as missing:
            call()
        assert missing.value.code == "bucket_missing"
    bucket.close()


def test_nobody_listening_is_told_after_the_attempts(name: str) -> None:
    waits: list[float] = []
    bucket = S3Bucket(
        name,
        endpoint=f"http://127.0.0.1:{free_port()}",
        options=S3Options(attempts=4, backoff_s=0.1, backoff_max_s=0.3),
        sleep=waits.append,
        jitter=lambda low, high: high,
    )
    for call in (
        lambda: bucket.put("k", b"", if_absent=True),
        lambda: bucket.get("k"),
        lambda: [*bucket.list()],
        lambda: bucket.head("k"),
        lambda: bucket.delete(["k"]),
    ):
        waits.clear()
        with pytest.raises(BucketUnavailableError) as away:
            call()
        assert away.value.code == "bucket_unavailable"
        assert away.value.retryable
        assert waits == [0.1, 0.2, 0.3]
    bucket.close()


# --- by way of the proxy --------------------------------------------------------------------
def attempts(proxy: FaultyProxy) -> list[Fault | None]:
    return [passed.fault for passed in proxy.passed]


@pytest.mark.parametrize("fault", ["slow_down", "conflict"])
def test_a_conditional_write_is_repeated_when_nothing_can_have_happened(
    bucket: S3Bucket, proxy: FaultyProxy, fault: Fault
) -> None:
    proxy.script(fault, fault)
    bucket.put("k", b"x", if_absent=True)
    assert attempts(proxy) == [fault, fault, None]
    assert bucket.usage.puts == 3
    proxy.script(fault, fault, fault)
    with pytest.raises(BucketUnavailableError):
        bucket.put("other", b"x", if_absent=True)
    assert bucket.head("other") is None


@pytest.mark.parametrize("fault", ["lost_reply", "error_after", "bad_gateway_after", "reset"])
def test_a_conditional_write_is_never_repeated_when_it_may_have_happened(
    bucket: S3Bucket, proxy: FaultyProxy, fault: Fault
) -> None:
    etag = bucket.put("lease", b"1").etag
    for key, condition in (("new", {"if_absent": True}), ("lease", {"if_match": etag})):
        proxy.script(fault)
        with pytest.raises(BucketOutcomeUnknownError):
            bucket.put(key, b"2", **condition)  # type: ignore[arg-type]
        assert attempts(proxy) == [fault]
        found = bucket.head(key)
        if fault == "reset":
            assert found is None or found.etag == etag
        else:
            assert found is not None and bucket.get(key) == b"2"


def test_an_unconditional_write_is_repeated_in_any_case(
    bucket: S3Bucket, proxy: FaultyProxy
) -> None:
    proxy.script("lost_reply", "error")
    source = io.BytesIO(b"skipped" + b"content")
    source.seek(7)
    bucket.put("k", source)
    assert len(proxy.passed) == 3
    assert bucket.get("k") == b"content", "every attempt sends all of it"
    proxy.script("error", "slow_down", "slow_down")
    with pytest.raises(BucketOutcomeUnknownError):
        bucket.put("k", b"2")


def test_reads_and_deletes_are_repeated(bucket: S3Bucket, proxy: FaultyProxy) -> None:
    bucket.put("k", b"0123456789" * 1000)
    for fault in ("reset", "lost_reply", "error", "slow_down", "truncated"):
        proxy.script(fault)
        assert bucket.get("k") == b"0123456789" * 1000
        assert len(proxy.passed) == 2
    for fault in ("reset", "error", "slow_down"):
        proxy.script(fault)
        assert bucket.head("k") is not None
        proxy.script(fault)
        assert len(list(bucket.list())) == 1
    proxy.script("lost_reply")
    bucket.delete(["k"])
    assert len(proxy.passed) == 2
    proxy.script("error", "error", "error")
    with pytest.raises(BucketUnavailableError) as away:
        bucket.get("k")
    assert away.value.retryable


def test_a_denial_is_not_repeated(bucket: S3Bucket, proxy: FaultyProxy) -> None:
    for call in (lambda: bucket.put("k", b"", if_absent=True), lambda: bucket.get("k")):
        proxy.script("denied")
        with pytest.raises(BucketDeniedError) as denied:
            call()
        assert (denied.value.code, denied.value.retryable) == ("bucket_denied", False)
        assert len(proxy.passed) == 1


def test_a_stream_goes_on_where_its_connection_broke(bucket: S3Bucket, proxy: FaultyProxy) -> None:
    content = os.urandom(1 << 20)
    bucket.put("large", content)
    proxy.script("truncated", "truncated", "reset")
    with bucket.open("large") as stream:
        assert b"".join(iter(lambda: stream.read(10_000), b"")) == content
    ranges = [passed.headers.get("Range") for passed in proxy.passed]
    assert ranges == [None, "bytes=524288-", "bytes=786432-", "bytes=786432-"]


def test_a_stream_never_mixes_two_contents(bucket: S3Bucket, proxy: FaultyProxy) -> None:
    bucket.put("large", os.urandom(1 << 20))
    proxy.script("truncated")
    stream = bucket.open("large")
    bucket.put("large", os.urandom(1 << 20))
    with pytest.raises(UnavailableError, match="replaced"), stream:
        while stream.read(100_000):
            pass


def test_an_unfinished_upload_is_surely_not_written(
    bucket: S3Bucket, proxy: FaultyProxy, name: str
) -> None:
    in_parts = S3Bucket(name, "p", endpoint=proxy.url, options=IN_PARTS)
    content = os.urandom(7 << 20)
    proxy.script(None, "lost_reply", "error", "lost_reply")
    with pytest.raises(BucketUnavailableError):
        in_parts.put("large", content, if_absent=True)
    with pytest.raises(KeyMissingError):
        in_parts.get("large")
    proxy.script(None, "lost_reply", None, None, "lost_reply")
    with pytest.raises(BucketOutcomeUnknownError):
        in_parts.put("large", content, if_absent=True)
    assert in_parts.get("large") == content
    in_parts.close()


def test_among_faults_of_all_kinds_no_write_is_lost_or_done_twice(
    bucket: S3Bucket, proxy: FaultyProxy
) -> None:
    """Eight writers number their contents; what a writer was told must be so."""
    told: dict[str, str] = {}
    proxy.choose = by_chance(
        random.Random(1),
        0.3,
        ["reset", "lost_reply", "slow_down", "conflict", "error", "error_after"],
    )

    def write(writer: int) -> None:
        for number in range(10):
            key = f"{writer}/{number}"
            try:
                bucket.put(key, key.encode(), if_absent=True)
            except BucketOutcomeUnknownError:
                told[key] = "unknown"
            except BucketUnavailableError:
                told[key] = "not written"
            else:
                told[key] = "written"

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    proxy.choose = lambda method, path: None
    there = {info.key for info in bucket.list()}
    assert len(told) == 80, "never refused on account of its own first attempt"
    assert {key for key, outcome in told.items() if outcome == "written"} <= there
    assert not {key for key, outcome in told.items() if outcome == "not written"} & there
    assert "unknown" in told.values()
