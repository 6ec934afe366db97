"""Who may reach which tenant: the matrix over HTTP, the details on the gate itself."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dosql.errors import InvalidRequestError, NotFoundError
from server.gate import ADMIN, Gate, Principal
from tests.support.server import ServerProcess

BASE_DOMAIN = "db.test"


# --- the matrix over HTTP ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a base domain and two tenants, each holding its own name."""
    server = ServerProcess(tmp_path_factory.mktemp("gate") / "data", base_domain=BASE_DOMAIN)
    for name in ("a", "b"):
        server.sql(name, "run", "CREATE TABLE who(name TEXT)")
        server.sql(name, "run", "INSERT INTO who VALUES (?)", [name])
    yield server
    server.kill()


SOURCES = list(itertools.product((None, "a", "b"), repeat=3))


@pytest.mark.parametrize("token_of", [None, "admin", "a", "b"])
def test_no_combination_of_sources_lets_a_token_reach_another_tenant(
    guarded: ServerProcess, token_of: str | None
) -> None:
    """27 ways to name tenants by path, header and host; the outcome of each is known."""
    tokens = {None: None, "admin": guarded.admin_token}
    for name in ("a", "b"):
        tokens[name] = guarded.new_token(name)
    for path, header, label in SOURCES:
        headers = {"Host": f"{label}.{BASE_DOMAIN}:8787" if label else "127.0.0.1"}
        reply = guarded.request(
            "POST",
            f"/t/{path}/query" if path else "/query",
            json={"sql": "SELECT name FROM who"},
            token=tokens[token_of],
            headers=headers,
            tenant=header,
        )
        named = {name for name in (path, header, label) if name is not None}
        case = f"path={path} header={header} host={label} token={token_of}"
        if token_of is None:
            assert (reply.status, reply.code) == (401, "missing_token"), case
        elif len(named) > 1:
            assert (reply.status, reply.code) == (400, "tenant_conflict"), case
        elif not named:
            assert (reply.status, reply.code) == (400, "tenant_required"), case
        elif token_of in ("admin", *named):
            assert reply.json() == {"rows": [{"name": named.pop()}]}, case
        else:
            assert (reply.status, reply.code) == (404, "tenant_not_found"), case


def test_an_existing_tenant_of_somebody_else_looks_like_a_missing_one(
    guarded: ServerProcess,
) -> None:
    token = guarded.new_token("a")
    replies = [
        guarded.sql(name, "query", "SELECT 1 AS one", token=token) for name in ("b", "nobody")
    ]
    assert [each.status for each in replies] == [404, 404]
    texts = [each.json()["error"].replace("'b'", "X").replace("'nobody'", "X") for each in replies]
    assert texts[0] == texts[1]


def test_a_tenant_token_creates_no_tenant(guarded: ServerProcess) -> None:
    token = guarded.new_token("a")
    for number in range(20):
        reply = guarded.sql(f"made-up-{number}", "query", "SELECT 1 AS one", token=token)
        assert reply.code == "tenant_not_found"
    names = [each["name"] for each in guarded.request("GET", "/admin/tenants").json()["tenants"]]
    assert names == ["a", "b"]


def test_two_tenant_headers_are_a_conflict_even_if_equal(guarded: ServerProcess) -> None:
    import http.client

    host, port = guarded.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port))
    connection.putrequest("POST", "/query")
    for name, value in (
        ("Authorization", f"Bearer {guarded.admin_token}"),
        ("X-Tenant-ID", "a"),
        ("X-Tenant-ID", "a"),
        ("Content-Length", "2"),
    ):
        connection.putheader(name, value)
    connection.endheaders(b"{}")
    reply = connection.getresponse()
    body = reply.read()
    connection.close()
    assert reply.status == 400
    assert b"tenant_conflict" in body


def test_every_401_has_a_challenge_and_invalid_tokens_look_alike(guarded: ServerProcess) -> None:
    revoked = guarded.request(
        "POST", "/admin/tokens", json={"tenant": "a", "access": "read-write"}
    ).json()
    guarded.request("DELETE", f"/admin/tokens/{revoked['id']}")
    altered = guarded.new_token("a")[:-1] + "!"
    bodies = set()
    for token in (revoked["token"], altered, "nonsense", "dsk_0000000000000000_x", "ÿ"):
        headers = {"Authorization": f"Bearer {token}".encode("latin-1")}
        reply = guarded.request(
            "POST",
            "/query",
            json={"sql": "SELECT 1"},
            headers=headers,
            tenant="a",  # type: ignore[arg-type]
        )
        assert reply.status == 401
        assert reply.headers["www-authenticate"].startswith("Bearer")
        bodies.add((reply.json()["error"], reply.code))
    assert bodies == {("Invalid or expired token", "invalid_token")}


def test_seed_2_21_a_missing_or_other_scheme_is_a_missing_header(guarded: ServerProcess) -> None:
    for headers in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": ""}):
        reply = guarded.request(
            "POST", "/query", json={"sql": "SELECT 1"}, token=None, headers=headers, tenant="a"
        )
        assert reply.status == 401
        assert reply.json()["error"] == "Missing authorization header"
        assert reply.headers["www-authenticate"] == "Bearer"


