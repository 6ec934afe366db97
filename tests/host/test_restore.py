"""Restoring tenants: into new ones, in place, and back again."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, BinaryIO

import apsw
import pytest

from dosql.bookmarks import Bookmark
from dosql.errors import (
    ConflictError,
    CorruptError,
    InvalidRequestError,
    NotFoundError,
    RequestError,
)
from dosql.host.changes import ChangeSettings
from dosql.host.cold_settings import ColdTierSettings
from dosql.host.host import Host
from dosql.host.tenant import Tenant
from dosql.replica.image import Image
from dosql.replica.local_bucket import LocalBucket
from dosql.replica.reading import OnProgress
from dosql.replica.replica import Replica
from dosql.sqlite.database import Database
from tests.replica.litestream import litestream
from tests.support.hosts import (
    call,
    crashed,
    execute,
    migration,
    running_host,
    settings,
    tenant_with_items,
    work,
)


def cold(tmp_path: Path, **changes: Any) -> ColdTierSettings:
    return ColdTierSettings(LocalBucket(tmp_path / "bucket"), directory=True, **changes)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with running_host(tmp_path / "data", cold=cold(tmp_path)) as running:
        yield running


async def test_in_the_durability_mode_bucket_restores_work_as_well(tmp_path: Path) -> None:
    async with running_host(tmp_path / "data", cold=cold(tmp_path, durability="bucket")) as host:
        tenant = await tenant_with_items(host)
        marks = []
        for number in range(10):
            sql = "INSERT INTO items(value) VALUES (?)"
            marks.append((await call(tenant, sql, str(number))).bookmark)
        reply = await host.past.restores.restore("acme", str(marks[4]))
        assert await execute(tenant, "SELECT count(*) FROM items") == [[5]]
        await host.past.restores.restore("acme", str(reply.undo_bookmark))
        assert await execute(tenant, "SELECT count(*) FROM items") == [[10]]


def dump(db: Database) -> bytes:
    """All tables with all rows, as JSON."""
    tables = db.query(
        "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"
        " AND name NOT LIKE '\\_dosql%' ESCAPE '\\' ORDER BY name"
    ).rows
    content = {
        str(name): [
            str(sql),
            [[repr(value) for value in row] for row in db.query(f'SELECT * FROM "{name}"').rows],
        ]
        for name, sql in tables
        if str(sql).startswith("CREATE TABLE")
    }
    return json.dumps(content).encode()


async def dumped(tenant: Tenant) -> tuple[bytes, Bookmark]:
    done = await tenant.call(dump)
    return done.body, done.bookmark


def random_statement(rng: random.Random) -> tuple[str, list[Any]]:
    table = f"t{rng.randrange(3)}"
    blob = rng.randbytes(rng.choice((3, 200, 6_000)))
    return rng.choice(
        [
            (f"INSERT INTO {table}(x) VALUES (?)", [blob]),
            (f"INSERT INTO {table}(x) VALUES (?)", [blob]),
            (f"UPDATE {table} SET x = ? WHERE id % 3 = {rng.randrange(3)}", [blob]),
            (f"DELETE FROM {table} WHERE id % 4 = {rng.randrange(4)}", []),
            (f"DROP TABLE IF EXISTS {table}", []),
            (f"CREATE INDEX IF NOT EXISTS i_{table} ON {table}(x)", []),
        ]
    )


async def random_history(tenant: Tenant, rng: random.Random, steps: int) -> list[Any]:
    """(bookmark, dump) after each of some random writes."""
    history = []
    for _ in range(steps):
        sql, params = random_statement(rng)

        def write(db: Database, sql: str = sql, params: list[Any] = params) -> bytes:
            with db.transaction():
                for number in range(3):
                    db.run(f"CREATE TABLE IF NOT EXISTS t{number}(id INTEGER PRIMARY KEY, x)")
                db.run(sql, params)
            return b""

        await tenant.call(write)
        content, mark = await dumped(tenant)
        history.append((mark, content))
    return history


@pytest.mark.parametrize("seed", range(3))
async def test_every_bookmark_restores_to_exactly_its_state(host: Host, seed: int) -> None:
    """Read, restored into a new tenant, restored in place, and undone: always the same dump."""
    rng = random.Random(seed)
    tenant = await host.tenants.ensure("acme")
    history = await random_history(tenant, rng, 15)
    for number, (mark, content) in enumerate(rng.sample(history, 6)):
        assert (await tenant.call_at(str(mark), dump)).body == content
        reply = await host.past.restores.restore("acme", str(mark), f"copy-{number}")
        assert reply.bookmark == str(mark)
        assert (await dumped(host.tenants.get(f"copy-{number}")))[0] == content
        before, _ = await dumped(tenant)
        reply = await host.past.restores.restore("acme", str(mark))
        assert (await dumped(tenant))[0] == content
        assert reply.undo_bookmark is not None
        undone = await host.past.restores.restore("acme", reply.undo_bookmark)
        assert (await dumped(tenant))[0] == before
        assert undone.undo_bookmark is not None
        assert (await tenant.call_at(undone.undo_bookmark, dump)).body == content
    history += await random_history(tenant, rng, 3)
    for mark, content in history:
        assert (await tenant.call_at(str(mark), dump)).body == content


async def test_litestream_restores_what_we_restore(host: Host, tmp_path: Path) -> None:
    """By TXID and by time, through a restore in place and a snapshot."""
    rng = random.Random(7)
    tenant = await host.tenants.ensure("acme")
    history = await random_history(tenant, rng, 8)
    await host.past.restores.restore("acme", str(history[2][0]))
    await host.past.snapshots.create("acme")
    history += await random_history(tenant, rng, 3)
    info = await host.tenants.described("acme")
    url = str(info.replica_url)
    assert url.startswith("file:///")
    assert host.cold is not None
    await host.cold.drain()
    for mark, content in [*history[::3], history[-1]]:
        target = tmp_path / f"{mark.txid}.db"
        litestream("restore", "-txid", f"{mark.txid:016x}", "-o", str(target), url)
        db = Database(str(target), clock=tenant._tenants.clock)
        assert dump(db) == content
        db.close()
    target = tmp_path / "newest.db"
    litestream("restore", "-integrity-check", "full", "-o", str(target), url)
    reply = await host.past.restores.restore("acme", str(history[-1][0]), "copy")
    async with host.past.travel.copy(tenant.key, history[-1][0].txid) as ours:
        assert ours.read_bytes() == target.read_bytes()
    assert reply.size_bytes == target.stat().st_size


async def test_a_dry_run_builds_and_checks_and_changes_nothing(host: Host) -> None:
    tenant = await tenant_with_items(host)
    mark = (await call(tenant, "INSERT INTO items(value) VALUES ('a')")).bookmark
    await call(tenant, "INSERT INTO items(value) VALUES ('b')")
    before = await dumped(tenant)
    reply = await host.past.restores.restore("acme", str(mark), dry_run=True)
    assert (reply.dry_run, reply.undo_bookmark) == (True, None)
    assert reply.files >= 2 and reply.bytes_read > 0 and reply.size_bytes > 0
    assert await dumped(tenant) == before
    with pytest.raises(NotFoundError):
        host.tenants.get("copy")
    assert not list(host.scratch_dir.iterdir())


async def test_a_restore_into_a_tenant_that_exists_is_refused(host: Host) -> None:
    tenant = await tenant_with_items(host)
    mark = (await call(tenant, "INSERT INTO items(value) VALUES ('a')")).bookmark
    await host.tenants.create("other")
    with pytest.raises(ConflictError) as caught:
        await host.past.restores.restore("acme", str(mark), "other")
    assert caught.value.code == "tenant_exists"
    with pytest.raises(InvalidRequestError):
        await host.past.restores.restore("acme", str(mark), "Not a name")
    with pytest.raises(NotFoundError):
        await host.past.restores.restore("nobody", str(mark), "copy")


async def test_progress_is_told_file_by_file_and_ends_at_what_was_read(host: Host) -> None:
    tenant = await tenant_with_items(host)
    marks = [
        (await call(tenant, "INSERT INTO items(value) VALUES (?)", str(number))).bookmark
        for number in range(30)
    ]
    steps: list[tuple[int, int]] = []
    for to in (None, "copy"):
        steps.clear()
        reply = await host.past.restores.restore(
            "acme", str(marks[-1]), to, on_progress=lambda *step: steps.append(step)
        )
        total = reply.bytes_read
        assert (steps[0], steps[-1]) == ((0, total), (total, total))
        assert len(steps) > 2, "the newest state is in several files"
        assert steps == sorted(set(steps))


async def test_progress_never_goes_back_however_often_files_are_read(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second attempt reads other files, twice as many bytes."""
    steps: list[tuple[int, int]] = []
    tenant = await tenant_with_items(host)
    mark = (await call(tenant, "INSERT INTO items(value) VALUES ('a')")).bookmark
    write_image = Replica.write_image

    def twice(
        self: Replica, out: BinaryIO, txid: int | None = None, *, on_progress: OnProgress
    ) -> Image:
        def again(done: int, total: int) -> None:
            on_progress(2 * done, 2 * total)

        write_image(self, out, txid, on_progress=on_progress)
        out.seek(0)
        out.truncate()
        return write_image(self, out, txid, on_progress=again)

    monkeypatch.setattr(Replica, "write_image", twice)
    reply = await host.past.restores.restore(
        "acme", str(mark), dry_run=True, on_progress=lambda *step: steps.append(step)
    )
    assert steps == sorted(set(steps))
    assert (steps[0][0], steps[-1]) == (0, (reply.bytes_read, reply.bytes_read))


