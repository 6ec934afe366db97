"""Who reaches which tenant: every way to name one, with every kind of token, over every transport.

A crossing is a reply to whoever has only tokens of A that holds a word of B's, or changes B.
"""

from __future__ import annotations

import itertools
import json
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from dosql.replica.ltx import decode
from tests.support.server import ADMIN_TOKEN, ServerProcess

BASE_DOMAIN = "db.test"
SOURCES = list(itertools.product((None, "a", "b"), repeat=3))
PASSWORD = "correct horse battery"
WORDS = {"a": "word-of-a", "b": "word-of-b"}


@dataclass
class World:
    """A server with two tenants, and tokens of all kinds: name to text and where it belongs."""

    server: ServerProcess
    tokens: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    """Text of the token, and the only tenant it may reach; ``any`` for the admin."""


def make_world(server: ServerProcess) -> World:
    world = World(server, {"none": (None, None), "admin": (ADMIN_TOKEN, "any")})
    for name, word in WORDS.items():
        server.sql(name, "run", "CREATE TABLE words(word TEXT)")
        server.sql(name, "run", "INSERT INTO words VALUES (?)", [word])
        world.tokens[f"rw-{name}"] = server.new_token(name), name
        world.tokens[f"ro-{name}"] = server.new_token(name, "read-only"), name
        for role in ("admin", "user"):
            email = f"{role}@{word}.test"
            body = {"email": email, "name": word, "password": PASSWORD}
            reply = server.request("POST", "/auth/signup", json=body, token=None, tenant=name)
            sql = "UPDATE users SET role = ? WHERE email = ?"
            server.sql(name, "run", sql, [role, email])
            world.tokens[f"{role}-{name}"] = reply.json()["token"], name
    body = {"tenant": "a", "access": "read-write"}
    revoked = server.request("POST", "/admin/tokens", json=body).json()
    server.request("DELETE", f"/admin/tokens/{revoked['id']}")
    login = {"email": "user@word-of-a.test", "password": PASSWORD}
    ended = server.request("POST", "/auth/login", json=login, token=None, tenant="a").json()
    server.request("POST", "/auth/logout", token=ended["token"], tenant="a")
    expired = server.request("POST", "/admin/tokens", json={**body, "expiresIn": 1}).json()
    server.wait_for(
        lambda: (
            server.sql("a", "query", "SELECT 1", token=expired["token"]).code == "invalid_token"
        ),
        "the token to expire",
    )
    bad = {
        "revoked": revoked["token"],
        "ended": ended["token"],
        "expired": expired["token"],
        "forged-session": "dss_" + "A" * 43,
        "forged-token": "dsk_0123456789abcdef_" + "A" * 43,
        "session-as-token": "dsk_" + str(world.tokens["admin-a"][0])[4:],
        "altered": str(world.tokens["admin-a"][0])[:-2] + "__",
        "nonsense": "x",
    }
    world.tokens.update({name: (text, None) for name, text in bad.items()})
    return world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    data = tmp_path_factory.mktemp("matrix") / "data"
    server = ServerProcess(data, base_domain=BASE_DOMAIN, rate_limits="none")
    for name in WORDS:
        server.request("POST", "/admin/tenants", json={"name": name})
    yield make_world(server)
    server.kill()


@dataclass(frozen=True)
class Asked:
    """What came back."""

    status: int
    code: str | None
    body: bytes


Transport = Callable[[World, str, dict[str, str]], Asked]
"""Server, prefix of the path, headers."""


def http(method: str, path: str, body: object = None) -> Transport:
    def ask(world: World, prefix: str, headers: dict[str, str]) -> Asked:
        reply = world.server.request(method, prefix + path, json=body, token=None, headers=headers)
        return Asked(reply.status, reply.code, reply.body)

    return ask


def events(world: World, prefix: str, headers: dict[str, str]) -> Asked:
    """All that was captured so far, as events; ``follow=false`` ends the stream there."""
    path = f"{prefix}/changes?after=0&follow=false"
    reply = world.server.request(
        "GET", path, token=None, headers={**headers, "Accept": "text/event-stream"}
    )
    return Asked(reply.status, reply.code, reply.body)


