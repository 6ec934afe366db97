"""Calls with an idempotency key: what has an effect has it once; what only reads leaves nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from dosql import App, DurableObject
from dosql.client import AsyncClient
from dosql.host.host import Host
from dosql.ids import IdFactory
from dosql.objects.idempotency import Idempotency
from tests.support.hosts import running_host
from tests.support.server import ServerProcess

app = App()
calls: list[str] = []
"""Which methods ran, and how often."""


@app.durable_object
class Shelf(DurableObject):
    """Its methods differ in what they do beyond returning a number."""

    def look(self) -> int:
        calls.append("look")
        return int(self.ctx.storage.kv.get("books", 0))

    async def look_with_await(self) -> int:
        calls.append("look_with_await")
        books = await self.ctx.storage.get("books", 0)
        return int(books) + len(self.ctx.storage.sql.exec("SELECT 1 WHERE 0").to_list())

    def put(self) -> int:
        calls.append("put")
        books = self.look() + 1
        self.ctx.storage.kv.put("books", books)
        return books

    async def tell_another(self) -> int:
        calls.append("tell_another")
        return int(await self.env.SHELF.get_by_name("another").put())

    async def wait(self) -> int:
        calls.append("wait")
        await asyncio.sleep(0)
        return 0

    def leave_for_later(self) -> int:
        calls.append("leave_for_later")
        self.ctx.wait_until(asyncio.sleep(0))
        return 0


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    calls.clear()
    async with running_host(tmp_path, app=app) as host:
        yield host


async def called(host: Host, name: str, method: str, key: str) -> tuple[Any, bool]:
    """The result, and whether it is a replay."""
    stub = host.objects.namespace("shelf").get_by_name(name)
    done = await stub.invoke(method, b"", idempotency=Idempotency(key, method.encode()))
    return json.loads(done.body)["result"], done.replayed


def files_of(host: Host) -> set[Path]:
    objects = host.node.directory.objects
    return {path.relative_to(objects) for path in objects.rglob("*") if path.is_file()}


@pytest.mark.parametrize("method", ["look", "look_with_await"])
async def test_a_call_that_only_reads_makes_no_object(host: Host, method: str) -> None:
    before = files_of(host)
    assert await called(host, "bare", method, "k1") == (0, False)
    assert await called(host, "bare", method, "k1") == (0, False)
    assert calls == [method, method]
    namespace = host.objects.namespace("shelf")
    assert (await namespace.list()).objects == []
    await host.objects.hibernate(namespace.id_from_name("bare"))
    assert files_of(host) == before


@pytest.mark.parametrize("method", ["put", "tell_another", "wait", "leave_for_later"])
async def test_a_call_that_may_have_had_an_effect_is_not_made_again(
    host: Host, method: str
) -> None:
    first = await called(host, "shelf", method, "k1")
    assert await called(host, "shelf", method, "k1") == (first[0], True)
    assert calls.count(method) == 1


async def test_a_read_between_two_sends_of_a_write_does_not_change_the_first_outcome(
    host: Host,
) -> None:
    assert await called(host, "shelf", "put", "k1") == (1, False)
    assert await called(host, "shelf", "put", "k2") == (2, False)
    assert await called(host, "shelf", "look", "k3") == (2, False)
    await host.objects.hibernate()
    assert await called(host, "shelf", "put", "k1") == (1, True)


# --- over HTTP, through the client, which sends a key with every call ------------------------


@pytest.fixture
def sample_server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path / "data", app="tests.support.sample_app:app")
    yield server
    server.kill()


async def test_a_read_through_the_client_makes_no_object_and_a_write_does(
    sample_server: ServerProcess,
) -> None:
    def names() -> list[str]:
        page = sample_server.request("GET", "/admin/objects/sample").json()
        return [each["name"] for each in page["objects"]]

    async with aclosing(AsyncClient(sample_server.url, token=sample_server.admin_token)) as client:
        samples: Any = client.namespace("sample")
        assert await samples.get_by_name("only-read").value() == 0
        assert names() == []
        assert await samples.get_by_name("written").increment() == 1
        assert names() == ["written"]
    sample_server.stop()
    found = {path.name[:64] for path in (sample_server.data_dir / "objects").rglob("*.sqlite")}
    ids = {name: str(IdFactory("sample").from_name(name)) for name in ("only-read", "written")}
    assert ids["written"] in found
    assert ids["only-read"] not in found
