"""A small life of a host in which everything happens that moves data on its disk."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dosql.errors import NotFoundError
from dosql.host.host import Host, HostSettings
from dosql.host.tenant import Tenant
from dosql.objects.idempotency import Idempotency
from dosql.sqlite.database import Database
from tests.support.histories import CREATE, Histories, History, State, row

INSERT = "INSERT INTO items(id, value, data) VALUES (?, ?, ?)"
DELETE = "DELETE FROM items WHERE id = ?"
SELECT = "SELECT id, value, data FROM items ORDER BY id"
_CREATE_IF_MISSING = CREATE.replace("TABLE", "TABLE IF NOT EXISTS")
Rows = dict[int, tuple[str, bytes]]


def small_settings(root: Path) -> HostSettings:
    """So small that objects are evicted and the log is cut all the time."""
    return HostSettings(
        root, open_objects_max=2, log_bytes_max=160 * 1024, log_segment_bytes=32 * 1024
    )


class Client:
    """The only caller of one tenant; it notes what the tenant must hold."""

    def __init__(self, host: Host, histories: Histories, name: str, seed: int) -> None:
        self.host = host
        self.name = name
        self.history: History = histories.of(name)
        self.randomness = random.Random(f"{name}-{seed}")
        self.rows: Rows = {}
        self._number = seed * 1_000

    @property
    def tenant(self) -> Tenant:
        return self.host.tenants.get(self.name)

    # --- whole tenants ------------------------------------------------------------------------

    async def create(self) -> None:
        """Make the tenant and its table."""
        self.history.attempt(())
        await self.host.tenants.create(self.name)
        self.history.acknowledge()
        await self.create_table()

    async def create_table(self) -> None:
        """Make the table, if it is not there."""
        await self._change(self.rows, lambda db: db.run(_CREATE_IF_MISSING))

    async def drop(self) -> None:
        """Delete the tenant."""
        self.history.attempt(None)
        await self.host.tenants.delete(self.name)
        self.history.acknowledge()
        self.rows = {}

    async def replace(self) -> None:
        """Import a file in the tenant's place."""
        rows = self._new_rows(5, 900)
        source = self.host.scratch_dir / f"import-{self.name}.sqlite"
        connection = sqlite3.connect(source)
        connection.execute(CREATE)
        connection.executemany(INSERT, [(id, *rest) for id, rest in rows.items()])
        connection.commit()
        connection.close()
        self.history.attempt(state_of(rows))
        await self.host.tenants.import_file(self.name, source)
        self.history.acknowledge()
        self.rows = rows

    async def export(self) -> None:
        """Write a copy, which checkpoints the object; what it holds is checked."""
        async with self.host.tenants.export(self.name) as path:
            connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
            found = tuple(row(*each) for each in connection.execute(SELECT))
            connection.close()
        assert found == self.history.state

    async def hibernate(self) -> None:
        """Put the object to sleep."""
        instance = self.host.node.awake.peek(self.tenant.key)
        if instance is not None:
            await self.host.node.awake.sleep(instance)

    async def observe(self) -> None:
        """Read everything: from now on this is what there is."""
        try:
            self.history.observe(await self.read())
        except NotFoundError:
            self.history.observe(None)

    async def read(self) -> State:
        """What the tenant holds now; its rows are the base of later changes.

        Raises NotFoundError if there is no such tenant.
        """
        found: Rows = {}

        def work(db: Database) -> bytes:
            found.clear()
            if db.query("SELECT name FROM sqlite_schema WHERE name = 'items'").rows:
                for id, value, data in db.query(SELECT).rows:
                    assert isinstance(id, int)
                    assert isinstance(value, str)
                    assert isinstance(data, bytes)
                    found[id] = (value, data)
            return b""

        await self.tenant.call(work)
        self.rows = found
        return state_of(found)

    # --- rows ---------------------------------------------------------------------------------

    async def insert(self, size: int = 200, *, key: str | None = None) -> None:
        """One row, with ``size`` bytes of data."""
        rows = self._new_rows(1, size)
        idempotency = None if key is None else Idempotency(key, key.encode())
        await self._change(self.rows | rows, _inserts(rows), idempotency)

    async def insert_many(self, count: int, size: int = 200) -> None:
        """Several rows in one event: all or none."""
        rows = self._new_rows(count, size)
        await self._change(self.rows | rows, _inserts(rows))

    async def delete_half(self) -> None:
        """Remove every other row and add one, in one event."""
        gone = list(self.rows)[::2]
        fresh = self._new_rows(1, 100)

        def work(db: Database) -> None:
            for id in gone:
                db.run(DELETE, [id])
            _inserts(fresh)(db)

        await self._change({k: v for k, v in self.rows.items() if k not in gone} | fresh, work)

    async def interactive(self) -> None:
        """Three rows in a transaction over several calls."""
        rows = self._new_rows(3, 300)
        after = self.rows | rows
        self.history.attempt(state_of(after))
        transaction = await self.tenant.begin()
        try:
            for id, rest in rows.items():
                await transaction.call(_encoded(_inserts({id: rest})))
            await transaction.commit(b"{}", Idempotency(f"i{self._number}", b"x"))
        finally:
            await transaction.rollback()
        self.history.acknowledge()
        self.rows = after

    def _new_rows(self, count: int, size: int) -> Rows:
        rows: Rows = {}
        for _ in range(count):
            self._number += 1
            value = f"{self.name} {self._number}"
            rows[self._number] = (value, self.randomness.randbytes(size))
        return rows

    async def _change(
        self, after: Rows, work: Callable[[Database], Any], key: Idempotency | None = None
    ) -> None:
        def one(db: Database) -> None:
            with db.transaction():
                work(db)

        self.history.attempt(state_of(after))
        await self.tenant.call(_encoded(work if key else one), idempotency=key)
        self.history.acknowledge()
        self.rows = after