def websocket(world: World, prefix: str, headers: dict[str, str]) -> Asked:
    """The same as messages."""
    url = world.server.url.replace("http", "ws", 1) + f"{prefix}/changes?after=0&follow=false"
    sent = {name: value for name, value in headers.items() if name != "Host"}
    if "Host" in headers:  # a client of its own mind about the name of the server
        port = world.server.url.rpartition(":")[2]
        url = (
            f"ws://{headers['Host'].partition(':')[0]}:{port}{prefix}/changes?after=0&follow=false"
        )
    try:
        with connect(
            url,
            additional_headers=sent,
            sock=_socket(world.server.url),
            proxy=None,
        ) as socket:
            return Asked(200, None, b"".join(str(each).encode() for each in socket))
    except InvalidStatus as error:
        body = bytes(error.response.body or b"")
        return Asked(error.response.status_code, json.loads(body)["code"], body)


def _socket(url: str) -> Any:
    import socket

    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)))


SQL_TRANSPORTS: dict[str, Transport] = {
    "query": http("POST", "/query", {"sql": "SELECT word FROM words"}),
    "transaction": http(
        "POST", "/transaction", {"operations": [{"type": "query", "sql": "SELECT * FROM words"}]}
    ),
    "changes": http("GET", "/changes?after=0&follow=false"),
    "events": events,
    "websocket": websocket,
}
APP_TRANSPORTS: dict[str, Transport] = {
    "me": http("GET", "/auth/me"),
    "users": http("GET", "/api/v1/users"),
}


def outcome(
    kind: str, owner: str | None, named: set[str], transport: str
) -> set[tuple[int, str | None]]:
    """What may be answered."""
    is_session = kind.split("-")[0] in ("user",) or kind in ("admin-a", "admin-b")
    if kind == "none":
        return {(401, "missing_token")}
    if owner is None and not kind.startswith(("forged-session", "ended", "altered")):
        return {(401, "invalid_token")}
    if len(named) > 1:
        return {(400, "tenant_conflict")}
    if not named:
        return {(400, "tenant_required")}
    if owner is None:
        return {(401, "invalid_token")}
    if owner not in ("any", *named):
        return {(401, "invalid_token")} if is_session else {(404, "tenant_not_found")}
    if transport == "me":
        return {(200, None)} if is_session else {(403, "session_required")}
    if kind.startswith("user-"):
        return {(403, "role_required")}
    return {(200, None)}


@pytest.mark.parametrize("transport", [*SQL_TRANSPORTS, *APP_TRANSPORTS])
def test_no_token_crosses_to_another_tenant(world: World, transport: str) -> None:
    """27 ways to name tenants, 18 tokens: the outcome of each is known, and no word crosses."""
    ask = {**SQL_TRANSPORTS, **APP_TRANSPORTS}[transport]
    crossings, cases = 0, 0
    for (path, header, label), (kind, (token, owner)) in itertools.product(
        SOURCES, world.tokens.items()
    ):
        headers = {"Host": f"{label}.{BASE_DOMAIN}:8787" if label else "127.0.0.1"}
        if header is not None:
            headers["X-Tenant-ID"] = header
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        asked = ask(world, f"/t/{path}" if path else "", headers)
        named = {name for name in (path, header, label) if name is not None}
        case = f"{transport}: {kind}, path={path} header={header} host={label}: {asked}"
        expected = outcome(kind, owner, named, transport)
        assert (asked.status, asked.code) in expected, case
        for tenant, word in WORDS.items():
            crossings += word.encode() in asked.body and owner not in ("any", tenant)
        cases += 1
    assert crossings == 0
    print(f"{transport}: {cases} cases, {crossings} crossings")


