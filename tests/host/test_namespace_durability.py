"""Namespaces of the modes ``local`` and ``bucket`` side by side in one host."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dosql import App, DurableObject, Response, WebSocketPair
from dosql.clock import SystemClock
from dosql.durability import Durability
from dosql.errors import DosqlError, InvalidRequestError, OutcomeUnknownError, UnavailableError
from dosql.fetch import Request
from dosql.headers import Headers
from dosql.host.alarm_index import AlarmIndex
from dosql.host.catalog import CATALOG_KEY
from dosql.host.host import Host
from dosql.host.namespace_durability import NamespaceDurability
from dosql.log.records import ObjectKey
from dosql.replica.memory_bucket import MemoryBucket
from dosql.replica.plan import RAW_LEVEL
from dosql.testing import harness
from dosql.testing.sockets import MemorySocket
from tests.support.cold import (
    CATALOG_PREFIX,
    SwitchedBucket,
    add,
    drained,
    killed,
    lose_patience,
    replica_of,
    replicated_host,
    start_host,
    values,
)
from tests.support.hosts import running_host, tenant_with_items, until


class Jar(DurableObject):
    """Counts, rings, and speaks."""

    rung: ClassVar[list[str]] = []

    def add(self) -> int:
        count = self.count() + 1
        self.ctx.storage.kv.put("count", count)
        return count

    def count(self) -> int:
        return int(self.ctx.storage.kv.get("count", 0))

    async def mark(self) -> str:
        """The state as it is."""
        return str(await self.ctx.storage.get_current_bookmark())

    async def go_back(self, mark: str) -> str:
        """At the next wake; what takes that back."""
        return str(await self.ctx.storage.on_next_session_restore_bookmark(mark))

    async def ring(self, at_ms: int = 1) -> None:
        """Set an alarm; it is due unless ``at_ms`` is to come."""
        await self.ctx.storage.set_alarm(at_ms)

    async def alarm(self, info: Any) -> None:
        Jar.rung.append(str(self.ctx.id.name))
        self.add()

    async def fetch(self, request: Request) -> Response:
        client, server = WebSocketPair()
        self.ctx.accept_websocket(server)
        return Response(status=101, web_socket=client)

    async def websocket_message(self, ws: Any, message: str | bytes) -> None:
        ws.send(str(self.add()))


class Ledger(Jar):
    """Of the mode ``bucket``, whatever the server's is."""


class Scratch(Jar):
    """Of the mode ``local``, whatever the server's is."""


class Plain(Jar):
    """Of the server's mode."""


def modes() -> App:
    app = App()
    app.durable_object(Ledger, durability="bucket")
    app.durable_object(durability="local")(Scratch)
    app.durable_object(Plain)
    return app


def jar(host: Host, namespace: str, name: str = "one") -> Any:
    return host.objects.namespace(namespace).get_by_name(name)


def key_of(host: Host, namespace: str, name: str = "one") -> ObjectKey:
    """Of an object in memory."""
    resident = host.objects.resident(jar(host, namespace, name).id)
    assert resident is not None
    return resident.key


async def waits(write: asyncio.Task[Any], bucket: SwitchedBucket, key: ObjectKey) -> None:
    """Assert that the write is not answered while its file is held on the way to the bucket."""
    await until(lambda: any(key.id.hex() in each for each in bucket.held))
    await asyncio.wait([write], timeout=0.05)
    assert not write.done()


@pytest.fixture
def bucket() -> SwitchedBucket:
    return SwitchedBucket(MemoryBucket())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def nothing_rung(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Jar, "rung", [])


# --- choosing -------------------------------------------------------------------------------------


def test_a_class_without_a_mode_of_its_own_has_the_server_s() -> None:
    for default in ("local", "bucket"):
        durability = NamespaceDurability(default)
        durability.use(modes())
        found = [durability.of(name) for name in ("ledger", "scratch", "plain", "tenant-database")]
        assert found == ["bucket", "local", default, default]
        assert durability.strictest == "bucket"


