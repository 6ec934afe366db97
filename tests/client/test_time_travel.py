"""The past of a tenant from Python: reads, restores, snapshots, branches; over a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import httpx2
import pytest

from dosql.bookmarks import Bookmark
from dosql.client import AsyncClient, AsyncTenant, Client, Rows, Tenant
from dosql.client.calls import LONG_WORK_S
from dosql.client.points import Point
from dosql.errors import (
    ConflictError,
    CorruptError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from dosql.wire.migrations import MigrationReport
from dosql.wire.restores import RestoreReply
from dosql.wire.tenants import TenantInfo
from tests.support.server import ServerProcess

COUNT = "SELECT count(*) AS n FROM people"


@dataclass
class Person:
    name: str


async def filled(acme: AsyncTenant) -> list[str]:
    """Three rows; the bookmark of each state from the empty table on."""
    assert acme.last_bookmark is not None
    marks = [acme.last_bookmark]
    for name in ("Ada", "Bob", "Cid"):
        await acme.run("INSERT INTO people (name) VALUES (?)", [name])
        marks.append(acme.last_bookmark)
    return marks


# --- reading ----------------------------------------------------------------------------------


async def test_the_past_is_read_like_the_present(acme: AsyncTenant) -> None:
    marks = await filled(acme)
    past = acme.at(marks[2])
    sql = "SELECT name FROM people ORDER BY id"
    assert await past.query(sql) == [{"name": "Ada"}, {"name": "Bob"}]
    assert await past.query(sql, into=Person) == [Person("Ada"), Person("Bob")]
    assert await past.query_one(COUNT) == {"n": 2}
    assert await past.query_one(sql, into=Person) == Person("Ada")
    assert await past.query_one("SELECT name FROM people WHERE id = ?", [3]) is None
    table = await past.query_rows("SELECT name, name FROM people WHERE id = :id", {"id": 2})
    assert table == Rows(("name", "name"), [("Bob", "Bob")])
    assert (past.name, past.last_bookmark) == (acme.name, marks[2])
    assert acme.last_bookmark == marks[3], "the past says nothing of the present"


async def test_blobs_of_the_past_are_bytes(acme: AsyncTenant) -> None:
    await acme.run("INSERT INTO people (photo) VALUES (?)", [b"\0\xff"])
    mark = acme.last_bookmark
    assert mark is not None
    await acme.run("DELETE FROM people")
    assert await acme.at(mark).query("SELECT photo FROM people") == [{"photo": b"\0\xff"}]


async def test_a_point_is_a_bookmark_a_text_or_an_aware_datetime(
    async_client: AsyncClient, acme: AsyncTenant
) -> None:
    marks = await filled(acme)
    newest = await async_client.admin.tenants.restore(acme.name, at=marks[-1], dry_run=True)
    before = datetime.fromisoformat(newest.at)
    await acme.run("DELETE FROM people")
    elsewhere = before.astimezone(timezone(timedelta(hours=5, minutes=30)))
    points: list[Point] = [
        before,
        elsewhere,
        before.isoformat(),
        elsewhere.isoformat(),
        marks[-1],
        Bookmark.parse(marks[-1]),
    ]
    for point in points:
        past = acme.at(point)
        assert await past.query_one(COUNT) == {"n": 3}, point
        assert past.last_bookmark == marks[-1]
    assert await acme.at(datetime(2999, 1, 1, tzinfo=UTC)).query_one(COUNT) == {"n": 0}


@pytest.mark.parametrize(
    ("point", "code"),
    [
        (datetime(2026, 1, 31), "invalid_time"),
        ("2026-01-31T12:00:00", "invalid_time"),
        ("yesterday", "invalid_time"),
        ("?at=now&x", "invalid_time"),
        ("1" * 15 + "-" + "2" * 16, "invalid_bookmark"),
    ],
)
def test_what_is_no_point_is_refused_before_anything_is_sent(point: Point, code: str) -> None:
    with Client("http://127.0.0.1:1", token="t", retries=0) as client:
        with pytest.raises(InvalidRequestError) as caught:
            client.tenant("acme").at(point)
        assert caught.value.code == code
        with pytest.raises(InvalidRequestError) as caught:
            client.admin.tenants.restore("acme", at=point)
        assert caught.value.code == code


async def test_nothing_is_written_to_the_past(acme: AsyncTenant) -> None:
    marks = await filled(acme)
    with pytest.raises(ForbiddenError) as caught:
        await acme.at(marks[1]).query("DELETE FROM people RETURNING id")
    assert caught.value.code == "read_only"
    with pytest.raises(NotFoundError) as missing:
        await acme.at("1999-01-01T00:00:00Z").query(COUNT)
    assert missing.value.code == "restore_point_not_found"


# --- restoring --------------------------------------------------------------------------------


async def test_a_restore_is_taken_back_by_its_own_bookmark(
    async_client: AsyncClient, acme: AsyncTenant
) -> None:
    marks = await filled(acme)
    tenants = async_client.admin.tenants
    dry = await tenants.restore(acme.name, at=marks[1], dry_run=True)
    assert (dry.bookmark, dry.undo_bookmark, dry.dry_run) == (marks[1], None, True)
    assert await acme.query_one(COUNT) == {"n": 3}
    done = await tenants.restore(acme.name, at=marks[1])
    assert (done.tenant, done.bookmark, done.undo_bookmark) == (acme.name, marks[1], marks[3])
    assert await acme.query_one(COUNT) == {"n": 1}
    assert done.undo_bookmark is not None
    await tenants.restore(acme.name, at=done.undo_bookmark)
    assert await acme.query_one(COUNT) == {"n": 3}


async def test_a_restore_into_a_new_tenant_leaves_the_old_one(
    async_client: AsyncClient, acme: AsyncTenant
) -> None:
    marks = await filled(acme)
    copy = f"{acme.name}-copy"
    done = await async_client.admin.tenants.restore(acme.name, at=marks[2], to=copy)
    assert (done.tenant, done.undo_bookmark) == (copy, None)
    assert await async_client.tenant(copy).query_one(COUNT) == {"n": 2}
    assert await acme.query_one(COUNT) == {"n": 3}
    with pytest.raises(ConflictError) as caught:
        await async_client.admin.tenants.restore(acme.name, at=marks[2], to=copy)
    assert caught.value.code == "tenant_exists"
    with pytest.raises(InvalidRequestError):
        await async_client.admin.tenants.restore(acme.name, at=marks[2], to="../etc")


def test_a_restore_may_take_longer_than_other_calls_and_is_not_repeated_blindly() -> None:
    """Twice in place would make the bookmark that takes it back name the restored state."""
    seen: list[dict[str, float]] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.extensions["timeout"])
        raise httpx2.ReadError("lost")

    with (
        Client(
            "http://server", token="t", timeout_s=5, transport=httpx2.MockTransport(answer)
        ) as client,
        pytest.raises(OutcomeUnknownError),
    ):
        client.admin.tenants.restore("acme", at="2026-01-31T12:00:00Z")
    (timeout,) = seen
    assert 5 < timeout["read"] <= LONG_WORK_S
    assert timeout["connect"] == 5


async def test_a_restore_says_how_far_it_is(async_client: AsyncClient, acme: AsyncTenant) -> None:
    marks = await filled(acme)
    steps: list[tuple[int, int | None]] = []

    def progress(done: int, total: int | None) -> None:
        steps.append((done, total))

    tenants = async_client.admin.tenants
    copy = f"{acme.name}-copy"
    done = await tenants.restore(acme.name, at=marks[3], to=copy, progress=progress)
    assert (done.bookmark, done.tenant) == (marks[3], copy)
    assert await async_client.tenant(copy).query_one(COUNT) == {"n": 3}
    assert (steps[0], steps[-1]) == ((0, done.bytes_read), (done.bytes_read, done.bytes_read))
    assert steps == sorted(set(steps))
    with pytest.raises(NotFoundError) as caught:
        await tenants.restore(acme.name, at="1999-01-01T00:00:00Z", progress=progress)
    assert caught.value.code == "restore_point_not_found"


PROGRESS = b'{"progress":{"bytesRead":0,"bytesTotal":9}}\n'
RESTORED = (
    b'{"result":{"tenant":"acme","bookmark":"b","undoBookmark":null,"at":"2026-01-31T12:00:00Z",'
    b'"sizeBytes":4096,"files":1,"bytesRead":9,"dryRun":true}}\n'
)
DAMAGED = b'{"status":503,"error":"A file is damaged.","code":"replica_gap","requestId":"r-1"}\n'


class Pieces(httpx2.SyncByteStream):
    """A reply's body in these pieces, and then an error, if there is one."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self._pieces = pieces
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        if self._error is not None:
            raise self._error


