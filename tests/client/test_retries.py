"""What is sent again, and what is not."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest

from dosql.client import AsyncClient, AsyncTenant, Client
from dosql.client import operations as op
from dosql.client.backoff import DELAY_S_MAX, Backoff
from dosql.errors import (
    ConflictError,
    ConnectionFailedError,
    OutcomeUnknownError,
    RateLimitedError,
    UnavailableError,
)
from tests.client.lossy_proxy import LossyProxy
from tests.support.server import ServerProcess

INSERT = "INSERT INTO people (name) VALUES ('Ada')"


@pytest.fixture
async def proxy(shared_server: ServerProcess) -> AsyncIterator[LossyProxy]:
    async with LossyProxy(shared_server.url) as proxy:
        yield proxy


@pytest.fixture
async def behind_proxy(
    proxy: LossyProxy, shared_server: ServerProcess, acme: AsyncTenant
) -> AsyncIterator[Callable[[int], AsyncTenant]]:
    """The tenant through the proxy, for a client with so many retries."""
    clients: list[AsyncClient] = []

    def make(retries: int) -> AsyncTenant:
        clients.append(AsyncClient(proxy.url, token=shared_server.admin_token, retries=retries))
        return clients[-1].tenant(acme.name)

    yield make
    for client in clients:
        await client.aclose()


async def count(acme: AsyncTenant) -> int:
    row = await acme.query_one("SELECT count(*) AS n FROM people")
    assert row is not None
    return int(row["n"])


async def test_a_write_whose_reply_was_lost_is_applied_once(
    acme: AsyncTenant, proxy: LossyProxy, behind_proxy: Callable[[int], AsyncTenant]
) -> None:
    """It is repeated under the same idempotency key and gets the first outcome."""
    proxy.replies_to_lose = 2
    done = await behind_proxy(3).run("INSERT INTO people (adult) VALUES (1)")
    assert (done.changes, done.last_insert_rowid) == (1, 1)
    assert proxy.replies_lost == 2
    assert await count(acme) == 1


async def test_a_query_that_writes_is_applied_once_too(
    acme: AsyncTenant, proxy: LossyProxy, behind_proxy: Callable[[int], AsyncTenant]
) -> None:
    proxy.replies_to_lose = 1
    rows = await behind_proxy(3).query("INSERT INTO people (adult) VALUES (1) RETURNING id")
    assert rows == [{"id": 1}]
    assert await count(acme) == 1


async def test_a_batch_is_applied_once_too(
    acme: AsyncTenant, proxy: LossyProxy, behind_proxy: Callable[[int], AsyncTenant]
) -> None:
    proxy.replies_to_lose = 1
    await behind_proxy(3).batch([op.run("INSERT INTO people (adult) VALUES (1)")] * 2)
    assert await count(acme) == 2


async def test_when_the_retries_run_out_the_outcome_of_a_write_is_unknown(
    acme: AsyncTenant, proxy: LossyProxy, behind_proxy: Callable[[int], AsyncTenant]
) -> None:
    """The error tells the key under which the write can be repeated, which then is a replay."""
    proxy.replies_to_lose = 2
    with pytest.raises(OutcomeUnknownError) as caught:
        await behind_proxy(1).run(INSERT, idempotency_key="mine-1")
    assert "mine-1" in caught.value.message
    done = await acme.run(INSERT, idempotency_key="mine-1")
    assert done.last_insert_rowid == 1
    assert await count(acme) == 1


async def test_when_the_retries_run_out_a_read_was_merely_not_possible(
    acme: AsyncTenant, proxy: LossyProxy, behind_proxy: Callable[[int], AsyncTenant]
) -> None:
    proxy.replies_to_lose = 2
    with pytest.raises(UnavailableError) as caught:
        await behind_proxy(1).query("SELECT 1")
    assert caught.value.code == "connection_lost"


async def test_an_admin_write_without_a_key_is_not_repeated(
    proxy: LossyProxy, shared_server: ServerProcess, name: str
) -> None:
    """A second attempt could report the first one's success as a conflict."""
    proxy.replies_to_lose = 1
    async with AsyncClient(proxy.url, token=shared_server.admin_token) as client:
        with pytest.raises(OutcomeUnknownError):
            await client.admin.tenants.create(name)
        assert (await client.admin.tenants.get(name)).name == name


