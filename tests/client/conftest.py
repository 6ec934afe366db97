"""A tenant of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from dosql.client import AsyncClient, AsyncTenant, Client, Tenant
from tests.support.server import ServerProcess

_numbers = itertools.count(1)


@pytest.fixture
async def async_client(shared_server: ServerProcess) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(shared_server.url, token=shared_server.admin_token) as client:
        yield client


@pytest.fixture
def client(shared_server: ServerProcess) -> Iterator[Client]:
    with Client(shared_server.url, token=shared_server.admin_token) as client:
        yield client


@pytest.fixture
def name() -> str:
    """A tenant that nobody else uses."""
    return f"client-{next(_numbers)}"


@pytest.fixture
async def acme(async_client: AsyncClient, name: str) -> AsyncTenant:
    """With a table ``people``."""
    acme = async_client.tenant(name)
    await acme.run(
        "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT UNIQUE, adult INT, photo BLOB)"
    )
    return acme


@pytest.fixture
def shop(client: Client, name: str) -> Tenant:
    """With a table ``items``."""
    shop = client.tenant(name)
    shop.run("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT UNIQUE)")
    return shop