def restored(body: Pieces, *, dry_run: bool = False) -> tuple[RestoreReply, list[int]]:
    """What the client makes of this reply, and the progress that it told."""
    steps: list[int] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["accept"] == "application/x-ndjson"
        return httpx2.Response(200, stream=body)

    transport = httpx2.MockTransport(answer)
    with Client("http://server", token="t", transport=transport) as client:
        reply = client.admin.tenants.restore(
            "acme",
            at="2026-01-31T12:00:00Z",
            dry_run=dry_run,
            progress=lambda done, _: steps.append(done),
        )
    return reply, steps


def test_lines_of_a_restore_may_come_in_any_pieces() -> None:
    whole = PROGRESS + RESTORED
    for cut in range(len(whole)):
        reply, steps = restored(Pieces(whole[:cut], whole[cut:]))
        assert (reply.bytes_read, steps) == (9, [0])


def test_an_error_that_ends_a_restore_is_raised_as_itself() -> None:
    with pytest.raises(CorruptError, match="A file is damaged") as caught:
        restored(Pieces(PROGRESS, DAMAGED))
    assert (caught.value.code, caught.value.request_id) == ("replica_gap", "r-1")


@pytest.mark.parametrize("error", [None, httpx2.ReadError("lost"), httpx2.ReadTimeout("late")])
def test_a_restore_whose_outcome_never_came_may_have_been_done(error: Exception | None) -> None:
    with pytest.raises(OutcomeUnknownError):
        restored(Pieces(PROGRESS, RESTORED[:-1], error=error))
    with pytest.raises(UnavailableError) as caught:
        restored(Pieces(PROGRESS, error=error), dry_run=True)
    assert not isinstance(caught.value, OutcomeUnknownError)
    reply, _ = restored(Pieces(PROGRESS, RESTORED, error=error))
    assert reply.tenant == "acme", "it was told before the connection broke"


