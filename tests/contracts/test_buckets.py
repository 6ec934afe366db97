"""What every bucket keeps: a directory, memory, S3 as moto has it, S3 of a real MinIO."""

from __future__ import annotations

import io
import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from dosql.clock import SystemRandomness
from dosql.errors import InvalidRequestError
from dosql.replica.bucket import TIMESTAMP_METADATA, Bucket
from dosql.replica.bucket_errors import (
    BucketOutcomeUnknownError,
    BucketUnavailableError,
    KeyMissingError,
    PreconditionFailedError,
)
from dosql.replica.bucket_usage import BucketUsage
from dosql.replica.local_bucket import LocalBucket
from dosql.replica.memory_bucket import MemoryBucket
from dosql.replica.probe import probe
from dosql.replica.s3_bucket import S3Bucket
from tests.support.buckets import moto_url, s3_bucket, s3_credentials
from tests.support.faulty_bucket import FaultRates, FaultyBucket

__all__ = ["moto_url", "s3_credentials"]

MAKERS: dict[str, Callable[[pytest.FixtureRequest], Bucket]] = {
    "local": lambda request: LocalBucket(request.getfixturevalue("tmp_path") / "bucket"),
    "memory": lambda request: MemoryBucket(),
    "moto": lambda request: s3_bucket(request.getfixturevalue("moto_url")),
    "minio": lambda request: s3_bucket(request.getfixturevalue("minio").url),
}
CLAIMANTS = 64


@pytest.fixture(params=MAKERS)
def bucket(request: pytest.FixtureRequest, s3_credentials: None) -> Iterator[Bucket]:
    made = MAKERS[request.param](request)
    yield made
    made.close()


def one_winner(put: Callable[[bytes], object]) -> bytes:
    """Many claimants call ``put`` at once with contents of their own; that of the only one that
    was not refused."""
    barrier = threading.Barrier(CLAIMANTS)

    def claim(content: bytes) -> bytes | None:
        barrier.wait()
        try:
            put(content)
        except PreconditionFailedError:
            return None
        return content

    with ThreadPoolExecutor(CLAIMANTS) as pool:
        claims = list(pool.map(claim, [os.urandom(16) for _ in range(CLAIMANTS)]))
    (winner,) = [content for content in claims if content is not None]
    return winner


def keys(bucket: Bucket, prefix: str = "", **options: object) -> list[str]:
    return [info.key for info in bucket.list(prefix, **options)]  # type: ignore[arg-type]


# --- contents ------------------------------------------------------------------------------------
def test_what_was_put_is_there(bucket: Bucket) -> None:
    put = bucket.put("a/b/c.ltx", b"content")
    assert bucket.get("a/b/c.ltx") == b"content"
    found = bucket.head("a/b/c.ltx")
    assert found is not None and (found.size, found.etag) == (7, put.etag)
    assert found.modified_ms > 1_700_000_000_000
    assert (put.key, put.size, put.modified_ms) == ("a/b/c.ltx", 7, 0)


def test_a_put_replaces_the_whole_content_and_its_etag(bucket: Bucket) -> None:
    etags = [bucket.put("k", content).etag for content in (b"a long first content", b"short", b"")]
    assert bucket.get("k") == b""
    assert len(set(etags)) == 3


def test_empty_content_is_content(bucket: Bucket) -> None:
    bucket.put("empty", b"")
    found = bucket.head("empty")
    assert found is not None and found.size == 0
    assert bucket.get("empty") == b"" == bucket.get("empty", start=-5)
    assert bucket.get("empty", start=0, length=3) == b""
    with bucket.open("empty") as stream:
        assert stream.read() == b""


