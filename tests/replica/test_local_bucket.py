"""LocalBucket: what only a directory can get wrong."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dosql.errors import InvalidRequestError
from dosql.replica import local_files
from dosql.replica.bucket import TIMESTAMP_METADATA
from dosql.replica.bucket_errors import (
    BucketDeniedError,
    BucketOutcomeUnknownError,
    BucketUnavailableError,
    KeyMissingError,
)
from dosql.replica.local_bucket import LocalBucket

_CLAIM = """
import sys
from pathlib import Path
from dosql.replica.bucket_errors import PreconditionFailedError
from dosql.replica.local_bucket import LocalBucket

bucket = LocalBucket(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(50):
    try:
        bucket.put(f"claims/{number}/x", sys.argv[2].encode(), if_absent=True)
        print(f"claim {number}")
    except PreconditionFailedError:
        pass
for number in range(20):
    while True:
        now = bucket.head("counter")
        value = int(bucket.get("counter"))
        try:
            bucket.put("counter", str(value + 1).encode(), if_match=now.etag)
            break
        except PreconditionFailedError:
            pass
"""


@pytest.fixture
def bucket(tmp_path: Path) -> LocalBucket:
    return LocalBucket(tmp_path / "bucket")


def test_of_many_processes_one_wins_each_claim_and_no_update_is_lost(tmp_path: Path) -> None:
    bucket = LocalBucket(tmp_path)
    bucket.put("counter", b"0")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _CLAIM, str(tmp_path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    claimed = [word for words in printed for word in words if word != "claim"]
    assert sorted(claimed, key=int) == [str(number) for number in range(50)]
    assert bucket.get("counter") == b"80"


def test_a_key_is_a_file_with_exactly_the_content(bucket: LocalBucket, tmp_path: Path) -> None:
    """The layout of Litestream's file replicas: the file's time is that of the LTX header."""
    metadata = {TIMESTAMP_METADATA: "2026-01-31T12:00:00.125Z"}
    bucket.put("db/ltx/0/1-1.ltx", b"content", if_absent=True, metadata=metadata)
    path = tmp_path / "bucket/db/ltx/0/1-1.ltx"
    assert path.read_bytes() == b"content"
    assert path.stat().st_mtime_ns == 1_769_860_800_125_000_000
    files = [p for p in (tmp_path / "bucket").rglob("*") if p.is_file()]
    own = {"users", "directories"} | {f"{number:02x}" for number in range(64)}
    assert {p.name for p in files} - own == {"1-1.ltx"}, "no second file per LTX file"
    assert bucket.url == f"file://{tmp_path}/bucket"


def test_files_of_another_program_are_keys_and_links_are_not(
    bucket: LocalBucket, tmp_path: Path
) -> None:
    root = tmp_path / "bucket"
    (root / "db").mkdir()
    (root / "db" / "foreign").write_bytes(b"1")
    (root / "db" / "link").symlink_to("/etc/passwd")
    (root / "out").symlink_to("/etc")
    os.mkfifo(root / "db" / "pipe")
    assert [info.key for info in bucket.list()] == ["db/foreign"]
    assert bucket.get("db/foreign") == b"1"
    assert bucket.head("db/link") is None
    for key in ("db/pipe", "db/link"):
        with pytest.raises(KeyMissingError):
            bucket.get(key)


def test_a_key_and_a_directory_cannot_have_one_name(bucket: LocalBucket) -> None:
    bucket.put("a", b"1")
    bucket.put("d/x", b"1")
    for key in ("a/b", "a/b/c", "d"):
        for if_absent in (True, False):
            with pytest.raises(InvalidRequestError) as refused:
                bucket.put(key, b"2", if_absent=if_absent)
            assert refused.value.code == "invalid_bucket_key"
    assert [info.key for info in bucket.list()] == ["a", "d/x"]


def test_what_a_dead_process_left_is_cleared_when_nobody_else_is_there(tmp_path: Path) -> None:
    first = LocalBucket(tmp_path)
    left = tmp_path / ".bucket" / "tmp" / "left"
    left.write_bytes(b"half")
    second = LocalBucket(tmp_path)
    assert left.exists(), "it could be the first one's"
    first.close()
    second.close()
    LocalBucket(tmp_path).close()
    assert not left.exists()


def test_deleting_the_last_key_removes_its_directories(bucket: LocalBucket, tmp_path: Path) -> None:
    bucket.put("a/b/c/1", b"", metadata={"x": "y"})
    bucket.put("a/2", b"")
    bucket.delete(["a/b/c/1"])
    assert sorted(p.name for p in (tmp_path / "bucket" / "a").iterdir()) == ["2"]
    assert list((tmp_path / "bucket" / ".bucket" / "metadata").iterdir()) == []
    bucket.put("a/b/c/1", b"again")
    assert bucket.head("a/b/c/1").metadata == {}  # type: ignore[union-attr]


def test_an_etag_does_not_return_even_if_time_stands_still(bucket: LocalBucket) -> None:
    metadata = {TIMESTAMP_METADATA: "2026-01-31T12:00:00.125Z"}
    etags = [bucket.put("k.ltx", b"x", metadata=metadata).etag for _ in range(50)]
    assert len(set(etags)) == 50
    assert bucket.head("k.ltx").metadata == metadata  # type: ignore[union-attr]


def test_every_write_is_synced_before_and_after_it_gets_its_name(
    bucket: LocalBucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Content first, then the name; and the names of new directories, from the top."""
    synced: list[str] = []
    real = os.fsync
    named = tmp_path / "bucket" / "a" / "b" / "1"

    def fsync(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        is_content = ".bucket/tmp/" in path
        synced.append("content" if is_content else path.removeprefix(str(tmp_path)))
        assert not (is_content and named.exists())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    bucket.put("a/b/1", b"x", if_absent=True)
    assert synced == ["content", "/bucket", "/bucket/a", "/bucket/a/b"]


def test_failing_calls_say_whether_something_may_be_there(
    bucket: LocalBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("a/0", b"0")
    real = os.fsync

    def fail(number: int, code: int) -> None:
        calls = iter(range(number + 1))

        def fsync(descriptor: int) -> None:
            if next(calls, None) == number:
                raise OSError(code, "injected")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)

    fail(0, errno.EIO)
    with pytest.raises(BucketUnavailableError):
        bucket.put("a/1", b"1", if_absent=True)
    fail(0, errno.ENOSPC)
    with pytest.raises(BucketUnavailableError, match="No space left"):
        bucket.put("a/1", b"1")
    assert bucket.head("a/1") is None
    fail(1, errno.EIO)
    with pytest.raises(BucketOutcomeUnknownError):
        bucket.put("a/1", b"1", if_absent=True)
    assert bucket.head("a/1") is not None
    monkeypatch.setattr(os, "fsync", real)
    assert list((local_files.LocalLayout(Path(bucket.url[7:])).tmp).iterdir()) == []


def test_a_refusal_of_the_file_system_is_a_denial(
    bucket: LocalBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EROFS, "injected")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(BucketDeniedError, match="Read-only"):
        bucket.put("k", b"", if_absent=True)


def test_a_file_is_not_opened_as_a_bucket(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "bucket"):
        with pytest.raises(InvalidRequestError) as refused:
            LocalBucket(path)
        assert refused.value.code == "invalid_bucket_url"