async def test_what_is_in_the_bucket_is_told(async_client: AsyncClient, acme: AsyncTenant) -> None:
    info = await async_client.admin.tenants.get(acme.name)
    assert isinstance(info.replica_url, str)
    assert info.id in info.replica_url
    await async_client.admin.tenants.snapshots.create(acme.name)  # it waits for the bucket
    info = await async_client.admin.tenants.get(acme.name)
    assert info.replicated_txid == info.txid > 0


# --- snapshots --------------------------------------------------------------------------------


async def test_snapshots_are_made_listed_verified_and_removed(
    async_client: AsyncClient, acme: AsyncTenant
) -> None:
    marks = await filled(acme)
    snapshots = async_client.admin.tenants.snapshots
    made = await snapshots.create(acme.name)
    assert made.bookmark == marks[-1]
    assert await snapshots.list(acme.name) == [made]
    report = await snapshots.verify(acme.name)
    assert (report.sound, report.failure, report.damaged) == (True, None, [])
    assert (report.bookmark, report.files) == (marks[-1], 1)
    everything = await snapshots.verify(acme.name, everything=True, repair=True)
    assert everything.sound
    assert everything.files > report.files
    pruned = await snapshots.prune(acme.name)
    assert (pruned.files, pruned.snapshots, pruned.dry_run) == (0, 0, False)
    await snapshots.delete(acme.name, made.bookmark)
    assert await snapshots.list(acme.name) == []
    with pytest.raises(NotFoundError) as caught:
        await snapshots.delete(acme.name, made.bookmark)
    assert caught.value.code == "snapshot_not_found"


# --- branches ---------------------------------------------------------------------------------