def test_a_mode_that_there_is_none_of_is_refused_where_it_is_written() -> None:
    with pytest.raises(InvalidRequestError, match="'local' or 'bucket', not 'cloud'") as raised:
        App().durable_object(durability="cloud")(Ledger)  # type: ignore[call-overload]
    assert raised.value.code == "app_invalid"


async def test_a_class_that_needs_a_bucket_is_refused_at_the_start_of_a_host_without_one(
    data: Path,
) -> None:
    with pytest.raises(InvalidRequestError, match=r"Ledger .*start it with --bucket") as raised:
        async with running_host(data, app=modes()):
            pass
    assert raised.value.code == "app_invalid"
    assert not data.exists()
    without = App()
    without.durable_object(Scratch, durability="local")
    async with running_host(data, app=without) as host:
        assert await jar(host, "scratch").add() == 1


async def test_the_testing_kit_needs_no_bucket() -> None:
    async with harness(modes()) as kit:
        assert await kit.env.LEDGER.get_by_name("one").add() == 1


async def test_what_is_told_of_objects_and_tenants_says_their_mode(
    data: Path, bucket: SwitchedBucket
) -> None:
    async with replicated_host(data, bucket, "local", app=modes()) as host:
        await tenant_with_items(host)
        assert host.tenants.info("acme").durability == "local"
        for namespace, mode in (("ledger", "bucket"), ("scratch", "local"), ("plain", "local")):
            await jar(host, namespace).add()
            [info] = host.objects.list(namespace, "", 10, None).objects
            assert info.durability == mode


# --- the gate -------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["local", "bucket"])
async def test_only_the_replies_of_namespaces_of_the_mode_bucket_wait_for_it(
    server: Durability, data: Path, bucket: SwitchedBucket
) -> None:
    async with replicated_host(data, bucket, server, app=modes()) as host:
        for namespace in ("ledger", "scratch", "plain"):
            await jar(host, namespace).add()
        tenant = await tenant_with_items(host)
        await drained(host)
        bucket.hold()
        ledger = asyncio.create_task(jar(host, "ledger").add())
        await waits(ledger, bucket, key_of(host, "ledger"))
        read = asyncio.create_task(jar(host, "ledger").count())
        for number in range(2, 5):
            assert await jar(host, "scratch").add() == number
        plain = asyncio.create_task(jar(host, "plain").add())
        row = asyncio.create_task(add(tenant, "row"))
        if server == "local":
            await asyncio.gather(plain, row)
        else:
            await waits(plain, bucket, key_of(host, "plain"))
            await waits(row, bucket, tenant.key)
        assert await jar(host, "scratch", "new").add() == 1
        assert not ledger.done()
        assert not read.done()
        bucket.let_go()
        assert await asyncio.gather(ledger, read, plain) == [2, 2, 2]
        await row


async def test_commits_that_come_while_a_file_is_on_its_way_share_the_next(
    data: Path, bucket: SwitchedBucket
) -> None:
    async with replicated_host(data, bucket, "local", app=modes()) as host:
        await jar(host, "ledger").add()
        key = key_of(host, "ledger")
        await drained(host)
        bucket.hold()
        first = asyncio.create_task(jar(host, "ledger").add())
        await waits(first, bucket, key)
        others = [asyncio.create_task(jar(host, "ledger").add()) for _ in range(20)]
        await asyncio.wait(others, timeout=0.05)
        bucket.let_go()
        assert sorted(await asyncio.gather(first, *others)) == list(range(2, 23))
        files = replica_of(host, key).listing(RAW_LEVEL)
        assert [(each.min_txid, each.max_txid) for each in files] == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("server", ["local", "bucket"])
