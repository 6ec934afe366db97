"""Two servers that both hold an object to be theirs never both acknowledge."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from dosql.replica.bucket import Bucket
from dosql.replica.memory_bucket import MemoryBucket
from tests.support.buckets import s3_bucket, s3_credentials
from tests.support.cold import fault_seed
from tests.support.minio import MinioServer
from tests.support.two_owners import Fight, PlainPuts, Sides, check

__all__ = ["s3_credentials"]
SEED = fault_seed()


async def fought(root: Path, bucket: Bucket, takeovers: int, pause_s: float) -> Fight:
    """The fight, checked."""
    sides = await Sides.start(root, bucket, SEED, pause_s)
    try:
        fight = await sides.fight(takeovers, random.Random(SEED))
        check(fight, sides.replica, root / "restored.sqlite")
        return fight
    finally:
        await sides.close()


def judge(fight: Fight, takeovers: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Print the figures; nothing may be wrong, and it must have been a fight."""
    with capsys.disabled():
        print(f"\nseed {SEED}: {fight}")
    assert fight.problems == []
    assert fight.takeovers >= takeovers
    assert {side for side, _ in fight.acknowledged.values()} == {"a", "b"}


async def test_two_hosts_that_fight_for_a_tenant_never_both_acknowledge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge(await fought(tmp_path, MemoryBucket(), 40, 0.005), 40, capsys)


async def test_two_hosts_fight_over_minio(
    tmp_path: Path,
    minio: MinioServer,
    s3_credentials: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    judge(await fought(tmp_path, s3_bucket(minio.url), 15, 0.0), 15, capsys)


async def test_a_store_that_ignores_the_condition_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sabotage."""
    sides = await Sides.start(tmp_path, PlainPuts(MemoryBucket()), SEED, 0.005)
    try:
        fight = await sides.fight(5, random.Random(SEED))
        check(fight, sides.replica, tmp_path / "restored.sqlite")
    finally:
        await sides.close()
    assert fight.problems


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("store", ["memory", "minio"])
async def test_500_takeovers(
    store: str,
    tmp_path: Path,
    minio: MinioServer,
    s3_credentials: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bucket: Callable[[], Bucket] = (
        MemoryBucket if store == "memory" else lambda: s3_bucket(minio.url)
    )
    judge(await fought(tmp_path, bucket(), 500, 0.005), 500, capsys)
