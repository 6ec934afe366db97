"""Statements from Python: values, rows, types, bookmarks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest

from dosql.client import AsyncClient, AsyncTenant, Rows, RunResult, Tenant
from dosql.errors import InvalidRequestError, SqlError
from dosql.wire.values import SqlValue

VALUES = [
    None,
    0,
    -1,
    2**53 + 1,
    2**63 - 1,
    -(2**63),
    0.0,
    -0.5,
    1.0,
    1e300,
    5e-324,
    "",
    "it's",
    "ünïcödé 漢字 🦀",
    "line\nbreak\0nul",
    b"",
    b"\x00\xff",
    bytes(range(256)),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
async def test_a_value_comes_back_as_it_went(async_client: AsyncClient, value: SqlValue) -> None:
    """Exactly, and with its type: 1.0 is not 1, and no integer loses digits."""
    row = await async_client.tenant("values").query_one("SELECT ? AS value", [value])
    assert row is not None
    assert row["value"] == value
    assert type(row["value"]) is type(value)


async def test_infinity_is_read_as_a_float(async_client: AsyncClient) -> None:
    row = await async_client.tenant("values").query_one("SELECT 9e999 AS up, -9e999 AS down")
    assert row == {"up": math.inf, "down": -math.inf}


@pytest.mark.parametrize("value", [math.inf, math.nan, 2**70, "\ud800", object(), {1, object()}])
async def test_a_value_that_sqlite_cannot_hold_is_refused(
    async_client: AsyncClient, value: object
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await async_client.tenant("values").query("SELECT ?", [value])  # type: ignore[list-item]
    assert caught.value.code == "invalid_parameter"


async def test_parameters_by_position_and_by_name(acme: AsyncTenant) -> None:
    assert await acme.query("SELECT ? + ? AS sum", [1, 2]) == [{"sum": 3}]
    assert await acme.query("SELECT :a + @b + $c AS sum", {"a": 1, "b": 2, "c": 3}) == [{"sum": 6}]
    assert await acme.query("SELECT ? AS one", (1,)) == [{"one": 1}]


async def test_run_says_what_changed(acme: AsyncTenant) -> None:
    first = await acme.run("INSERT INTO people (name) VALUES ('Ada'), ('Grace')")
    assert first == RunResult(changes=2, last_insert_rowid=2)
    assert await acme.run("UPDATE people SET adult = 1") == RunResult(2, 0)


async def test_query_one_without_a_row_is_none(acme: AsyncTenant) -> None:
    assert await acme.query_one("SELECT * FROM people") is None


async def test_query_rows_keeps_duplicate_names_and_names_without_rows(acme: AsyncTenant) -> None:
    assert await acme.query_rows("SELECT 1 AS a, x'01' AS a") == Rows(("a", "a"), [(1, b"\x01")])
    assert await acme.query_rows("SELECT 1 AS a WHERE 0") == Rows(("a",), [])


async def test_each_reply_moves_the_bookmark_of_its_handle(acme: AsyncTenant) -> None:
    """Bookmarks sort as text in the order of the commits; reading does not make new ones."""
    before = acme.last_bookmark
    await acme.run("INSERT INTO people (name) VALUES ('Ada')")
    after = acme.last_bookmark
    assert before is not None
    assert after is not None
    assert before < after
    await acme.query("SELECT 1")
    assert acme.last_bookmark == after


async def test_an_error_of_sqlite_names_the_place(acme: AsyncTenant) -> None:
    with pytest.raises(SqlError) as caught:
        await acme.query("SELECT colour FROM people")
    error = caught.value
    assert error.message == "no such column: colour"
    assert (error.status, error.sqlite_code, error.offset) == (400, "SQLITE_ERROR", 7)
    assert error.request_id


def test_the_synchronous_client_does_the_same(shop: Tenant) -> None:
    assert shop.run("INSERT INTO items (name) VALUES (?)", ["tea"]) == RunResult(1, 1)
    assert shop.query("SELECT * FROM items") == [{"id": 1, "name": "tea"}]
    assert shop.query_one("SELECT name FROM items WHERE id = :id", {"id": 1}) == {"name": "tea"}
    assert shop.query_rows("SELECT id FROM items") == Rows(("id",), [(1,)])


@dataclass
class AsDataclass:
    id: int
    name: str
    adult: bool
    photo: bytes | None = None


class AsDict(TypedDict):
    id: int
    name: str


class AsStruct(msgspec.Struct):
    id: int
    name: str
    adult: bool
    photo: bytes | None = None


class AsModel(pydantic.BaseModel):
    id: int
    name: str
    adult: bool
    photo: bytes | None = None


class Name(Enum):
    ADA = "Ada"


class WithEnum(msgspec.Struct):
    name: Name


@pytest.fixture
async def one_person(acme: AsyncTenant) -> AsyncTenant:
    await acme.run("INSERT INTO people VALUES (7, 'Ada', 1, x'ff00')")
    return acme


@pytest.mark.parametrize("into", [AsDataclass, AsStruct, AsModel])
async def test_rows_become_instances(one_person: AsyncTenant, into: type[Any]) -> None:
    """SQLite's 1 becomes True where the field is a bool; blobs are bytes, not base64."""
    wanted = into(id=7, name="Ada", adult=True, photo=b"\xff\x00")
    assert await one_person.query("SELECT * FROM people", into=into) == [wanted]
    assert await one_person.query_one("SELECT * FROM people", into=into) == wanted
    assert await one_person.query_one("SELECT * FROM people WHERE 0", into=into) is None


async def test_rows_become_typed_dicts_and_enums(one_person: AsyncTenant) -> None:
    assert await one_person.query("SELECT * FROM people", into=AsDict) == [{"id": 7, "name": "Ada"}]
    assert await one_person.query("SELECT * FROM people", into=WithEnum) == [WithEnum(Name.ADA)]


@pytest.mark.parametrize("into", [AsDataclass, AsDict, AsStruct, AsModel])
async def test_a_row_that_does_not_fit_is_an_error_that_names_the_field(
    one_person: AsyncTenant, into: type[Any]
) -> None:
    with pytest.raises(InvalidRequestError, match="name") as caught:
        await one_person.query("SELECT id, 1 AS adult FROM people", into=into)
    assert caught.value.code == "row_mismatch"
    assert into.__name__ in caught.value.message