async def test_the_empty_database_has_progress_too(host: Host) -> None:
    tenant = await tenant_with_items(host)
    empty = Bookmark(0, tenant.key.incarnation)
    steps: list[tuple[int, int]] = []
    await host.past.restores.restore(
        "acme", str(empty), dry_run=True, on_progress=lambda *step: steps.append(step)
    )
    assert steps == [(0, 0)]


async def test_nothing_is_told_of_a_restore_that_is_refused(host: Host) -> None:
    await tenant_with_items(host)
    steps: list[tuple[int, int]] = []
    for name, at, to in (
        ("acme", "yesterday", None),
        ("acme", "1999-01-01T00:00:00Z", None),
        ("acme", "2999-01-01T00:00:00Z", "acme"),
        ("nobody", "2999-01-01T00:00:00Z", None),
    ):
        with pytest.raises(RequestError):
            await host.past.restores.restore(
                name, at, to, on_progress=lambda *step: steps.append(step)
            )
    assert steps == []


async def test_a_damaged_file_is_never_restored(host: Host, tmp_path: Path) -> None:
    tenant = await tenant_with_items(host)
    mark = (await call(tenant, "INSERT INTO items(value) VALUES ('a')")).bookmark
    assert host.cold is not None
    await host.cold.drain()
    (path,) = [
        each
        for each in (tmp_path / "bucket").rglob(f"{mark.txid:016x}-{mark.txid:016x}.ltx")
        if tenant.key.id.hex() in str(each)
    ]
    data = bytearray(path.read_bytes())
    data[130] ^= 1
    path.write_bytes(data)
    before = await dumped(tenant)
    for to in (None, "copy"):
        with pytest.raises(CorruptError):
            await host.past.restores.restore("acme", str(mark), to)
    assert await dumped(tenant) == before


