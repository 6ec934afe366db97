"""The client's iterator of changes, against a real server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dosql.client import (
    AsyncClient,
    AsyncTenant,
    Change,
    Client,
    Reconnect,
    Reset,
    SchemaChange,
    Tenant,
)
from dosql.errors import ConflictError, DosqlError, InvalidRequestError, NotFoundError
from tests.support.server import ServerProcess


async def test_changes_arrive_as_they_become_durable(acme: AsyncTenant) -> None:
    assert [each async for each in acme.changes(after=0, follow=False)] == []
    await acme.run("INSERT INTO people (name, photo) VALUES ('ada', ?)", [b"\0\xff"])
    events = acme.changes(after=0)
    change = await anext(events)
    assert isinstance(change, Change)
    assert (change.seq, change.type, change.table, change.pk) == (1, "insert", "people", {"id": 1})
    assert change.new == {"id": 1, "name": "ada", "adult": None, "photo": b"\0\xff"}
    await acme.run("CREATE TABLE more (a)")
    schema = await anext(events)
    assert isinstance(schema, SchemaChange)
    assert (schema.table, schema.sql) == ("more", "CREATE TABLE more (a)")
    await events.aclose()  # type: ignore[attr-defined]


def test_the_synchronous_twin(shop: Tenant) -> None:
    list(shop.changes(follow=False))
    shop.run("INSERT INTO items (name) VALUES ('apple')")
    shop.run("DELETE FROM items")
    told = list(shop.changes(after=0, tables=["items"], operations=["delete"], follow=False))
    assert [each.seq for each in told] == [2]


def test_rows_from_before_are_a_reset(shop: Tenant) -> None:
    shop.run("INSERT INTO items (name) VALUES ('apple')")
    (told,) = shop.changes(after=0, follow=False)
    assert isinstance(told, Reset)
    assert told.seq == 1
    assert told.bookmark is not None


def test_slots(shop: Tenant) -> None:
    slot = shop.change_slots.create("copy")
    assert (slot.name, slot.acked) == ("copy", 0)
    with pytest.raises(ConflictError):
        shop.change_slots.create("copy")
    shop.run("INSERT INTO items (name) VALUES ('apple'), ('pear')")
    assert [each.seq for each in shop.changes(slot="copy", follow=False)] == [1, 2]
    assert shop.change_slots.ack("copy", 1).behind == 1
    assert [each.seq for each in shop.changes(slot="copy", follow=False)] == [2]
    with pytest.raises(InvalidRequestError):
        shop.change_slots.ack("copy", 99)
    assert [each.name for each in shop.change_slots.list()] == ["copy"]
    shop.change_slots.delete("copy")
    with pytest.raises(NotFoundError):
        shop.change_slots.delete("copy")


async def test_a_restart_of_the_server_loses_nothing(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server()
    port = server.url.rpartition(":")[2]
    server._settings["listen"] = f"127.0.0.1:{port}"
    with Client(server.url, token=server.admin_token) as client:
        tenant = client.tenant("acme")
        tenant.run("CREATE TABLE items (id INTEGER PRIMARY KEY)")
        list(tenant.changes(follow=False))
        events = tenant.changes(after=0, reconnect=Reconnect(0.01, 0.05))
        for number in range(1, 4):
            tenant.run("INSERT INTO items DEFAULT VALUES")
            assert next(events).seq == number
            server.kill() if number == 2 else server.stop()
            server.restart()


async def test_without_reconnect_the_loss_is_raised(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server()
    async with AsyncClient(server.url, token=server.admin_token) as client:
        tenant = client.tenant("acme")
        await tenant.run("CREATE TABLE items (id INTEGER PRIMARY KEY)")
        events = tenant.changes(after=0, reconnect=None)
        await tenant.run("INSERT INTO items DEFAULT VALUES")
        await anext(events)
        server.kill()
        with pytest.raises(DosqlError) as lost:
            await anext(events)
        assert lost.value.code == "connection_lost"


async def test_an_answer_is_final(async_client: AsyncClient, name: str) -> None:
    tenant = async_client.tenant(name)
    with pytest.raises(NotFoundError) as refused:
        await anext(tenant.changes(slot="nothing"))
    assert refused.value.code == "slot_not_found"
