"""Several statements in one transaction."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from dosql.client import AsyncTenant, RunResult, Tenant
from dosql.client import operations as op
from dosql.errors import ConstraintError, InvalidRequestError


@dataclass
class Person:
    id: int
    name: str


async def test_a_tuple_of_operations_gives_a_tuple_of_their_results(acme: AsyncTenant) -> None:
    result = await acme.batch(
        (
            op.run("INSERT INTO people (name, photo) VALUES (?, ?)", ["Ada", b"\xff"]),
            op.query("SELECT id, name FROM people", into=Person),
            op.query_one("SELECT photo FROM people"),
            op.query_one("SELECT 1 WHERE 0", into=Person),
        )
    )
    assert result == (RunResult(1, 1), [Person(1, "Ada")], {"photo": b"\xff"}, None)


async def test_operations_may_be_plain_tuples(acme: AsyncTenant) -> None:
    result = await acme.batch(
        [
            ("run", "INSERT INTO people (name) VALUES (?)", ["Ada"]),
            ("query", "SELECT name FROM people"),
            ("queryOne", "SELECT :n AS n", {"n": 1}),
        ]
    )
    assert result == [RunResult(1, 1), [{"name": "Ada"}], {"n": 1}]


async def test_all_operations_or_none(acme: AsyncTenant) -> None:
    """The error says which one failed."""
    insert = op.run("INSERT INTO people (name) VALUES ('Ada')")
    with pytest.raises(ConstraintError) as caught:
        await acme.batch([insert, op.query("SELECT 1"), insert])
    assert caught.value.index == 2
    assert await acme.query("SELECT * FROM people") == []


async def test_an_unknown_operation_is_refused_before_anything_is_sent(acme: AsyncTenant) -> None:
    with pytest.raises(InvalidRequestError):
        await acme.batch([("delete", "everything")])  # type: ignore[list-item]


def test_the_synchronous_client_does_the_same(shop: Tenant) -> None:
    done, rows = shop.batch(
        (op.run("INSERT INTO items (name) VALUES ('tea')"), op.query("SELECT name FROM items"))
    )
    assert (done, rows) == (RunResult(1, 1), [{"name": "tea"}])