def test_a_range_is_cut_at_the_end(bucket: Bucket) -> None:
    bucket.put("digits", b"0123456789")
    cases: list[tuple[int, int | None, bytes]] = [
        (0, 1, b"0"),
        (2, 3, b"234"),
        (8, 100, b"89"),
        (3, None, b"3456789"),
        (-4, None, b"6789"),
        (-100, None, b"0123456789"),
        (10, None, b""),
        (10, 1, b""),
        (999, 5, b""),
    ]
    for start, length, part in cases:
        assert bucket.get("digits", start=start, length=length) == part, (start, length)


def test_a_range_that_no_store_understands_is_our_bug(bucket: Bucket) -> None:
    with pytest.raises(ValueError, match="length"):
        bucket.get("k", start=-3, length=2)
    with pytest.raises(ValueError, match="length"):
        bucket.get("k", length=0)
    with pytest.raises(ValueError, match="exclude"):
        bucket.put("k", b"", if_absent=True, if_match="x")


def test_a_file_goes_in_from_where_it_stands_and_comes_out_as_a_stream(bucket: Bucket) -> None:
    content = os.urandom(20 << 20)
    source = io.BytesIO(b"header" + content)
    source.seek(6)
    assert bucket.put("large", source, if_absent=True).size == len(content)
    with bucket.open("large") as stream:
        pieces = list(iter(lambda: stream.read(1 << 20), b""))
    assert len(pieces) == 20
    assert b"".join(pieces) == content
    assert bucket.get("large", start=-100) == content[-100:]


def test_a_missing_key_is_told_as_such(bucket: Bucket) -> None:
    assert bucket.head("no/such") is None
    with pytest.raises(KeyMissingError) as missing:
        bucket.get("no/such")
    assert missing.value.code == "bucket_key_missing"
    with pytest.raises(KeyMissingError):
        bucket.get("no/such", start=5)
    with pytest.raises(KeyMissingError):
        bucket.open("no/such")
    bucket.put("dir/key", b"x")
    assert bucket.head("dir") is None
    with pytest.raises(KeyMissingError):
        bucket.get("dir")


def test_metadata_comes_back_as_it_went_in(bucket: Bucket) -> None:
    metadata = {"epoch": "17", "batch-id": "a b=c/+", TIMESTAMP_METADATA: "2026-01-31T12:00:00.12Z"}
    bucket.put("record.json", b"{}", metadata=metadata)
    found = bucket.head("record.json")
    assert found is not None and found.metadata == metadata
    bucket.put("record.json", b"{}")
    found = bucket.head("record.json")
    assert found is not None and found.metadata == {}, "the metadata belongs to the content"


def test_the_timestamp_of_an_ltx_file_comes_back_to_the_millisecond(bucket: Bucket) -> None:
    for text in ("2026-01-31T12:00:00.125Z", "1999-12-31T23:59:59.999Z"):
        metadata = {TIMESTAMP_METADATA: text}
        bucket.put("0000/1-1.ltx", b"x", metadata=metadata)
        found = bucket.head("0000/1-1.ltx")
        assert found is not None and found.metadata == metadata


def test_metadata_that_headers_would_change_is_refused(bucket: Bucket) -> None:
    for metadata in ({"Upper": "x"}, {"a": "ä"}, {"a": " x"}, {"a": "x\ny"}, {"a": "x" * 3000}):
        with pytest.raises(InvalidRequestError):
            bucket.put("k", b"", metadata=metadata)
    assert bucket.head("k") is None


# --- conditions ----------------------------------------------------------------------------------
def test_if_absent_refuses_a_key_that_is_there(bucket: Bucket) -> None:
    bucket.put("k", b"first", if_absent=True)
    with pytest.raises(PreconditionFailedError) as refused:
        bucket.put("k", b"second", if_absent=True)
    assert refused.value.code == "bucket_precondition_failed"
    assert bucket.get("k") == b"first"
    bucket.delete(["k"])
    bucket.put("k", b"third", if_absent=True)