async def test_no_statement_of_a_transaction_is_repeated(
    acme: AsyncTenant, proxy: LossyProxy, behind_proxy: Callable[[int], AsyncTenant]
) -> None:
    """It would run twice. The transaction can then only roll back, even if the error is caught."""
    through = behind_proxy(3)
    tx = through.transaction()
    await tx.open()
    proxy.replies_to_lose = 1
    with pytest.raises(UnavailableError):
        await tx.run(INSERT)
    with pytest.raises(ConflictError) as caught:
        await tx.commit()
    assert not tx.is_open
    assert caught.value.code == "transaction_aborted"
    assert proxy.replies_lost == 1
    assert await count(acme) == 0


async def test_a_commit_whose_reply_was_lost_is_repeated(
    acme: AsyncTenant, proxy: LossyProxy, behind_proxy: Callable[[int], AsyncTenant]
) -> None:
    tx = behind_proxy(3).transaction()
    await tx.open()
    await tx.run(INSERT)
    proxy.replies_to_lose = 1
    await tx.commit()
    assert proxy.replies_lost == 1
    assert await count(acme) == 1


def test_a_server_that_is_not_there_is_tried_again_and_then_reported() -> None:
    with socket.socket() as nobody:  # bound, but not listening
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with Client(url, retries=1) as client, pytest.raises(ConnectionFailedError) as caught:
            client.tenant("acme").run(INSERT)
    assert caught.value.retryable
    assert url in caught.value.message


class Script:
    """A server that answers with these statuses, one after the other, and then with success."""

    def __init__(self, *statuses: int, retry_after: str = "0", retryable: bool = True) -> None:
        self.statuses = list(statuses)
        self.requests: list[httpx2.Request] = []
        self._headers = {"Retry-After": retry_after}
        self._error = {"error": "Wait.", "code": "busy", "requestId": "r", "retryable": retryable}

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if not self.statuses:
            return httpx2.Response(200, json={"changes": 1, "lastInsertRowid": 1})
        return httpx2.Response(self.statuses.pop(0), headers=self._headers, json=self._error)


@pytest.fixture
def run_with() -> Callable[..., Any]:
    def run(script: Script, **options: Any) -> Any:
        with Client("http://server", transport=httpx2.MockTransport(script), **options) as client:
            return client.tenant("acme").run(INSERT)

    return run


def test_a_refusal_that_passes_is_waited_out_under_one_key(run_with: Callable[..., Any]) -> None:
    script = Script(429, 503)
    assert run_with(script).changes == 1
    assert len({request.headers["idempotency-key"] for request in script.requests}) == 1
    assert len(script.requests) == 3


def test_two_calls_never_share_a_key(run_with: Callable[..., Any]) -> None:
    script = Script()
    run_with(script)
    run_with(script)
    assert len({request.headers["idempotency-key"] for request in script.requests}) == 2


@pytest.mark.parametrize(("status", "error"), [(429, RateLimitedError), (503, UnavailableError)])
def test_retries_are_counted(
    run_with: Callable[..., Any], status: int, error: type[Exception]
) -> None:
    script = Script(*[status] * 10)
    with pytest.raises(error):
        run_with(script, retries=2)
    assert len(script.requests) == 3


def test_what_is_not_retryable_is_not_retried(run_with: Callable[..., Any]) -> None:
    script = Script(503, retryable=False)
    with pytest.raises(UnavailableError):
        run_with(script)
    assert len(script.requests) == 1


def test_a_wait_longer_than_the_call_may_take_is_not_begun(run_with: Callable[..., Any]) -> None:
    script = Script(429, retry_after="60")
    with pytest.raises(RateLimitedError) as caught:
        run_with(script, timeout_s=30.0)
    assert caught.value.retry_after_s == 60
    assert len(script.requests) == 1


@pytest.mark.parametrize("attempt", range(8))
def test_pauses_grow_but_not_without_end(attempt: int) -> None:
    delay = Backoff(retries=8).delay_s(attempt, None, remaining_s=60)
    assert delay is not None
    assert min(DELAY_S_MAX, 0.1 * 2**attempt) / 2 <= delay <= DELAY_S_MAX


def test_the_server_may_ask_for_a_longer_pause() -> None:
    assert Backoff(retries=1).delay_s(0, 7, remaining_s=60) == 7
    assert Backoff(retries=1).delay_s(0, 7, remaining_s=6) is None
    assert Backoff(retries=1).delay_s(1, None, remaining_s=60) is None