def test_an_expired_token_is_invalid(guarded: ServerProcess) -> None:
    created = guarded.request(
        "POST", "/admin/tokens", json={"tenant": "a", "access": "read-write", "expiresIn": 1}
    ).json()
    token = created["token"]
    assert guarded.sql("a", "query", "SELECT 1 AS one", token=token).status == 200
    guarded.wait_for(
        lambda: guarded.sql("a", "query", "SELECT 1 AS one", token=token).code == "invalid_token",
        "the token to expire",
    )


def test_explicit_creation_needs_the_admin_route(start_server: type[ServerProcess]) -> None:
    server = start_server(tenant_creation="explicit")
    assert server.sql("acme", "query", "SELECT 1 AS one").code == "tenant_not_found"
    assert server.request("POST", "/admin/tenants", json={"name": "acme"}).status == 201
    assert server.sql("acme", "query", "SELECT 1 AS one").status == 200


def test_a_default_tenant_serves_requests_that_name_none(
    start_server: type[ServerProcess],
) -> None:
    server = start_server(default_tenant="main")
    assert server.request("POST", "/query", json={"sql": "SELECT 1 AS one"}).status == 200
    names = [each["name"] for each in server.request("GET", "/admin/tenants").json()["tenants"]]
    assert names == ["main"]


# --- the gate itself --------------------------------------------------------------------------


class NoTokens:
    def check(self, token: str, /) -> None:
        return None


class Names:
    """Tenants that are their own names; it keeps what was asked for and made."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)
        self.made: list[str] = []

    def get(self, name: str, /) -> str:
        if name not in self.names:
            raise NotFoundError("no", code="tenant_not_found")
        return name

    async def ensure(self, name: str, /) -> str:
        self.made.append(name)
        return name


def gate(tenants: Names | None = None, **options: object) -> Gate[str]:
    settings = {"base_domain": "example.com", **options}
    return Gate(
        admin_token="secret", tokens=NoTokens(), tenants=tenants or Names("acme"), **settings
    )  # type: ignore[arg-type]


HOSTS = [
    ("acme.example.com", "acme"),
    ("ACME.Example.COM", "acme"),
    ("acme.example.com:8787", "acme"),
    ("acme.example.com.", "acme"),
    ("acme.example.com.:80", "acme"),
    ("example.com", None),
    (".example.com", None),
    ("www.example.com", None),
    ("api.example.com", None),
    ("admin.example.com", None),
    ("a.b.example.com", None),
    ("acme.example.com.evil.test", None),
    ("acmeexample.com", None),
    ("evilexample.com", None),
    ("acme.example.org", None),
    ("localhost:8787", None),
    ("127.0.0.1", None),
    ("[::1]:8787", None),
    ("[::1%25acme.example.com]", None),
    ("", None),
]


@pytest.mark.parametrize(("host", "tenant"), HOSTS)
def test_exactly_one_label_below_the_base_domain_names_a_tenant(
    host: str, tenant: str | None
) -> None:
    headers = {b"host": host.encode()}
    if tenant is None:
        with pytest.raises(InvalidRequestError) as caught:
            gate().tenant_name(headers, None)
        assert caught.value.code == "tenant_required"
    else:
        assert gate().tenant_name(headers, None) == tenant


def test_without_a_base_domain_the_host_means_nothing() -> None:
    headers = {b"host": b"acme.example.com", b"x-forwarded-host": b"other.example.com"}
    assert gate(base_domain=None).tenant_name(headers, "mine") == "mine"


NAMES = ["", "ACME", "a b", "../x", "a/b", "é", "-a", "_a", "a" * 64, "admin", "v1", "\0", "a\n"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("principal", [ADMIN, Principal("tenant", "acme")])
async def test_a_bad_name_is_said_to_be_bad_and_nothing_is_made(
    name: str, principal: Principal
) -> None:
    tenants = Names("acme")
    with pytest.raises(InvalidRequestError) as caught:
        await gate(tenants).tenant(principal, {b"x-tenant-id": name.encode("utf-8")}, None)
    assert caught.value.code == "invalid_tenant_name"
    assert tenants.made == []


async def test_the_admin_token_makes_a_tenant_at_its_first_use() -> None:
    tenants = Names()
    assert await gate(tenants).tenant(ADMIN, {}, "acme") == "acme"
    assert tenants.made == ["acme"]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_not_case_sensitive(scheme: str) -> None:
    headers = {b"authorization": f"{scheme}  secret ".encode()}
    assert gate().authenticate(headers) is ADMIN


@given(st.binary(max_size=80), st.binary(max_size=40), st.text(max_size=20) | st.none())
def test_no_host_and_no_header_makes_the_gate_fail_in_an_unforeseen_way(
    host: bytes, header: bytes, path: str | None
) -> None:
    sent = header.decode("latin-1").strip(" \t")
    with contextlib.suppress(InvalidRequestError):
        assert gate().tenant_name({b"host": host, b"x-tenant-id": header}, path) == sent