def test_if_match_replaces_one_content_only(bucket: Bucket) -> None:
    first = bucket.put("k", b"1").etag
    second = bucket.put("k", b"2", if_match=first).etag
    for stale in (first, "0" * 32):
        with pytest.raises(PreconditionFailedError):
            bucket.put("k", b"x", if_match=stale)
    assert bucket.get("k") == b"2"
    listed = next(bucket.list("k"))
    assert listed.etag == second
    bucket.put("k", b"3", if_match=listed.etag)


def test_if_match_on_a_missing_key_is_a_failed_condition(bucket: Bucket) -> None:
    etag = bucket.put("k", b"1").etag
    bucket.delete(["k"])
    with pytest.raises(PreconditionFailedError):
        bucket.put("k", b"2", if_match=etag)
    assert bucket.head("k") is None


def test_of_many_claimants_of_a_new_key_one_wins(bucket: Bucket) -> None:
    for number in range(2):
        winner = one_winner(partial(bucket.put, f"claims/{number}", if_absent=True))
        assert bucket.get(f"claims/{number}") == winner


def test_of_many_updates_of_one_content_one_wins(bucket: Bucket) -> None:
    etag = bucket.put("lease", b"nobody").etag
    for _ in range(2):
        winner = one_winner(partial(bucket.put, "lease", if_match=etag))
        assert bucket.get("lease") == winner
        found = bucket.head("lease")
        assert found is not None
        etag = found.etag


# --- listings ------------------------------------------------------------------------------------
def test_a_listing_is_in_the_order_of_bytes_over_all_pages(bucket: Bucket) -> None:
    """Names around the slash sort in another order than directories do. The buckets in S3 list
    20 keys per request here."""
    special = ["a-b/x", "a/x", "a/b/c", "a/b-c", "a/b.c", "a0", "a.b", "a~/z", "B/x", "_"]
    many = [f"many/{number:04x}.ltx" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: bucket.put(key, b"x"), special + many))
    expected = sorted(special + many)
    before = bucket.usage
    assert keys(bucket) == expected
    used = bucket.usage - before
    assert used.requests == used.lists == (3 if isinstance(bucket, S3Bucket) else 1)
    assert keys(bucket, "a/b") == ["a/b-c", "a/b.c", "a/b/c"]
    assert keys(bucket, "a/") == ["a/b-c", "a/b.c", "a/b/c", "a/x"]
    assert keys(bucket, "many/001") == [f"many/{n:04x}.ltx" for n in range(16, 32)]
    assert keys(bucket, after="many/0025.ltx") == ["many/0026.ltx", "many/0027.ltx"]
    for at in (0, 1, 5, 7, 30, 49):
        assert keys(bucket, after=expected[at]) == expected[at + 1 :]
    assert keys(bucket, "a", after="a/b", limit=2) == ["a/b-c", "a/b.c"]
    assert keys(bucket, limit=0) == []
    assert keys(bucket, limit=41) == expected[:41]
    assert keys(bucket, "nothing/here") == []
    assert list(bucket.list_directories()) == ["B/", "a-b/", "a/", "a~/", "many/"]
    assert list(bucket.list_directories("a/")) == ["a/b/"]
    assert list(bucket.list_directories("none/")) == []
    bucket.delete(special + many)
    assert keys(bucket) == []
    assert list(bucket.list_directories()) == []


def test_a_listing_tells_size_and_etag(bucket: Bucket) -> None:
    put = bucket.put("k", b"12345")
    (info,) = bucket.list()
    assert (info.key, info.size, info.etag) == ("k", 5, put.etag)
    assert dict(info.metadata) == {}


def test_deleting_what_is_missing_is_fine(bucket: Bucket) -> None:
    bucket.put("a/1", b"")
    bucket.put("a/2", b"")
    bucket.delete(["a/1", "a/none", "none"])
    bucket.delete([])
    assert keys(bucket) == ["a/2"]


