"""Cancel safety: whenever a client goes away, its write was applied once or not at all, and its
idempotency key tells which.

Real connections to a real server, cut at random moments: before the body, in it, while the request
waits for its turn, while the statement runs, while the disk is waited for, in the reply.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import struct
from collections import Counter
from collections.abc import Callable
from socket import SO_LINGER, SOL_SOCKET

from tests.support.server import ServerProcess

ROUNDS = int(os.environ.get("DOSQL_TEST_CANCEL_ROUNDS", "300"))
"""5,000 in the nightly run."""
AT_ONCE = 12
SLOW_SYNCS = """
import os, time
_sync = os.fdatasync
def slow(fd):
    time.sleep(0.01)  # so that there are moments in which a write waits for the disk
    return _sync(fd)
os.fdatasync = slow
"""
INSERT = "INSERT INTO writes (key) VALUES (?)"
SLOW_INSERT = (
    "INSERT INTO writes (key) SELECT ? FROM (WITH RECURSIVE n(i) AS"
    " (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000) SELECT count(*) FROM n)"
)
"""Outlasts its inline budget now and then: it goes on in a thread, whoever waits for it."""


def request_of(server: ServerProcess, tenant: str, key: str, kind: str) -> bytes:
    """The write of ``key``, by one of the ways in which writes come."""
    path, body = "/run", {"sql": INSERT, "params": [key]}
    if kind == "slow":
        body["sql"] = SLOW_INSERT
    elif kind == "batch":
        first = {"type": "run", "sql": INSERT, "params": [key]}
        second = {"type": "query", "sql": "SELECT count(*) AS n FROM writes", "params": []}
        path, body = "/transaction", {"operations": [first, second]}
    elif kind == "returning":
        path, body = "/query", {"sql": INSERT + " RETURNING key", "params": [key]}
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nX-Tenant-ID: {tenant}\r\nIdempotency-Key: {key}\r\n"
        f"Authorization: Bearer {server.admin_token}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def cut(server: ServerProcess, request: bytes, chance: random.Random) -> str:
    """Send the request, or a part of it, and go away; at which moment."""
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = request.index(b"\r\n\r\n") + 4
    moment = chance.choice(["head", "before body", "body", "at once", "soon", "reply", "end"])
    sent = {"head": chance.randrange(1, head), "before body": head}.get(moment, len(request))
    if moment == "body":
        sent = chance.randrange(head + 1, len(request))
    writer.write(request[:sent])
    await writer.drain()
    if moment == "soon":
        await asyncio.sleep(chance.uniform(0, 0.06))
    elif moment == "reply":
        await reader.readexactly(chance.randrange(1, 200))
    elif moment == "end":
        await reader.readuntil(b"\r\n\r\n")
    if chance.random() < 0.5:  # with a reset rather than an orderly end
        sock = writer.get_extra_info("socket")
        sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return moment


async def test_whenever_a_client_goes_away_its_write_is_applied_once_or_not_at_all(
    start_server: Callable[..., ServerProcess],
) -> None:
    """And a reply that began was for a write that is there. The replay makes it once for good."""
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    server = start_server(prelude=SLOW_SYNCS)
    tenant = server.new_tenant()
    # No constraint on the key: what is applied twice is there twice.
    assert server.sql(tenant, "run", "CREATE TABLE writes (key TEXT)").status == 200
    keys = [f"key-{number}" for number in range(ROUNDS)]
    kinds = {key: chance.choice(["run", "slow", "batch", "returning"]) for key in keys}
    requests = {key: request_of(server, tenant, key, kinds[key]) for key in keys}
    moments: dict[str, str] = {}
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(key: str) -> None:
        async with limit:
            moments[key] = await cut(server, requests[key], random.Random(f"{seed}/{key}"))

    await asyncio.gather(*(one(key) for key in keys))
    applied = await settled(server, tenant)
    print(f"seed {seed}: {dict(Counter(moments.values()))}, {len(applied)} of {ROUNDS} applied")
    assert set(applied.values()) <= {1}, f"seed {seed}: applied twice"
    for key, moment in moments.items():
        if moment in ("head", "before body", "body"):
            assert key not in applied, f"seed {seed}: half a request was applied"
        if moment in ("reply", "end"):
            assert key in applied, f"seed {seed}: an answered write is not there"
    for key in keys:
        again = await replay(server, requests[key])
        assert b"HTTP/1.1 200 OK" in again, f"seed {seed}: {again!r}"
        assert (b"idempotent-replayed: true" in again) == (key in applied), f"seed {seed}: {key}"
    assert await settled(server, tenant) == dict.fromkeys(keys, 1)


async def test_a_crash_between_the_write_and_its_reply_leaves_it_whole_or_not_at_all(
    start_server: Callable[..., ServerProcess],
) -> None:
    """The same with a killed server: what was answered is there; the key tells the rest."""
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    server = start_server(prelude=SLOW_SYNCS)
    tenant = server.new_tenant()
    assert server.sql(tenant, "run", "CREATE TABLE writes (key TEXT)").status == 200
    keys = [f"key-{number}" for number in range(40)]
    answered: set[str] = set()
    wanted, reached = chance.randrange(1, 30), asyncio.Event()
    limit = asyncio.Semaphore(4)

    async def one(key: str) -> None:
        async with limit:
            try:
                reply = await replay(server, request_of(server, tenant, key, "batch"))
            except (ConnectionError, asyncio.IncompleteReadError):
                return
            if b"HTTP/1.1 200 OK" in reply:
                answered.add(key)
            if len(answered) >= wanted:
                reached.set()

    writing = [asyncio.ensure_future(one(key)) for key in keys]
    await reached.wait()
    server.kill()
    await asyncio.gather(*writing)
    server.restart()
    applied = await settled(server, tenant)
    print(f"seed {seed}: {len(answered)} answered, {len(applied)} applied")
    assert set(applied.values()) <= {1}
    assert answered <= applied.keys()
    for key in keys:
        again = await replay(server, request_of(server, tenant, key, "batch"))
        assert (b"idempotent-replayed: true" in again) == (key in applied), f"seed {seed}: {key}"
    assert await settled(server, tenant) == dict.fromkeys(keys, 1)


async def replay(server: ServerProcess, request: bytes) -> bytes:
    """Send the whole request, and return its reply."""
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    try:
        reply = await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.transport.abort()
    return reply


async def settled(server: ServerProcess, tenant: str) -> dict[str, int]:
    """How often each write is there, once nothing more comes: a write whose client is gone may
    still be under way."""
    before: dict[str, int] | None = None
    while True:
        reply = await asyncio.to_thread(counts, server, tenant)
        if reply == before:
            return reply
        before = reply
        await asyncio.sleep(0.3)


def counts(server: ServerProcess, tenant: str) -> dict[str, int]:
    """By key the number of its rows."""
    sql = "SELECT key, count(*) AS n FROM writes GROUP BY key"
    reply = server.sql(tenant, "query", sql)
    assert reply.status == 200, reply.body
    return {row["key"]: row["n"] for row in reply.json()["rows"]}