async def test_open_transactions_are_rolled_back_by_a_restore_in_place(host: Host) -> None:
    tenant = await tenant_with_items(host)
    mark = (await call(tenant, "INSERT INTO items(value) VALUES ('a')")).bookmark
    transaction = await tenant.begin()
    await transaction.call(work("INSERT INTO items(value) VALUES ('b')"))
    await host.past.restores.restore("acme", str(mark))
    assert transaction.closed
    assert await execute(tenant, "SELECT value FROM items") == [["a"]]


async def test_calls_during_a_restore_see_the_state_before_or_after_it(host: Host) -> None:
    tenant = await tenant_with_items(host)
    mark = (await call(tenant, "INSERT INTO items(value) VALUES ('a')")).bookmark
    await call(tenant, "DROP TABLE items")
    await call(tenant, "CREATE TABLE items(id INTEGER PRIMARY KEY, other TEXT)")
    seen: set[str] = set()
    restoring = asyncio.ensure_future(host.past.restores.restore("acme", str(mark)))
    while not restoring.done():
        columns = await execute(tenant, "SELECT name FROM pragma_table_info('items')")
        seen.add(json.dumps(columns))
        await asyncio.sleep(0)  # a read that waits for nothing lets nobody else go on
    await restoring
    assert seen <= {'[["id"], ["other"]]', '[["id"], ["value"]]'}
    assert await execute(tenant, "SELECT value FROM items") == [["a"]]


@pytest.mark.parametrize("lose_data", [False, True])
async def test_a_restore_in_place_outlives_a_crash(tmp_path: Path, lose_data: bool) -> None:
    """From the commit log, and from the bucket."""
    host = await Host.start(settings(tmp_path / "data", cold=cold(tmp_path)))
    tenant = await tenant_with_items(host)
    marks = []
    for number in range(30):
        sql = "INSERT INTO items(value) VALUES (?)"
        marks.append((await call(tenant, sql, f"{number}" * 300)).bookmark)
    reply = await host.past.restores.restore("acme", str(marks[9]))
    await call(tenant, "INSERT INTO items(value) VALUES ('after')")
    before = (await dumped(tenant))[0]
    if lose_data:
        assert host.cold is not None
        await host.cold.drain()
    await crashed(host)
    if lose_data:
        shutil.rmtree(tmp_path / "data")
    async with running_host(tmp_path / "data", cold=cold(tmp_path)) as again:
        tenant = again.tenants.get("acme")
        assert (await dumped(tenant))[0] == before
        assert await execute(tenant, "SELECT count(*) FROM items") == [[11]]
        assert await execute(tenant, "PRAGMA integrity_check") == [["ok"]]
        await again.past.restores.restore("acme", str(reply.undo_bookmark))
        assert await execute(tenant, "SELECT count(*) FROM items") == [[30]]