# --- keys ----------------------------------------------------------------------------------------
HOSTILE = [
    "",
    "/",
    "/etc/passwd",
    "..",
    "../x",
    "a/../../x",
    "a/./b",
    "a//b",
    "a/",
    "a\0b",
    "a\nb",
    "a\\..\\b",
    "a b",
    "ä",
    "a?b",
    "a#b",
    "a%2e%2e/b",
    ".bucket/tmp/x",
    "x" * 201,
    "/".join(["x" * 100] * 9),
]


def test_a_key_that_could_mislead_a_store_is_refused(bucket: Bucket) -> None:
    calls: list[Callable[[str], object]] = [
        lambda key: bucket.put(key, b"x"),
        bucket.get,
        bucket.open,
        bucket.head,
        lambda key: bucket.delete([key]),
    ]
    for key in HOSTILE:
        for call in calls:
            with pytest.raises(InvalidRequestError) as refused:
                call(key)
            assert refused.value.code == "invalid_bucket_key", key
    assert bucket.usage == BucketUsage()


def test_a_prefix_that_could_mislead_a_store_is_refused(bucket: Bucket) -> None:
    for prefix in ("/", "../", "a//", "a/../b", ".bucket/", "a\0"):
        with pytest.raises(InvalidRequestError):
            bucket.list(prefix)
    with pytest.raises(InvalidRequestError):
        bucket.list_directories("a")


# --- usage, check at the start, faults -----------------------------------------------------------
def test_every_request_is_counted_and_nothing_else(bucket: Bucket) -> None:
    assert bucket.usage.requests == 0
    bucket.put("k", b"12345")
    bucket.get("k", start=1, length=2)
    bucket.head("k")
    bucket.head("none")
    list(bucket.list("k"))
    bucket.delete(["k", "j"])
    assert bucket.usage == BucketUsage(
        puts=1, gets=1, heads=2, lists=1, deletes=1, bytes_up=5, bytes_down=2
    )


def test_the_check_at_the_start_passes_and_leaves_nothing(bucket: Bucket) -> None:
    probe(bucket, SystemRandomness())
    assert keys(bucket) == []
    assert bucket.usage.puts == 4


def test_a_lost_reply_leaves_the_content_and_a_head_tells_whose_it_is(bucket: Bucket) -> None:
    faulty = FaultyBucket(bucket, random.Random(5), FaultRates(after=1))
    with pytest.raises(BucketOutcomeUnknownError):
        faulty.put("k", b"mine", if_absent=True, metadata={"batch": "1"})
    faulty.rates = FaultRates()
    with pytest.raises(PreconditionFailedError):
        faulty.put("k", b"mine", if_absent=True, metadata={"batch": "1"})
    found = faulty.head("k")
    assert found is not None and found.metadata["batch"] == "1"


def test_a_faulty_bucket_fails_as_often_as_it_is_told(bucket: Bucket) -> None:
    """The wrapper other tests rest on: before means nothing happened, after means it did."""
    faulty = FaultyBucket(bucket, random.Random(7), FaultRates(before=0.3, after=0.3, phantom=0.2))
    written = set()
    for number in range(40):
        try:
            faulty.put(f"{number:02}", b"x")
        except BucketUnavailableError:
            continue
        except BucketOutcomeUnknownError:
            if faulty.faults[-1][2] == "phantom":
                continue
        written.add(f"{number:02}")
    assert {fault for _, _, fault in faulty.faults} == {"before", "after", "phantom"}
    assert keys(bucket) == sorted(written)


def test_two_openings_of_a_directory_see_one_bucket(tmp_path: Path) -> None:
    one, other = LocalBucket(tmp_path), LocalBucket(tmp_path)
    etag = one.put("k", b"1", metadata={"by": "one"}).etag
    found = other.head("k")
    assert found is not None and (found.etag, found.metadata) == (etag, {"by": "one"})
    other.put("k", b"2", if_match=etag)
    with pytest.raises(PreconditionFailedError):
        one.put("k", b"3", if_match=etag)
    one.close()
    other.close()
