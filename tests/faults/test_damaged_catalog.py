"""The catalog's file is of no use, and the bucket was away: what is lost is nobody's guess."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from dosql.errors import CorruptError
from dosql.host.catalog import CATALOG_KEY
from dosql.host.cold_settings import ColdTierSettings
from dosql.host.host import Host
from dosql.log.position import position_path
from dosql.replica.memory_bucket import MemoryBucket
from tests.support.cold import (
    PREFIX,
    SwitchedBucket,
    add,
    drained,
    file_of,
    impatient,
    killed,
    replica_of,
    replicated_host,
    start_host,
    values,
)
from tests.support.hosts import settings, tenant_with_items

__all__ = ["impatient"]
pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def bucket() -> SwitchedBucket:
    return SwitchedBucket(MemoryBucket())


def damage(data: Path) -> None:
    """What the file holds cannot be known."""
    position_path(file_of(data, CATALOG_KEY)).unlink()


def names(host: Host) -> list[str]:
    return [each.name for each in host.tenants.list("", 10, None).tenants]


async def two_tenants(data: Path, bucket: SwitchedBucket) -> Host:
    """The bucket knows of the first only."""
    host = await start_host(data, bucket)
    await add(await tenant_with_items(host, "early"), "shipped")
    await drained(host)
    bucket.away = True
    await tenant_with_items(host, "late")
    return host


async def forget(host: Host) -> None:
    """All files are durable, and the commit log is cut behind them."""
    for key in [each.key for each in host.node.awake.all()] + host.node.files.unsynced():
        await host.node.upkeep.make_durable(key)
    await host.node.file_threads.run(host.node.log.cut_all)


def newest_in_bucket(host: Host) -> int:
    head = replica_of(host, CATALOG_KEY).head()
    assert head is not None
    return head.txid


async def test_what_the_log_has_makes_up_for_what_the_bucket_lacks(
    data: Path, bucket: SwitchedBucket
) -> None:
    host = await start_host(data, bucket)
    await add(await tenant_with_items(host, "early"), "shipped")
    await drained(host)
    await forget(host)
    bucket.away = True
    await tenant_with_items(host, "late")
    await killed(host)
    bucket.away = False
    damage(data)
    async with replicated_host(data, bucket) as host:
        assert names(host) == ["early", "late"]
        assert await values(host.tenants.get("late")) == []


async def test_a_start_that_would_lose_commits_is_refused_and_names_the_way_on(
    data: Path, bucket: SwitchedBucket
) -> None:
    host = await two_tenants(data, bucket)
    await host.close()
    bucket.away = False
    damage(data)
    newest = newest_in_bucket(host)
    for accepted in (None, newest + 1):
        with pytest.raises(CorruptError) as raised:
            await accepting(data, bucket, accepted)
        assert raised.value.code == "catalog_incomplete"
        assert f"--accept-catalog-loss {newest}." in raised.value.message
    host = await accepting(data, bucket, newest)
    try:
        assert names(host) == ["early"]
        assert await values(host.tenants.get("early")) == ["shipped"]
        await tenant_with_items(host, "later")
    finally:
        await host.close()
    assert list(data.glob("objects/*/*.kept")), "the damaged file is kept for the operator"
    host = await accepting(data, bucket, newest)  # the flag was left where it is
    assert names(host) == ["early", "later"]
    await host.close()


async def accepting(data: Path, bucket: SwitchedBucket, at: int | None) -> Host:
    """Start with the operator's word."""
    cold = ColdTierSettings(bucket, prefix=PREFIX)
    return await Host.start(settings(data, cold=replace(cold, accept_catalog_at=at)))


async def test_a_log_that_does_not_reach_back_to_the_bucket_is_no_help(
    data: Path, bucket: SwitchedBucket
) -> None:
    """Some commits are in the damaged file only."""
    host = await two_tenants(data, bucket)
    await forget(host)
    await tenant_with_items(host, "last")
    await killed(host)
    bucket.away = False
    damage(data)
    with pytest.raises(CorruptError) as raised:
        await start_host(data, bucket)
    assert raised.value.code == "catalog_incomplete"