async def test_the_empty_beginning_can_be_restored(host: Host) -> None:
    tenant = await tenant_with_items(host)
    start = str(Bookmark(0, tenant.key.incarnation))
    reply = await host.past.restores.restore("acme", start)
    assert await execute(tenant, "SELECT count(*) FROM sqlite_schema") == [[0]]
    await host.past.restores.restore("acme", start, "copy")
    copy = host.tenants.get("copy")
    assert await execute(copy, "SELECT count(*) FROM sqlite_schema") == [[0]]
    await host.past.restores.restore("acme", str(reply.undo_bookmark))
    assert await execute(tenant, "SELECT count(*) FROM items") == [[0]]


async def test_a_state_from_before_a_migration_is_brought_up_to_date(tmp_path: Path) -> None:
    first = migration(1, "CREATE TABLE items(id INTEGER PRIMARY KEY, value TEXT)")
    second = migration(2, "ALTER TABLE items ADD COLUMN more TEXT")
    async with running_host(tmp_path / "data", cold=cold(tmp_path), migrations=(first,)) as host:
        tenant = await host.tenants.ensure("acme")
        mark = str((await call(tenant, "INSERT INTO items(value) VALUES ('a')")).bookmark)
    async with running_host(
        tmp_path / "data", cold=cold(tmp_path), migrations=(first, second)
    ) as host:
        tenant = host.tenants.get("acme")
        await call(tenant, "UPDATE items SET more = 'b'")
        await host.past.restores.restore("acme", mark)
        assert await execute(tenant, "SELECT value, more FROM items") == [["a", None]]


async def test_whoever_follows_the_changes_must_begin_anew(tmp_path: Path) -> None:
    """The numbers of changes are never given twice."""
    async with running_host(
        tmp_path / "data", cold=cold(tmp_path), changes=ChangeSettings(always=True)
    ) as host:
        tenant = await tenant_with_items(host)
        mark = (await call(tenant, "INSERT INTO items(value) VALUES ('a')")).bookmark
        await call(tenant, "INSERT INTO items(value) VALUES ('b')")

        def numbers(db: Database) -> bytes:
            assert db.capture is not None
            return json.dumps([db.capture.log.floor, db.capture.log.last]).encode()

        _, last = json.loads((await tenant.call(numbers)).body)
        await host.past.restores.restore("acme", str(mark))
        floor, _ = json.loads((await tenant.call(numbers)).body)
        assert floor > last
        await call(tenant, "INSERT INTO items(value) VALUES ('c')")
        after, newest = json.loads((await tenant.call(numbers)).body)
        assert (after, newest) == (floor, floor + 1)


async def test_what_came_between_is_still_there_after_a_restore_in_place(host: Host) -> None:
    """History is linear: going back is a step forward."""
    tenant = await tenant_with_items(host)
    first = (await call(tenant, "INSERT INTO items(value) VALUES ('a')")).bookmark
    second = (await call(tenant, "INSERT INTO items(value) VALUES ('b')")).bookmark
    reply = await host.past.restores.restore("acme", str(first))
    assert reply.undo_bookmark == str(second)
    third = (await call(tenant, "INSERT INTO items(value) VALUES ('c')")).bookmark
    assert third > second
    done = await tenant.call_at(str(second), work("SELECT value FROM items"))
    assert json.loads(done.body) == [["a"], ["b"]]
    assert await execute(tenant, "SELECT value FROM items") == [["a"], ["c"]]


async def test_a_restored_file_is_a_sound_database(host: Host, tmp_path: Path) -> None:
    tenant = await host.tenants.ensure("acme")
    history = await random_history(tenant, random.Random(3), 10)
    await host.past.restores.restore("acme", str(history[4][0]))
    async with host.tenants.export("acme") as path:
        shutil.copyfile(path, tmp_path / "copy.db")
    connection = apsw.Connection(str(tmp_path / "copy.db"))
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
