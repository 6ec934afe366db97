"""Files of objects that the catalog does not know: none is left by a crash, wherever it hits."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Awaitable
from pathlib import Path

import pytest

from dosql.errors import DosqlError, UnavailableError
from dosql.host.catalog import CATALOG_KEY
from dosql.host.host import Host
from dosql.log.records import ObjectKey
from dosql.replica.memory_bucket import MemoryBucket
from tests.support.cold import (
    CATALOG_PREFIX,
    PREFIX,
    SwitchedBucket,
    add,
    drained,
    fault_seed,
    killed,
    replicated_host,
    start_host,
    values,
)
from tests.support.crashes import Image, materialise
from tests.support.explorer import fast_directory, record_life
from tests.support.hosts import CREATE, tenant_with_items, until
from tests.support.recording import LooseDisk
from tests.support.workloads import small_settings

SEED = fault_seed()


@pytest.fixture
def bucket() -> SwitchedBucket:
    return SwitchedBucket(MemoryBucket())


def orphans(host: Host) -> list[str]:
    """Objects with files on the disk that the catalog does not know, and markers left over."""
    directory = host.node.directory
    found = {path.name.partition(".")[0] for path in directory.objects.glob("*/*")}
    known = {CATALOG_KEY.filename.partition(".")[0]}
    for each in host.tenants.list("", 1000, None).tenants:
        known.add(host.tenants.entry(each.name).key.filename.partition(".")[0])
    return [*(found - known), *(path.name for path in directory.orphans.iterdir())]


def in_bucket(bucket: SwitchedBucket) -> list[str]:
    """Keys of all objects but the catalog."""
    return [each.key for each in bucket.list(PREFIX) if not each.key.startswith(CATALOG_PREFIX)]


def a_file(host: Host, *rows: str) -> Path:
    """A database to import."""
    path = host.scratch_dir / "import.sqlite"
    connection = sqlite3.connect(path)
    connection.execute(CREATE)
    connection.executemany("INSERT INTO items(value) VALUES (?)", [[each] for each in rows])
    connection.commit()
    connection.close()
    return path


class Died(BaseException):
    """The process ends here."""


def dies(*_: object, **__: object) -> Awaitable[None]:
    raise Died


# --- every crash point ------------------------------------------------------------------------


async def test_no_crash_leaves_files_of_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a life with imports, replacements and deletions: kills, and power losses."""
    life = await record_life()
    randomness = random.Random(SEED)
    names = ("orphans/", "objects/")
    telling = [
        position
        for position, each in enumerate(life.operations, 1)
        if each.path.startswith(names) and each.kind in ("create", "rename", "unlink", "sync_dir")
    ]
    chosen = sorted(randomness.sample(telling, min(40, len(telling))))
    image, done, wrong = Image(), 0, list[str]()
    for position in chosen:
        for operation in life.operations[done:position]:
            image.apply(operation)
        done = position
        files = image.killed() if randomness.random() < 0.5 else image.powerless(randomness)
        with fast_directory() as root:
            materialise(files, root)
            host = await Host.start(small_settings(root), disk=LooseDisk())
            try:
                wrong += [f"after {position} operations: {each}" for each in orphans(host)]
            finally:
                await host.close()
    with capsys.disabled():
        print(f"\n{len(chosen)} of {len(telling)} crash points, seed {SEED}: {len(wrong)} wrong")
    assert wrong == []


# --- imports ----------------------------------------------------------------------------------


