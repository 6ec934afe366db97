"""How an object is tested without a server: ``pytest examples/object_patterns``."""

from __future__ import annotations

from dosql import Request
from dosql.testing import SimpleState
from examples.object_patterns.my_object import MyDurableObject


async def test_it_counts() -> None:
    counter = MyDurableObject(SimpleState(), {})
    assert (await counter.fetch(Request("http://test/increment"))).status == 200
    response = await counter.fetch(Request("http://test/value"))
    assert await response.json() == {"counter": 1}


async def test_it_knows_nothing_else() -> None:
    counter = MyDurableObject(SimpleState(), {})
    response = await counter.fetch(Request("http://test/action"))
    assert response.status == 404
    assert (await response.json())["error"] == "Not found"