def test_no_token_but_the_admins_reaches_the_admins_routes(world: World) -> None:
    paths = (
        ("GET", "/admin/tenants"),
        ("GET", "/admin/tenants/a"),
        ("DELETE", "/admin/tenants/a"),
        ("POST", "/admin/tokens"),
        ("PUT", "/admin/tenants/a/users/1/role"),
        ("GET", "/admin/tenants/a/export"),
        ("GET", "/admin/migrations"),
        ("GET", "/metrics"),
        ("POST", "/rpc/room/x/y"),
        ("GET", "/objects/room/x/"),
    )
    for (method, path), (kind, (token, _)) in itertools.product(paths, world.tokens.items()):
        if kind == "admin":
            continue
        for prefix in ("", "/t/a"):
            reply = world.server.request(
                method, prefix + path, json={"role": "admin"}, token=token, tenant="a"
            )
            assert reply.status in (401, 403, 404), (method, path, kind, reply)
            assert not any(word.encode() in reply.body for word in WORDS.values())


def test_a_write_of_one_tenants_token_changes_nothing_of_another(world: World) -> None:
    """Whatever the token of A sends while it names B in some way, B stays as it is."""
    server = world.server
    before = server.sql("b", "query", "SELECT * FROM words").body
    for path, header, label in SOURCES:
        if "b" not in (path, header, label):
            continue
        headers = {"Host": f"{label}.{BASE_DOMAIN}" if label else "127.0.0.1"}
        for kind in ("rw-a", "admin-a", "user-a"):
            reply = server.request(
                "POST",
                f"/t/{path}/run" if path else "/run",
                json={"sql": "DELETE FROM words"},
                token=world.tokens[kind][0],
                headers=headers,
                tenant=header,
            )
            assert reply.status in (400, 401, 404)
    assert server.sql("b", "query", "SELECT * FROM words").body == before


NO_TRACE = {"base_domain": BASE_DOMAIN, "rate_limits": "none", "bucket": "none"}


# --- names that nobody has ------------------------------------------------------------------------


def names(count: int, seed: int) -> Iterator[str]:
    source = random.Random(seed)
    letters = string.ascii_lowercase + string.digits + "-_"
    for _ in range(count):
        length = source.randint(1, 62)
        yield source.choice(string.ascii_lowercase) + "".join(
            source.choice(letters) for _ in range(length)
        )


def files_of(server: ServerProcess) -> set[Path]:
    """Everything but the log, which is preallocated and rolls on."""
    return {path for path in server.data_dir.rglob("*") if "log" not in path.parts}


def resident_bytes(server: ServerProcess) -> int:
    return psutil.Process(server.process.pid).memory_info().rss


def descriptors(server: ServerProcess) -> int:
    return psutil.Process(server.process.pid).num_fds()


