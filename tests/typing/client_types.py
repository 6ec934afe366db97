"""What a type checker must conclude about the client. Checked, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict, assert_type

import msgspec
import pydantic

from dosql.client import (
    AsyncClient,
    AsyncPastTenant,
    AsyncStub,
    Client,
    PastTenant,
    Row,
    Rows,
    RunResult,
    Stub,
    SyncResponse,
)
from dosql.client import operations as op
from dosql.fetch import Response
from dosql.wire.branches import BranchDiff, BranchInfo, MergeReply
from dosql.wire.migrations import MigrationReport
from dosql.wire.objects import ObjectPage
from dosql.wire.restores import RestoreReply
from dosql.wire.snapshots import SnapshotInfo, VerifyReply
from dosql.wire.tenants import TenantInfo
from dosql.wire.tokens import TokenCreated


@dataclass
class AsDataclass:
    id: int


class AsDict(TypedDict):
    id: int


class AsStruct(msgspec.Struct):
    id: int


class AsModel(pydantic.BaseModel):
    id: int


class Room:
    async def rename(self, title: str, *, by: int = 0) -> AsDataclass:
        raise NotImplementedError

    def size(self) -> int:
        raise NotImplementedError


class Other:
    def rename(self, title: str) -> None:
        raise NotImplementedError


async def asynchronous(client: AsyncClient) -> None:
    acme = client.tenant("acme")
    assert_type(await acme.query("SELECT 1"), list[dict[str, Any]])
    assert_type(await acme.query("SELECT ?", [1, "a", 2.5, b"x", None]), list[Row])
    assert_type(await acme.query("SELECT :a", {"a": 1}), list[Row])
    assert_type(await acme.query("SELECT 1 AS id", into=AsDataclass), list[AsDataclass])
    assert_type(await acme.query("SELECT 1 AS id", into=AsDict), list[AsDict])
    assert_type(await acme.query("SELECT 1 AS id", into=AsStruct), list[AsStruct])
    assert_type(await acme.query("SELECT 1 AS id", into=AsModel), list[AsModel])
    assert_type(await acme.query_one("SELECT 1"), dict[str, Any] | None)
    assert_type(await acme.query_one("SELECT 1 AS id", into=AsModel), AsModel | None)
    assert_type(await acme.query_rows("SELECT 1"), Rows)
    assert_type(await acme.run("DELETE FROM t", [1]), RunResult)
    assert_type(acme.last_bookmark, str | None)
    async with acme.transaction() as tx:
        assert_type(await tx.query("SELECT 1"), list[Row])
        assert_type(await tx.query("SELECT 1 AS id", into=AsStruct), list[AsStruct])
        assert_type(await tx.query_one("SELECT 1 AS id", into=AsDict), AsDict | None)
        assert_type(await tx.run("DELETE FROM t"), RunResult)
    assert_type(client.admin.tenants.list(), AsyncIterator[TenantInfo])
    assert_type(await client.admin.tokens.create("acme"), TokenCreated)
    assert_type(await client.admin.migrations.status(), MigrationReport)


async def batches(client: AsyncClient) -> None:
    acme = client.tenant("acme")
    one = await acme.batch((op.query("SELECT 1 AS id", into=AsDataclass),))
    assert_type(one, tuple[list[AsDataclass]])
    three = await acme.batch(
        (op.run("DELETE FROM t"), op.query("SELECT 1"), op.query_one("SELECT 1", into=AsStruct))
    )
    assert_type(three, tuple[RunResult, list[Row], AsStruct | None])
    assert_type(await acme.batch([op.run("DELETE FROM t")]), Sequence[Any])
    assert_type(await acme.batch([("run", "DELETE FROM t", [1])]), Sequence[Any])


def synchronous(client: Client) -> None:
    acme = client.tenant("acme")
    assert_type(acme.query("SELECT 1"), list[Row])
    assert_type(acme.query("SELECT 1 AS id", into=AsDataclass), list[AsDataclass])
    assert_type(acme.query_one("SELECT 1 AS id", into=AsDict), AsDict | None)
    assert_type(acme.run("DELETE FROM t"), RunResult)
    assert_type(
        acme.batch((op.run("DELETE FROM t"), op.query("SELECT 1", into=AsModel))),
        tuple[RunResult, list[AsModel]],
    )
    with acme.transaction() as tx:
        assert_type(tx.query("SELECT 1 AS id", into=AsStruct), list[AsStruct])
    assert_type(client.admin.tenants.list(), Iterator[TenantInfo])


async def the_past(client: AsyncClient) -> None:
    past = client.tenant("acme").at("2026-01-31T12:00:00Z")
    assert_type(past, AsyncPastTenant)
    assert_type(await past.query("SELECT 1"), list[Row])
    assert_type(await past.query("SELECT 1 AS id", into=AsDataclass), list[AsDataclass])
    assert_type(await past.query("SELECT 1 AS id", into=AsModel), list[AsModel])
    assert_type(await past.query_one("SELECT ?", [1]), Row | None)
    assert_type(await past.query_one("SELECT 1 AS id", into=AsDict), AsDict | None)
    assert_type(await past.query_rows("SELECT 1"), Rows)
    assert_type(past.last_bookmark, str | None)
    tenants = client.admin.tenants
    done = await tenants.restore("acme", at=datetime(2026, 1, 31, tzinfo=UTC), to="copy")
    assert_type(done, RestoreReply)
    assert_type(done.undo_bookmark, str | None)
    assert_type(await tenants.snapshots.create("acme"), SnapshotInfo)
    assert_type(await tenants.snapshots.list("acme"), list[SnapshotInfo])
    assert_type(await tenants.snapshots.verify("acme", repair=True), VerifyReply)
    assert_type(await tenants.branches.create("acme", "dev", at="x"), BranchInfo)
    assert_type(await tenants.branches.list("acme"), list[BranchInfo])
    assert_type(await tenants.branches.diff("acme", "dev", against="start"), BranchDiff)
    assert_type(await tenants.branches.merge("acme", "dev", conflicts="ours"), MergeReply)


def synchronous_past(client: Client) -> None:
    past = client.tenant("acme").at(datetime(2026, 1, 31, tzinfo=UTC))
    assert_type(past, PastTenant)
    assert_type(past.query("SELECT 1 AS id", into=AsStruct), list[AsStruct])
    assert_type(client.admin.tenants.restore("acme", at="x"), RestoreReply)
    assert_type(client.admin.tenants.branches.list("acme"), list[BranchInfo])


async def objects(client: AsyncClient) -> None:
    rooms = client.namespace("room", Room)
    lobby = rooms.get_by_name("lobby")
    assert_type(lobby, AsyncStub[Room])
    assert_type(await lobby.call(Room.rename, "new", by=1), AsDataclass)
    assert_type(await lobby.call(Room.size), int)
    assert_type(await lobby.rename("new"), Any)
    assert_type(await lobby.fetch("/", method="POST", body=b"x"), Response)
    assert_type(await rooms.list("lob"), ObjectPage)
    assert_type(client.namespace("room").get_by_name("lobby"), AsyncStub[Any])


def synchronous_objects(client: Client) -> None:
    lobby = client.namespace("room", Room).get_by_name("lobby")
    assert_type(lobby, Stub[Room])
    assert_type(lobby.call(Room.rename, "new", by=1), AsDataclass)
    assert_type(lobby.call(Room.size), int)
    assert_type(lobby.rename("new"), Any)
    assert_type(lobby.fetch("/"), SyncResponse)


def refused(client: Client) -> None:
    acme = client.tenant("acme")
    acme.query("SELECT ?", [object()])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType, reportCallIssue]
    acme.run("SELECT ?", 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    acme.at(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    acme.at("x").run("SELECT 1")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    client.admin.tenants.branches.merge("acme", "dev", conflicts="mine")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    acme.batch([("delete", "x")])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType, reportCallIssue]
    lobby = client.namespace("room", Room).get_by_name("lobby")
    lobby.call(Room.rename, 1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    lobby.call(Room.rename, "new", to=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    lobby.call(Other.rename, "new")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
