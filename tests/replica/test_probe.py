"""The check at the start, on stores that lack one thing each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import BinaryIO

import pytest

from dosql.clock import SystemRandomness
from dosql.errors import DosqlError
from dosql.replica.bucket import NO_METADATA, ObjectInfo
from dosql.replica.bucket_errors import BucketDeniedError, PreconditionFailedError
from dosql.replica.memory_bucket import MemoryBucket
from dosql.replica.probe import NotConditionalError, probe
from tests.support.buckets import WrappedBucket


class Lax(WrappedBucket):
    """A store that ignores what ``ignored`` names: ``if_absent``, ``if_match`` or ``right``."""

    def __init__(self, ignored: str) -> None:
        super().__init__(MemoryBucket())
        self.ignored = ignored

    def put(
        self,
        key: str,
        data: bytes | BinaryIO,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> ObjectInfo:
        if if_match is not None and self.ignored == "right":
            raise PreconditionFailedError("sabotage")
        return super().put(
            key,
            data,
            if_absent=if_absent and self.ignored != "if_absent",
            if_match=None if self.ignored == "if_match" else if_match,
            metadata=metadata,
        )


class Stale(WrappedBucket):
    """A store that lists what was there a while ago: nothing."""

    def list(
        self, prefix: str = "", *, after: str = "", limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        return iter(())


class Keeping(WrappedBucket):
    """A store that says yes to a delete, and keeps the key."""

    def delete(self, keys: Iterable[str]) -> None:
        pass


class Forgetful(WrappedBucket):
    """A store that answers with the content before the last."""

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        return b"created"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Lax("if_absent"), "ignores If-None-Match"),
        (lambda: Lax("if_match"), "ignores If-Match"),
        (lambda: Lax("right"), "refuses If-Match with the right ETag"),
        (lambda: Stale(MemoryBucket()), "does not list"),
        (lambda: Keeping(MemoryBucket()), "deletes nothing"),
        (lambda: Forgetful(MemoryBucket()), "does not give back"),
    ],
)
def test_a_store_that_lacks_something_is_refused_with_a_sentence(
    make: Callable[[], WrappedBucket], sentence: str
) -> None:
    store = make()
    with pytest.raises(NotConditionalError, match=sentence) as refused:
        probe(store, SystemRandomness())
    assert (refused.value.code, refused.value.retryable) == ("bucket_not_conditional", False)
    if not isinstance(store, Keeping):
        assert list(store.inner.list()) == [], "nothing is left behind"


def test_the_first_failure_is_the_one_that_is_told() -> None:
    def fault(operation: str, key: str) -> None:
        if operation in ("get", "delete"):
            raise BucketDeniedError(f"no {operation}")

    with pytest.raises(DosqlError, match="no get"):
        probe(MemoryBucket(fault=fault), SystemRandomness())