async def test_a_crash_between_an_import_s_file_and_its_name(
    tmp_path: Path, bucket: SwitchedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = await start_host(tmp_path, bucket)
    with monkeypatch.context() as patch:
        patch.setattr(host.tenants._catalog, "put", dies)
        with pytest.raises(Died):
            await host.tenants.import_file("acme", a_file(host, "lost"))
    assert len(orphans(host)) == 2
    await killed(host)
    async with replicated_host(tmp_path, bucket) as host:
        await drained(host)
        assert orphans(host) == []
        assert host.tenants.list("", 10, None).tenants == []
        assert in_bucket(bucket) == []
        await host.tenants.import_file("acme", a_file(host, "kept"))
        assert await values(host.tenants.get("acme")) == ["kept"]
        assert orphans(host) == []


async def test_a_crash_right_behind_an_import_does_not_keep_it_from_the_bucket(
    tmp_path: Path, bucket: SwitchedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No commit of it is in the log: nothing but the marker tells of it."""
    host = await start_host(tmp_path, bucket)
    monkeypatch.setattr(host.tenants, "_settle", dies)
    with pytest.raises(Died):
        await host.tenants.import_file("acme", a_file(host, "kept"))
    await killed(host)
    async with replicated_host(tmp_path, bucket) as host:
        assert orphans(host) == []
        await drained(host)
        assert in_bucket(bucket)
        assert await values(host.tenants.get("acme")) == ["kept"]


async def test_a_crash_between_a_branch_s_link_and_its_name(
    tmp_path: Path, bucket: SwitchedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = await start_host(tmp_path, bucket)
    await tenant_with_items(host)
    await drained(host)
    before = in_bucket(bucket)
    branches = host.past.branches
    monkeypatch.setattr(branches._catalog, "put_branch", dies)
    with pytest.raises(Died):
        await branches.create("acme", "feature")
    assert in_bucket(bucket) != before
    await killed(host)
    async with replicated_host(tmp_path, bucket) as host:
        await until(lambda: in_bucket(bucket) == before)
        await until(lambda: orphans(host) == [])


# --- removals ---------------------------------------------------------------------------------


async def written(host: Host) -> ObjectKey:
    """A tenant with a row, and files in the bucket."""
    tenant = await tenant_with_items(host)
    await add(tenant, "secret")
    await drained(host)
    return tenant.key


async def test_a_removal_that_the_bucket_did_not_take_outlives_a_clean_stop(
    tmp_path: Path, bucket: SwitchedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dosql.host.cold_tier.REPLICA_DRAIN_S", 0.05)
    host = await start_host(tmp_path, bucket)
    await written(host)
    bucket.away = True
    await host.tenants.delete("acme")
    await host.close()
    bucket.away = False
    assert in_bucket(bucket)
    async with replicated_host(tmp_path, bucket) as host:
        await until(lambda: in_bucket(bucket) == [])
        await until(lambda: orphans(host) == [])


async def test_a_removal_outlives_the_part_of_the_log_that_tells_of_it(
    tmp_path: Path, bucket: SwitchedBucket
) -> None:
    """The bucket is away for longer than the log is kept."""
    host = await start_host(tmp_path, bucket)
    await written(host)
    bucket.away = True
    await host.tenants.delete("acme")
    for key in [CATALOG_KEY, *host.node.files.unsynced()]:
        await host.node.upkeep.make_durable(key)
    await host.node.file_threads.run(host.node.log.cut_all)
    await killed(host)
    bucket.away = False
    async with replicated_host(tmp_path, bucket) as host:
        await until(lambda: in_bucket(bucket) == [])
        await until(lambda: orphans(host) == [])


async def test_files_that_could_not_be_removed_go_at_the_next_start(
    tmp_path: Path, bucket: SwitchedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = await start_host(tmp_path, bucket)
    await written(host)

    def fails(key: ObjectKey) -> None:
        raise UnavailableError("injected")

    monkeypatch.setattr(host.node.files, "remove", fails)
    with pytest.raises(DosqlError):
        await host.tenants.delete("acme")
    await host.close()
    async with replicated_host(tmp_path, bucket) as host:
        await until(lambda: orphans(host) == [])


async def test_a_life_without_imports_and_deletions_leaves_no_markers(
    tmp_path: Path, bucket: SwitchedBucket
) -> None:
    """Nor does a deletion that nothing interrupts."""
    async with replicated_host(tmp_path, bucket) as host:
        await written(host)
        await host.tenants.delete("acme")
        await drained(host)
        await until(lambda: in_bucket(bucket) == [])
    assert list((tmp_path / "orphans").iterdir()) == []


@pytest.mark.parametrize("times", [1, 2])
async def test_a_start_that_is_killed_goes_on_where_it_was(
    times: int, tmp_path: Path, bucket: SwitchedBucket
) -> None:
    """While the bucket does not answer, start after start."""
    host = await start_host(tmp_path, bucket)
    await written(host)
    bucket.away = True
    await host.tenants.delete("acme")
    await killed(host)
    for _ in range(times):
        await killed(await start_host(tmp_path, bucket))
    bucket.away = False
    async with replicated_host(tmp_path, bucket) as host:
        await until(lambda: in_bucket(bucket) == [])