def state_of(rows: Rows) -> State:
    """The rows as a state."""
    return tuple(row(id, *rest) for id, rest in sorted(rows.items()))


def _insert(db: Database, id: int, rest: tuple[str, bytes]) -> None:
    db.run(INSERT, [id, *rest])


def _inserts(rows: Rows) -> Callable[[Database], None]:
    def work(db: Database) -> None:
        for id, rest in rows.items():
            _insert(db, id, rest)

    return work


def _encoded(work: Callable[[Database], Any]) -> Callable[[Database], bytes]:
    def run(db: Database) -> bytes:
        work(db)
        return b"{}"

    return run


async def first_life(host: Host, histories: Histories) -> None:
    """Everything: creations, rows, blobs, batches, checkpoints, cuts, evictions, deletions."""
    a, b, c, d = (Client(host, histories, name, 1) for name in ("aa", "bb", "cc", "dd"))
    await a.create()
    await asyncio.gather(b.create(), c.create())
    await a.insert()
    await a.insert(key="once")
    await asyncio.gather(*(_some_rows(each) for each in (a, b, c)))
    await b.insert(20_000)
    await a.insert_many(6)
    await a.export()
    await a.hibernate()
    await a.insert()
    await c.interactive()
    await b.delete_half()
    await c.drop()
    await d.replace()
    await asyncio.gather(c.create(), d.insert(), b.delete_half())
    await asyncio.gather(*(_some_rows(each) for each in (b, c, d)))
    await d.replace()
    await d.insert_many(4, 6_000)
    await a.insert()


async def second_life(host: Host, histories: Histories) -> None:
    """After a restart: what is there is what counts, and work goes on."""
    clients = [Client(host, histories, name, 2) for name in ("aa", "bb", "cc", "dd")]
    for each in clients:
        await each.observe()
        if each.history.state is None:
            await each.create()
        elif not each.history.state:
            await each.create_table()
        await each.insert(1_000)
    await asyncio.gather(*(_some_rows(each) for each in clients[:2]))


async def _some_rows(client: Client) -> None:
    for _ in range(4):
        await client.insert()
    await client.insert_many(3, 1_500)
