"""Interactive transactions: they read what is there, and end in exactly one way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from dosql.client import AsyncClient, AsyncTenant, Tenant
from dosql.errors import ConflictError, ConstraintError, NotFoundError
from tests.support.server import ServerProcess


@dataclass
class Person:
    id: int
    name: str


async def names(tenant: AsyncTenant) -> list[str]:
    return [row["name"] for row in await tenant.query("SELECT name FROM people ORDER BY id")]


async def test_statements_inside_really_read(acme: AsyncTenant) -> None:
    """What to do next may depend on what was read: the point of the whole thing."""
    await acme.run("INSERT INTO people (name) VALUES ('Ada')")
    async with acme.transaction() as tx:
        row = await tx.query_one("SELECT id, name FROM people", into=Person)
        assert row is not None
        await tx.run("INSERT INTO people (name) VALUES (?)", [row.name + " II"])
        assert len(await tx.query("SELECT 1 FROM people")) == 2
        assert (await tx.query_rows("SELECT count(*) FROM people")).rows == [(2,)]
    assert await names(acme) == ["Ada", "Ada II"]


async def test_an_exception_rolls_back(acme: AsyncTenant) -> None:
    async def fail() -> None:
        async with acme.transaction() as tx:
            await tx.run("INSERT INTO people (name) VALUES ('Ada')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await names(acme) == []


async def test_cancellation_rolls_back(acme: AsyncTenant) -> None:
    inside = asyncio.Event()

    async def wait_for_ever() -> None:
        async with acme.transaction() as tx:
            await tx.run("INSERT INTO people (name) VALUES ('Ada')")
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait_for_ever())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await names(acme) == []


async def test_a_refused_statement_leaves_the_transaction_open(acme: AsyncTenant) -> None:
    async with acme.transaction() as tx:
        await tx.run("INSERT INTO people (name) VALUES ('Ada')")
        with pytest.raises(ConstraintError):
            await tx.run("INSERT INTO people (name) VALUES ('Ada')")
        await tx.run("INSERT INTO people (name) VALUES ('Grace')")
    assert await names(acme) == ["Ada", "Grace"]


async def test_nobody_else_runs_meanwhile(acme: AsyncTenant) -> None:
    """Ten tasks count up with a read and a write each; no count is lost."""
    await acme.run("CREATE TABLE counter AS SELECT 0 AS value")

    async def increment() -> None:
        async with acme.transaction() as tx:
            row = await tx.query_one("SELECT value FROM counter")
            assert row is not None
            await tx.run("UPDATE counter SET value = ?", [row["value"] + 1])

    await asyncio.gather(*(increment() for _ in range(10)))
    assert await acme.query_one("SELECT value FROM counter") == {"value": 10}


async def test_a_client_that_goes_away_keeps_nobody_waiting(
    shared_server: ServerProcess, async_client: AsyncClient, acme: AsyncTenant
) -> None:
    """Its connections close, and the next statement runs, long before the idle deadline."""
    async with AsyncClient(async_client.url, token=shared_server.admin_token) as other:
        tx = other.tenant(acme.name).transaction()
        await tx.open()
        await tx.run("INSERT INTO people (name) VALUES ('Ada')")
        idle_seconds = tx.idle_seconds
    async with asyncio.timeout(idle_seconds / 2):
        assert await names(acme) == []


async def test_commit_and_rollback_by_hand_end_it(acme: AsyncTenant) -> None:
    async with acme.transaction() as tx:
        await tx.run("INSERT INTO people (name) VALUES ('Ada')")
        await tx.commit()
        assert not tx.is_open
    async with acme.transaction() as tx:
        await tx.run("DELETE FROM people")
        await tx.rollback()
        await tx.rollback()
        with pytest.raises(ConflictError, match="not open"):
            await tx.query("SELECT 1")
    assert await names(acme) == ["Ada"]


async def test_commit_moves_the_bookmark(acme: AsyncTenant) -> None:
    before = acme.last_bookmark
    async with acme.transaction() as tx:
        await tx.run("INSERT INTO people (name) VALUES ('Ada')")
    assert before is not None
    assert acme.last_bookmark is not None
    assert acme.last_bookmark > before


async def test_many_transactions_of_many_tenants_at_once(async_client: AsyncClient) -> None:
    """More than the pool of one client has connections: each still finds one for statements."""

    async def one(number: int) -> int:
        async with async_client.tenant(f"crowd-{number % 8}").transaction() as tx:
            row = await tx.query_one("SELECT ? AS n", [number])
            assert row is not None
            return int(row["n"])

    assert await asyncio.gather(*(one(n) for n in range(120))) == list(range(120))


async def test_a_client_that_thinks_too_long_is_told_so(
    start_server: Callable[..., ServerProcess],
) -> None:
    """The transaction is gone when somebody else's write has run; its commit fails too."""
    server = start_server(transaction_idle_seconds=0.2)
    async with AsyncClient(server.url, token=server.admin_token) as client:
        acme = client.tenant("acme")
        for statement in ("query", "commit"):
            tx = acme.transaction()
            await tx.open()
            await acme.run(f"CREATE TABLE after_{statement} (a)")  # waits for the transaction
            with pytest.raises(NotFoundError) as caught:
                await (tx.query("SELECT 1") if statement == "query" else tx.commit())
            assert caught.value.code == "transaction_not_found"
            assert not tx.is_open


def test_the_synchronous_client_does_the_same(shop: Tenant) -> None:
    with shop.transaction() as tx:
        tx.run("INSERT INTO items (name) VALUES ('tea')")
        assert tx.query("SELECT name FROM items") == [{"name": "tea"}]

    def fail() -> None:
        with shop.transaction() as tx:
            tx.run("DELETE FROM items")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert shop.query("SELECT name FROM items") == [{"name": "tea"}]