async def test_files_are_put_off_and_joined_only_where_no_reply_waits(
    server: Durability, data: Path, bucket: SwitchedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dosql.replica.pace.REPLICA_FILES_BURST", 2)
    async with replicated_host(data, bucket, server, app=modes()) as host:
        for _ in range(20):
            await jar(host, "ledger").add()
            await jar(host, "scratch").add()
        await drained(host)
        ledger = replica_of(host, key_of(host, "ledger")).listing(RAW_LEVEL)
        scratch = replica_of(host, key_of(host, "scratch")).listing(RAW_LEVEL)
        assert len(ledger) == 20
        assert len(scratch) < len(ledger)


async def test_frames_of_a_socket_wait_as_its_object_s_replies_do(
    data: Path, bucket: SwitchedBucket
) -> None:
    async with replicated_host(data, bucket, "local", app=modes()) as host:
        sockets: dict[str, MemorySocket] = {}
        for namespace in ("ledger", "scratch"):
            await jar(host, namespace).add()
            upgrade = Request("/", headers=Headers({"upgrade": "websocket"}))
            reply = await jar(host, namespace).fetch(upgrade)
            sockets[namespace] = MemorySocket(reply.web_socket)
        await drained(host)
        bucket.hold()
        for socket in sockets.values():
            await socket.send("go on")
        assert await sockets["scratch"].receive() == "2"
        frame = asyncio.create_task(sockets["ledger"].receive())
        await waits(frame, bucket, key_of(host, "ledger"))
        bucket.let_go()
        assert await frame == "2"


# --- an outage ------------------------------------------------------------------------------------


async def test_while_the_bucket_is_away_only_namespaces_of_the_mode_bucket_refuse_writes(
    data: Path, bucket: SwitchedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New objects, alarms, sleep, and new tenants of the others included."""
    async with replicated_host(data, bucket, "local", app=modes()) as host:
        for namespace in ("ledger", "scratch"):
            await jar(host, namespace).add()
        tenant = await tenant_with_items(host)
        await drained(host)
        lose_patience(monkeypatch)
        bucket.away = True
        for _ in range(2):  # the first in doubt, the second refused
            with pytest.raises(DosqlError) as raised:
                await jar(host, "ledger").add()
            assert raised.value.code == "bucket_unavailable"
        assert await jar(host, "scratch").add() == 2
        assert await jar(host, "scratch", "new").add() == 1
        await jar(host, "scratch", "bell").ring()
        await until(lambda: Jar.rung == ["bell"])
        await host.objects.hibernate()
        assert await jar(host, "scratch").add() == 3
        await add(tenant, "row")
        await add(await tenant_with_items(host, "new"), "row")
        await host.check()  # most can be served
        assert host.statistics().bucket_stalled_seconds > 0
        bucket.away = False
        monkeypatch.undo()
        await drained(host)
        assert await jar(host, "ledger").add() == 3, "the refused one was kept, or more was lost"


async def test_a_class_of_the_mode_local_goes_on_without_the_bucket_of_a_server_that_waits_for_it(
    data: Path, bucket: SwitchedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with replicated_host(data, bucket, "bucket", app=modes()) as host:
        await jar(host, "scratch").add()
        tenant = await tenant_with_items(host)
        await drained(host)
        lose_patience(monkeypatch)
        bucket.away = True
        with pytest.raises(OutcomeUnknownError):
            await add(tenant, "row")
        with pytest.raises(OutcomeUnknownError) as creation:
            await host.tenants.create("new")
        assert creation.value.code == "bucket_unavailable"
        assert await jar(host, "scratch").add() == 2
        assert await jar(host, "scratch", "new").add() == 1
        await jar(host, "scratch", "bell").ring()
        await until(lambda: Jar.rung == ["bell"])
        await host.objects.hibernate(jar(host, "scratch").id)
        assert await jar(host, "scratch").add() == 3
        with pytest.raises(UnavailableError, match="bucket"):
            await host.check()
        bucket.away = False
        monkeypatch.undo()
        await drained(host)
        await host.check()
        await add(tenant, "another row")


async def test_a_host_whose_own_mode_is_local_starts_while_the_bucket_is_away(
    data: Path, bucket: SwitchedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with replicated_host(data, bucket, "local", app=modes()) as host:
        for namespace in ("ledger", "scratch"):
            await jar(host, namespace).add()
    lose_patience(monkeypatch)
    bucket.away = True
    async with replicated_host(data, bucket, "local", app=modes()) as host:
        assert await jar(host, "scratch").add() == 2
        with pytest.raises(DosqlError) as raised:
            await jar(host, "ledger").add()
        assert raised.value.code == "bucket_unavailable"
        bucket.away = False
        monkeypatch.undo()
        assert await jar(host, "ledger").add() == 2


# --- what the bucket holds ------------------------------------------------------------------------


async def test_what_the_mode_bucket_acknowledged_is_found_by_name_after_the_machine_is_lost(
    data: Path, bucket: SwitchedBucket
) -> None:
    """Also an object whose name is newer than all that the bucket was waited for."""
    host = await start_host(data, bucket, "local", app=modes())
    names = [f"n{number}" for number in range(20)]
    await asyncio.gather(*(jar(host, "ledger", name).add() for name in names))
    bucket.away = True
    await killed(host)
    shutil.rmtree(data)
    bucket.away = False
    async with replicated_host(data, bucket, "local", app=modes()) as host:
        listed = host.objects.list("ledger", "", 100, None).objects
        assert sorted(each.name for each in listed) == sorted(names)
        assert [await jar(host, "ledger", name).add() for name in names] == [2] * len(names)


async def test_nothing_is_acknowledged_before_the_bucket_s_catalog_knows_of_it(
    data: Path, bucket: SwitchedBucket
) -> None:
    async with replicated_host(data, bucket, "local", app=modes()) as host:
        await jar(host, "ledger").add()
        await drained(host)
        bucket.hold()
        count = len(bucket.puts)
        write = asyncio.create_task(jar(host, "ledger", "new").add())
        await until(lambda: len(bucket.puts) > count)
        await asyncio.wait([write], timeout=0.05)
        assert not write.done()
        assert all(each.startswith(CATALOG_PREFIX) for each in bucket.puts[count:])
        bucket.let_go()
        assert await write == 1


@pytest.mark.parametrize("choice", ["local", "bucket"])
async def test_the_catalog_goes_to_the_bucket_as_the_strictest_mode_does(
    choice: Durability, data: Path, bucket: SwitchedBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dosql.replica.pace.REPLICA_FILES_BURST", 2)
    app = modes() if choice == "bucket" else App()
    if choice == "local":
        app.durable_object(Scratch)
    async with replicated_host(data, bucket, "local", app=app) as host:
        far_ms = SystemClock().now_ms() + 3_600_000
        for number in range(20):
            await jar(host, "scratch").ring(far_ms - number)  # the catalog notes the earliest
        await drained(host)
        commits = host.node.catalog().logged_txid
        files = replica_of(host, CATALOG_KEY).listing(RAW_LEVEL)
        assert (len(files) == commits) is (choice == "bucket")


@pytest.mark.parametrize("server", ["local", "bucket"])
async def test_objects_of_both_modes_sleep_wake_and_are_restored(
    server: Durability, data: Path, bucket: SwitchedBucket
) -> None:
    namespaces = ("ledger", "scratch", "plain")
    for turn in range(1, 4):
        async with replicated_host(data, bucket, server, app=modes()) as host:
            for namespace in namespaces:
                assert await jar(host, namespace).add() == 2 * turn - 1
            await host.objects.hibernate()
            for namespace in namespaces:
                assert await jar(host, namespace).add() == 2 * turn
        if turn == 2:
            shutil.rmtree(data)


async def test_an_alarm_that_was_acknowledged_is_not_lost_with_the_machine(
    data: Path, bucket: SwitchedBucket
) -> None:
    host = await start_host(data, bucket, "local", app=modes())
    in_a_while = SystemClock().now_ms() + 3_600_000
    await jar(host, "ledger").ring(in_a_while)
    bucket.away = True
    await killed(host)
    shutil.rmtree(data)
    bucket.away = False
    async with replicated_host(data, bucket, "local", app=modes()) as host:
        assert AlarmIndex(host.node.catalog).earliest() == in_a_while


@pytest.mark.parametrize("server", ["local", "bucket"])
async def test_objects_of_both_modes_go_back_in_time(
    server: Durability, data: Path, bucket: SwitchedBucket
) -> None:
    async with replicated_host(data, bucket, server, app=modes()) as host:
        for namespace in ("ledger", "scratch"):
            stub = jar(host, namespace)
            await stub.add()
            mark = await stub.mark()
            await stub.add()
            undo = await stub.go_back(mark)
            await host.objects.hibernate()
            assert await stub.count() == 1
            await stub.go_back(undo)
            await host.objects.hibernate()
            assert await stub.count() == 2
    shutil.rmtree(data)
    async with replicated_host(data, bucket, server, app=modes()) as host:
        for namespace in ("ledger", "scratch"):
            assert await jar(host, namespace).count() == 2


# --- changing the mode ----------------------------------------------------------------------------


async def test_another_version_of_the_app_may_choose_another_mode(
    data: Path, bucket: SwitchedBucket
) -> None:
    before, after = App(), App()
    before.durable_object(Plain, durability="local")
    after.durable_object(Plain, durability="bucket")
    async with replicated_host(data, bucket, "local", app=before) as host:
        assert await jar(host, "plain").add() == 1
        await drained(host)
        await host.objects.replace_app(after)
        assert await jar(host, "plain").add() == 2
        bucket.hold()
        write = asyncio.create_task(jar(host, "plain").add())
        await waits(write, bucket, key_of(host, "plain"))
        bucket.let_go()
        assert await write == 3
        await host.objects.replace_app(before)
        bucket.hold()
        assert await jar(host, "plain").add() == 4
        bucket.let_go()
    async with replicated_host(data, bucket, "local", app=after) as host:
        assert await jar(host, "plain").add() == 5


async def test_a_version_of_the_app_that_needs_a_bucket_is_not_taken_without_one(
    data: Path,
) -> None:
    before = App()
    before.durable_object(Plain)
    async with running_host(data, app=before) as host:
        assert await jar(host, "plain").add() == 1
        with pytest.raises(InvalidRequestError, match="--bucket"):
            await host.objects.replace_app(modes())
        assert await jar(host, "plain").add() == 2


# --- another server -------------------------------------------------------------------------------


async def test_a_server_that_lost_everything_to_another_notices_it_at_its_start(
    data: Path, bucket: SwitchedBucket, tmp_path: Path
) -> None:
    """One class of the mode ``bucket`` is enough: the catalog is asked for before it is used."""
    async with replicated_host(data, bucket, "local", app=modes()) as host:
        await jar(host, "ledger").add()
    async with replicated_host(tmp_path / "other", bucket, "local", app=modes()) as other:
        await jar(other, "ledger").add()
        await jar(other, "ledger", "newer").add()
    async with replicated_host(data, bucket, "local", app=modes()) as host:
        names = [each.name for each in host.objects.list("ledger", "", 10, None).objects]
        assert names == ["newer", "one"]
        assert await jar(host, "ledger").add() == 3


async def test_the_first_of_two_servers_acknowledges_nothing_that_the_second_does_not_have(
    data: Path, bucket: SwitchedBucket, tmp_path: Path
) -> None:
    first = await start_host(data, bucket, "local", app=modes())
    assert await jar(first, "ledger").add() == 1
    second = await start_host(tmp_path / "second", bucket, "local", app=modes())
    assert await jar(second, "ledger").add() == 2
    with pytest.raises(DosqlError):
        await jar(first, "ledger").add()
    assert await jar(second, "ledger").add() == 3
    await first.close()
    await second.close()


async def test_rows_of_tenants_are_kept_in_every_mode(data: Path, bucket: SwitchedBucket) -> None:
    async with replicated_host(data, bucket, "local", app=modes()) as host:
        await add(await tenant_with_items(host), "one")
    async with replicated_host(data, bucket, "bucket", app=modes()) as host:
        await add(host.tenants.get("acme"), "two")
    async with replicated_host(data, bucket, "local", app=modes()) as host:
        await add(host.tenants.get("acme"), "three")
    shutil.rmtree(data)
    async with replicated_host(data, bucket, app=modes()) as host:
        assert await values(host.tenants.get("acme")) == ["one", "two", "three"]