async def test_a_branch_is_made_compared_merged_and_removed(
    async_client: AsyncClient, acme: AsyncTenant
) -> None:
    marks = await filled(acme)
    branches = async_client.admin.tenants.branches
    name = f"{acme.name}-dev"
    made = await branches.create(acme.name, name, at=marks[2])
    assert (made.name, made.parent, made.bookmark) == (name, acme.name, marks[2])
    assert await branches.list(acme.name) == [made]
    dev = async_client.tenant(name)
    assert await dev.query_one(COUNT) == {"n": 2}
    await dev.run("UPDATE people SET photo = ? WHERE id = 1", [b"\0\1"])

    diff = await branches.diff(acme.name, name, against="start")
    assert (diff.schema, len(diff.tables)) == ([], 1)
    (row,) = diff.tables[0].rows
    assert (row.change, row.key) == ("changed", {"id": 1})
    assert row.branch == {"id": 1, "name": "Ada", "adult": None, "photo": b"\0\1"}
    assert (await branches.diff(acme.name, name, limit=0)).tables[0].rows == []

    dry = await branches.merge(acme.name, name, dry_run=True)
    assert (dry.merged, dry.changed, dry.undo_bookmark) == (False, 1, None)
    done = await branches.merge(acme.name, name)
    assert (done.merged, done.changed, done.undo_bookmark) == (True, 1, marks[3])
    photo = "SELECT photo FROM people WHERE id = 1"
    assert await acme.query_one(photo) == {"photo": b"\0\1"}
    await async_client.admin.tenants.delete(name)
    assert await branches.list(acme.name) == []


async def test_conflicts_come_with_both_rows(async_client: AsyncClient, acme: AsyncTenant) -> None:
    await filled(acme)
    branches = async_client.admin.tenants.branches
    name = f"{acme.name}-dev"
    await branches.create(acme.name, name)
    await acme.run("UPDATE people SET photo = x'01' WHERE id = 1")
    await async_client.tenant(name).run("UPDATE people SET photo = x'02' WHERE id = 1")
    refused = await branches.merge(acme.name, name)
    assert (refused.merged, refused.conflict_count) == (False, 1)
    (conflict,) = refused.conflicts
    assert conflict.parent is not None
    assert conflict.branch is not None
    assert (conflict.parent["photo"], conflict.branch["photo"]) == (b"\1", b"\2")
    assert (await branches.merge(acme.name, name, conflicts="theirs")).merged


async def test_what_is_protected_stays(async_client: AsyncClient, acme: AsyncTenant) -> None:
    tenants = async_client.admin.tenants
    await tenants.protect(acme.name)
    with pytest.raises(ConflictError) as caught:
        await tenants.delete(acme.name)
    assert caught.value.code == "tenant_protected"
    await tenants.protect(acme.name, False)
    await tenants.delete(acme.name)
    with pytest.raises(NotFoundError) as missing:
        await tenants.branches.diff("acme", "nothing")
    assert missing.value.code == "tenant_not_found"


# --- without ----------------------------------------------------------------------------------


def test_without_a_bucket_the_past_is_refused_and_the_rest_works(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(bucket="none")
    with Client(server.url, token=server.admin_token) as client:
        shop = client.tenant("shop")
        shop.run("CREATE TABLE people (id)")
        assert shop.last_bookmark is not None
        info = client.admin.tenants.get("shop")
        assert isinstance(info, TenantInfo)
        assert not isinstance(info.replica_url, str)
        assert isinstance(client.admin.migrations.status(), MigrationReport)
        for call in (
            lambda: client.tenant("shop").at("2999-01-01T00:00:00Z").query(COUNT),
            lambda: client.admin.tenants.restore("shop", at="2999-01-01T00:00:00Z"),
            lambda: client.admin.tenants.snapshots.verify("shop"),
            lambda: client.admin.tenants.snapshots.prune("shop"),
            lambda: client.admin.tenants.branches.list("shop"),
        ):
            with pytest.raises(InvalidRequestError) as caught:
                call()
            assert caught.value.code == "no_bucket"


def test_the_synchronous_client_does_the_same(client: Client, shop: Tenant) -> None:
    mark = shop.last_bookmark
    assert mark is not None
    shop.run("INSERT INTO items (name) VALUES ('tea')")
    assert shop.at(mark).query("SELECT * FROM items") == []
    undo = client.admin.tenants.restore(shop.name, at=mark).undo_bookmark
    assert undo is not None
    assert shop.query("SELECT * FROM items") == []
    assert shop.at(undo).query_one("SELECT name FROM items") == {"name": "tea"}
    assert client.admin.tenants.snapshots.verify(shop.name).sound
    client.admin.tenants.branches.create(shop.name, f"{shop.name}-dev", at=undo)
    diff = client.admin.tenants.branches.diff(shop.name, f"{shop.name}-dev")
    assert [(table.table, table.added) for table in diff.tables] == [("items", 1)]