def ask_for_names(server: ServerProcess, token_of_a: str, count: int, seed: int) -> None:
    """By path, header and host in turn; with a token of another tenant, a session's, and none."""
    tokens = [token_of_a, "dss_" + "B" * 43, None]
    with httpx2.Client(base_url=server.url, timeout=30, trust_env=False) as client:
        for number, name in enumerate(names(count, seed)):
            token = tokens[number // 3 % 3]
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            prefix = ""
            if number % 3 == 0:
                prefix = f"/t/{name}"
            elif number % 3 == 1:
                headers["X-Tenant-ID"] = name
            else:
                headers["Host"] = f"{name}.{BASE_DOMAIN}"
            if token is None:
                body = {"email": "x@example.com", "password": "wrong password"}
                reply = client.post(f"{prefix}/auth/login", json=body, headers=headers)
                assert reply.status_code in (400, 404), reply.content
            else:
                body = {"sql": "SELECT 1"}
                reply = client.post(f"{prefix}/query", json=body, headers=headers)
                assert reply.status_code in (400, 401, 404), reply.content


def no_trace_of(server: ServerProcess, count: int) -> None:
    server.request("POST", "/admin/tenants", json={"name": "a"})
    token = server.new_token("a")
    ask_for_names(server, token, 1_000, seed=1)  # what is loaded once is loaded now
    files, memory, open_files = files_of(server), resident_bytes(server), descriptors(server)
    ask_for_names(server, token, count, seed=2)
    grown = resident_bytes(server) - memory
    assert files_of(server) == files
    assert grown < 20 * 1024 * 1024
    assert descriptors(server) < open_files + 50
    page = server.request("GET", "/admin/tenants").json()
    assert [each["name"] for each in page["tenants"]] == ["a"]
    print(f"{count} names: 0 files, {grown / 1024:.0f} KiB more memory")


def test_names_that_nobody_has_leave_no_trace(
    start_server: Callable[..., ServerProcess],
) -> None:
    no_trace_of(start_server(**NO_TRACE), 5_000)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_100_000_names_that_nobody_has_leave_no_trace(
    start_server: Callable[..., ServerProcess],
) -> None:
    no_trace_of(start_server(**NO_TRACE), 100_000)


# --- secrets --------------------------------------------------------------------------------------


def test_no_secret_is_found_anywhere_in_plain_text(
    start_server: Callable[..., ServerProcess],
) -> None:
    """A life of logins, right and wrong, with secrets that are looked for afterwards: in the log
    of the server, in every file of its data (databases, WAL, commit log, catalog), and in the
    pages of every LTX file in the bucket."""
    server = start_server(log_level="debug", rate_limits="none")
    server.request("POST", "/admin/tenants", json={"name": "a"})
    secrets = {
        "password": "canary-Passw0rd-one",
        "new password": "canary-Passw0rd-two",
        "wrong password": "canary-Passw0rd-bad",
    }
    email = "canary-address@example.com"

    def ask(path: str, body: object = None, token: str | None = None, method: str = "POST") -> Any:
        reply = server.request(method, path, json=body, token=token, tenant="a")
        return reply.json() if reply.body else None

    body = {"email": email, "name": "C", "password": secrets["password"]}
    secrets["first"] = ask("/auth/signup", body)["token"]
    ask("/auth/signup", body)
    login = {"email": email, "password": secrets["password"]}
    ask("/auth/login", {**login, "password": secrets["wrong password"]})
    ask("/auth/login", {**login, "extra": 1})
    server.request("POST", "/auth/login", content=json.dumps(login).encode()[:-1], tenant="a")
    secrets["second"] = ask("/auth/login", login)["token"]
    secrets["third"] = ask("/auth/refresh", token=secrets["second"])["token"]
    secrets["ticket"] = ask("/auth/ticket", token=secrets["third"])["ticket"]
    server.request("GET", f"/t/a/changes?ticket={secrets['ticket']}", token=None)
    server.request("GET", f"/nothing?token={secrets['third']}", token=None)
    change = {
        "currentPassword": secrets["password"],
        "newPassword": secrets["new password"],
    }
    secrets["fourth"] = ask("/auth/password", change, secrets["third"])["token"]
    ask("/auth/logout", token=secrets["third"])
    secrets["tenant token"] = server.new_token("a")
    secrets["admin token"] = ADMIN_TOKEN
    server.sql("a", "query", "SELECT 1", token=secrets["tenant token"])
    server.stop()

    assert email not in server.log_text
    places = {"log": server.log_text.encode()}
    places |= {
        str(path): path.read_bytes() for path in server.data_dir.rglob("*") if path.is_file()
    }
    places |= pages_of_ltx_files(server.data_dir)
    assert len([place for place in places if place.endswith("pages")]) > 0
    stored = b"".join(places.values())
    assert email.encode() in stored, "the search finds what is there"
    assert b"$argon2id$" in stored
    found = {
        (name, place)
        for name, secret in secrets.items()
        for place, content in places.items()
        if secret[-32:].encode() in content  # the random part, without prefix or id
    }
    assert found == set()


def pages_of_ltx_files(folder: Path) -> dict[str, bytes]:
    """Their pages, which are compressed in the files."""
    return {
        f"{path.name} pages": b"".join(decode(path.read_bytes()).pages.values())
        for path in folder.rglob("*.ltx")
    }
