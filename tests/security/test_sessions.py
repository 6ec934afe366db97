"""Users and their sessions, against a real server. What depends on time is in tests/host."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from dosql.client import Client
from dosql.errors import AuthenticationError, ConflictError
from dosql.limits import SESSION_CHECK_S_MAX, SESSION_SWEEP_S
from tests.support.server import Reply, ServerProcess

PASSWORD = "correct horse battery"
ROWS = {"sql": "SELECT 1 AS one"}
UNLIMITED = "none"


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that counts no requests: these tests send more than a client may."""
    data = tmp_path_factory.mktemp("sessions") / "data"
    server = ServerProcess(data, rate_limits=UNLIMITED, cors_origins=("https://app.test",))
    yield server
    server.kill()


class Tenant:
    """A tenant of a test's own, and its users."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.name = server.new_tenant()

    def ask(self, method: str, path: str, token: str | None = None, body: object = None) -> Reply:
        return self.server.request(method, path, json=body, token=token, tenant=self.name)

    def sign_up(self, email: str = "ada@example.com", password: str = PASSWORD) -> Any:
        body = {"email": email, "name": "Ada", "password": password}
        reply = self.ask("POST", "/auth/signup", body=body)
        assert reply.status == 201, reply.body
        return reply.json()

    def log_in(self, email: str = "ada@example.com", password: str = PASSWORD) -> Reply:
        return self.ask("POST", "/auth/login", body={"email": email, "password": password})

    def admin(self) -> str:
        """The token of a user who is an admin."""
        user = self.sign_up("root@example.com")["user"]
        path = f"/admin/tenants/{self.name}/users/{user['id']}/role"
        assert self.server.request("PUT", path, json={"role": "admin"}).status == 200
        return str(self.log_in("root@example.com").json()["token"])

    def is_valid(self, token: str) -> bool:
        reply = self.ask("GET", "/auth/me", token)
        assert (reply.status, reply.code) in ((200, None), (401, "invalid_token"))
        return reply.status == 200


@pytest.fixture
def tenant(busy: ServerProcess) -> Tenant:
    return Tenant(busy)


# --- the flow ---------------------------------------------------------------------------------


def test_a_user_signs_up_logs_in_and_is_told_who_it_is(tenant: Tenant) -> None:
    user = tenant.sign_up("Ada@Example.COM")["user"]
    assert user == {"id": 1, "name": "Ada", "email": "ada@example.com", "role": "user"}
    session = tenant.log_in("ADA@example.com").json()
    assert session["user"] == user
    assert session["token"].startswith("dss_")
    assert len(session["token"]) == 4 + 43
    me = tenant.ask("GET", "/auth/me", session["token"]).json()
    assert me == {"user": user, "expiresAt": session["expiresAt"]}


def test_the_routes_exist_below_the_path_of_a_tenant_too(tenant: Tenant) -> None:
    token = tenant.sign_up()["token"]
    path = f"/t/{tenant.name}/auth/me"
    assert tenant.server.request("GET", path, token=token).status == 200


def test_a_refresh_gives_another_token_and_the_old_one_is_dead_at_once(tenant: Tenant) -> None:
    old = tenant.sign_up()["token"]
    assert tenant.is_valid(old)
    new = tenant.ask("POST", "/auth/refresh", old).json()["token"]
    assert new != old
    assert not tenant.is_valid(old)
    assert tenant.is_valid(new)


def test_of_many_refreshes_at_once_one_succeeds(tenant: Tenant) -> None:
    token = tenant.sign_up()["token"]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: tenant.ask("POST", "/auth/refresh", token), range(16)))
    assert sorted(reply.status for reply in replies) == [200] + [401] * 15


def test_a_logout_ends_this_session_and_no_other(tenant: Tenant) -> None:
    first, second = tenant.sign_up()["token"], tenant.log_in().json()["token"]
    assert tenant.ask("POST", "/auth/logout", first).status == 204
    assert not tenant.is_valid(first)
    assert tenant.is_valid(second)


def test_a_new_password_ends_all_sessions_but_the_new_one(tenant: Tenant) -> None:
    first, second = tenant.sign_up()["token"], tenant.log_in().json()["token"]
    body = {"currentPassword": PASSWORD, "newPassword": "something else"}
    third = tenant.ask("POST", "/auth/password", first, body).json()["token"]
    assert [tenant.is_valid(each) for each in (first, second, third)] == [False, False, True]
    assert tenant.log_in().code == "invalid_credentials"
    assert tenant.log_in(password="something else").status == 200


def test_a_session_outlives_a_restart_and_a_revoked_one_does_not(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server()
    tenant = Tenant(server)
    kept, ended = tenant.sign_up()["token"], tenant.log_in().json()["token"]
    assert tenant.ask("POST", "/auth/logout", ended).status == 204
    server.kill()
    server.restart()
    assert tenant.is_valid(kept)
    assert not tenant.is_valid(ended)


REVOCATIONS = {
    "the user is deleted": "DELETE FROM users",
    "another user takes the address": (
        "INSERT OR REPLACE INTO users(name, email) VALUES ('Eve', 'ada@example.com')"
    ),
}


@pytest.mark.parametrize("sql", REVOCATIONS.values(), ids=REVOCATIONS.keys())
def test_plain_sql_that_ends_a_session_is_seen_by_the_next_request(
    tenant: Tenant, sql: str
) -> None:
    """Nothing is remembered across a commit, whoever made it."""
    token = tenant.sign_up()["token"]
    server = tenant.server
    assert tenant.is_valid(token)
    assert tenant.is_valid(token)
    assert server.sql(tenant.name, "run", sql).status == 200
    assert not tenant.is_valid(token)


def test_a_role_given_by_sql_counts_at_the_next_request(tenant: Tenant) -> None:
    token = tenant.sign_up()["token"]
    assert tenant.ask("POST", "/query", token, ROWS).code == "role_required"
    tenant.server.sql(tenant.name, "run", "UPDATE users SET role = 'admin'")
    assert tenant.ask("POST", "/query", token, ROWS).status == 200
    tenant.server.sql(tenant.name, "run", "UPDATE users SET role = 'user'")
    assert tenant.ask("POST", "/query", token, ROWS).code == "role_required"


def test_a_deleted_tenant_has_no_sessions_nor_has_its_successor(tenant: Tenant) -> None:
    token = tenant.sign_up()["token"]
    assert tenant.is_valid(token)
    assert tenant.server.request("DELETE", f"/admin/tenants/{tenant.name}").status == 204
    assert not tenant.is_valid(token)
    tenant.server.request("POST", "/admin/tenants", json={"name": tenant.name})
    assert not tenant.is_valid(token)


def test_a_restore_in_place_revives_no_session(tenant: Tenant) -> None:
    """Neither one that was ended since, nor any other."""
    ended, kept = tenant.sign_up()["token"], tenant.log_in().json()["token"]
    server, path = tenant.server, f"/admin/tenants/{tenant.name}"
    at = server.request("POST", f"{path}/snapshots").json()["bookmark"]
    tenant.ask("POST", "/auth/logout", ended)
    done = server.request("POST", f"{path}/restore", json={"at": at})
    assert done.status == 200
    assert not tenant.is_valid(ended)
    assert not tenant.is_valid(kept)
    undo = {"at": done.json()["undoBookmark"]}
    assert server.request("POST", f"{path}/restore", json=undo).status == 200
    assert not tenant.is_valid(ended)
    assert tenant.log_in().status == 200


def test_a_copy_of_a_tenant_has_its_users_and_none_of_its_sessions(tenant: Tenant) -> None:
    token = tenant.sign_up()["token"]
    server, path = tenant.server, f"/admin/tenants/{tenant.name}"
    names = [f"{tenant.name}-{kind}" for kind in ("branch", "past", "import")]
    at = server.request("POST", f"{path}/snapshots").json()["bookmark"]
    assert server.request("POST", f"{path}/branches", json={"name": names[0]}).status == 201
    to = {"at": at, "to": names[1]}
    assert server.request("POST", f"{path}/restore", json=to).status == 200
    file = server.request("GET", f"{path}/export").body
    reply = server.request("PUT", f"/admin/tenants/{names[2]}/import", content=file)
    assert reply.status == 201, reply.body
    assert tenant.is_valid(token)
    for name in names:
        assert server.request("GET", "/auth/me", token=token, tenant=name).code == "invalid_token"
        login = {"email": "ada@example.com", "password": PASSWORD}
        reply = server.request("POST", "/auth/login", json=login, token=None, tenant=name)
        assert reply.status == 200


def test_a_session_may_hold_a_transaction_open_and_go_on_in_it(tenant: Tenant) -> None:
    """The check of its own next request must not wait for its own transaction."""
    token = tenant.admin()
    begun = tenant.ask("POST", "/transactions", token).json()["id"]
    sql = {"sql": "UPDATE users SET bio = 'x'"}
    started = time.monotonic()
    for _ in range(3):
        assert tenant.ask("POST", f"/transactions/{begun}/run", token, sql).status == 200
    assert tenant.ask("POST", f"/transactions/{begun}/commit", token).status == 200
    assert time.monotonic() - started < 4  # less than the idle limit of transactions


# --- seed rows --------------------------------------------------------------------------------


def test_seed_2_21_no_or_another_scheme_is_a_missing_header(tenant: Tenant) -> None:
    for headers in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer"}):
        reply = tenant.server.request(
            "GET", "/auth/me", token=None, tenant=tenant.name, headers=headers
        )
        assert reply.status == 401
        assert reply.headers["www-authenticate"].startswith("Bearer")
    reply = tenant.ask("GET", "/auth/me")
    assert reply.json()["error"] == "Missing authorization header"


def test_seed_2_22_and_2_23_all_tokens_that_are_none_look_alike(tenant: Tenant) -> None:
    """Absent, expired, revoked, of a user that is gone: one message."""
    ended, orphan = tenant.sign_up()["token"], tenant.sign_up("eve@example.com")["token"]
    tenant.ask("POST", "/auth/logout", ended)
    tenant.server.sql(tenant.name, "run", "DELETE FROM users WHERE email = 'eve@example.com'")
    forged = "dss_" + "A" * 43
    replies = [tenant.ask("GET", "/auth/me", each) for each in (ended, orphan, forged, "dss_")]
    assert {(r.status, r.json()["error"], r.code) for r in replies} == {
        (401, "Invalid or expired token", "invalid_token")
    }
    assert {r.headers["www-authenticate"] for r in replies} == {'Bearer error="invalid_token"'}


def test_seed_2_24_a_role_that_a_route_requires_is_named(tenant: Tenant) -> None:
    reply = tenant.ask("GET", "/api/v1/users", tenant.sign_up()["token"])
    assert (reply.status, reply.code) == (403, "role_required")
    assert reply.json()["error"] == "Requires one of roles: admin"


def test_seed_2_27_what_cannot_be_a_user_is_refused(tenant: Tenant) -> None:
    good = {"email": "a@example.com", "name": "A", "password": PASSWORD}
    for change, error, code in (
        ({"name": "  "}, "Name required", "invalid_name"),
        ({"name": "x" * 101}, None, "invalid_name"),
        ({"email": "nobody"}, "Valid email required", "invalid_email"),
        ({"email": "a b@example.com"}, "Valid email required", "invalid_email"),
        ({"email": "a@" + "x" * 250 + ".com"}, "Valid email required", "invalid_email"),
        ({"password": "seven77"}, None, "invalid_password"),
        ({"password": "x" * 1025}, None, "invalid_password"),
        ({"role": "admin"}, None, "invalid_request"),
    ):
        reply = tenant.ask("POST", "/auth/signup", body={**good, **change})
        assert (reply.status, reply.code) == (400, code), change
        assert error is None or reply.json()["error"] == error
    assert tenant.server.sql(tenant.name, "query", "SELECT * FROM users").json() == {"rows": []}


def test_seed_2_28_and_2_36_users_are_listed_newest_first_page_by_page(tenant: Tenant) -> None:
    token = tenant.admin()
    insert = "INSERT INTO users(name, email, created_at) VALUES (?, ?, 5)"
    operations = [
        {"type": "run", "sql": insert, "params": [f"U_{n}%", f"u{n}@example.com"]}
        for n in range(119)
    ]
    tenant.ask("POST", "/transaction", token, {"operations": operations})
    page = tenant.ask("GET", "/api/v1/users", token).json()
    assert [row["id"] for row in page["data"]][:3] == [1, 120, 119]
    assert page["pagination"] == {"total": 120, "limit": 20, "offset": 0, "cursor": "5-102"}
    assert set(page["data"][0]) == {
        "id", "name", "email", "bio", "role", "createdAt", "updatedAt"
    }  # fmt: skip
    capped = tenant.ask("GET", "/api/v1/users?limit=500&offset=110", token).json()
    assert (len(capped["data"]), capped["pagination"]["limit"]) == (10, 100)
    found = tenant.ask("GET", "/api/v1/users?search=u_11%25", token).json()
    assert [row["name"] for row in found["data"]] == ["U_11%"]
    seen: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        more = f"&cursor={cursor}" if cursor else ""
        page = tenant.ask("GET", f"/api/v1/users?limit=50{more}", token).json()
        seen += [row["id"] for row in page["data"]]
        cursor = page["pagination"]["cursor"]
    assert seen == [1, *range(120, 1, -1)]
    for query in ("limit=x", "limit=-1", "limit=0", "offset=-1", "cursor=x", "limit=12abc"):
        assert tenant.ask("GET", f"/api/v1/users?{query}", token).status == 400, query


def test_seed_2_36_nobody_lists_users_without_a_token(tenant: Tenant) -> None:
    assert tenant.ask("GET", "/api/v1/users").code == "missing_token"
    read_only = tenant.server.new_token(tenant.name, "read-only")
    assert tenant.ask("GET", "/api/v1/users", read_only).status == 200


# --- guessing ---------------------------------------------------------------------------------


def test_every_failed_login_has_one_answer(tenant: Tenant) -> None:
    tenant.sign_up()
    tenant.server.sql(
        tenant.name, "run", "INSERT INTO users(name, email) VALUES ('x', 'none@example.com')"
    )
    replies = [
        tenant.log_in(password="wrong password"),
        tenant.log_in("nobody@example.com"),
        tenant.log_in("none@example.com"),
        tenant.log_in("no address"),
        tenant.log_in(password=""),
        tenant.log_in(password="x" * 5000),
    ]
    assert {(r.status, r.json()["error"], r.code) for r in replies} == {
        (401, "Invalid email or password", "invalid_credentials")
    }
    assert {r.headers["www-authenticate"] for r in replies} == {"Bearer"}
    assert len({len(r.body) for r in replies}) == 1


def test_the_time_of_a_failed_login_does_not_tell_who_is_a_user(busy: ServerProcess) -> None:
    """Medians of logins that take turns; without the dummy hash one side would take no time."""
    tenants = [Tenant(busy) for _ in range(8)]  # five attempts each are free
    for tenant in tenants:
        tenant.sign_up()
    seconds: dict[str, list[float]] = {"ada@example.com": [], "nobody@example.com": []}
    for tenant in tenants:
        for _ in range(4):
            for email, taken in seconds.items():
                started = time.perf_counter()
                assert tenant.log_in(email, "wrong password").code == "invalid_credentials"
                taken.append(time.perf_counter() - started)
    known, unknown = (statistics.median(each) for each in seconds.values())
    assert 0.5 < known / unknown < 2


def test_guessing_is_slowed_down_per_account_and_the_owner_elsewhere_is_not(
    tenant: Tenant,
) -> None:
    tenant.sign_up()
    started = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: tenant.log_in(password="wrong one"), range(60)))
    seconds = int(time.monotonic() - started) + 1
    tried = [reply for reply in replies if reply.status == 401]
    refused = [reply for reply in replies if reply.status == 429]
    assert len(tried) + len(refused) == 60
    assert 5 <= len(tried) <= 5 + seconds.bit_length()  # five are free, then 1, 2, 4... s apart
    assert {reply.code for reply in refused} == {"too_many_attempts"}
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
    while int(tenant.log_in(password="wrong one").headers.get("retry-after", 0)) < 4:
        pass
    assert tenant.log_in().status == 429  # the right password as well: nothing is learned
    assert tenant.log_in("eve@example.com").status == 401  # another account


def test_a_client_that_chooses_its_token_does_not_get_a_session(tenant: Tenant) -> None:
    wanted = "dss_" + "Z" * 43
    tenant.sign_up()
    reply = tenant.server.request(
        "POST",
        "/auth/login",
        json={"email": "ada@example.com", "password": PASSWORD},
        token=wanted,
        tenant=tenant.name,
    )
    assert reply.json()["token"] != wanted
    assert not tenant.is_valid(wanted)


def test_an_address_is_one_user_in_whatever_way_it_is_written(tenant: Tenant) -> None:
    tenant.sign_up("ada@example.com")
    for email in ("ADA@example.com", " ada@Example.com ", "ａda@example.com"):
        body = {"email": email, "name": "Ada", "password": PASSWORD}
        reply = tenant.ask("POST", "/auth/signup", body=body)
        assert (reply.status, reply.code) == (409, "email_taken"), email
        assert reply.json()["error"] == "Email already exists"


def test_a_password_is_the_same_in_whatever_way_it_is_typed(tenant: Tenant) -> None:
    tenant.sign_up(password="ﬁancé-Å-12")
    assert tenant.log_in(password="fiance\u0301-A\u030a-12").status == 200


def test_hashes_are_argon2id_and_those_of_older_parameters_are_renewed(tenant: Tenant) -> None:
    from argon2 import PasswordHasher

    tenant.sign_up()
    find = "SELECT password_hash FROM users WHERE email = 'ada@example.com'"

    def stored() -> str:
        return str(tenant.server.sql(tenant.name, "queryOne", find).json()["row"]["password_hash"])

    assert stored().startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    old = PasswordHasher(1, 1024, 1).hash(PASSWORD)
    tenant.server.sql(tenant.name, "run", "UPDATE users SET password_hash = ?", [old])
    assert tenant.log_in().status == 200
    assert stored().startswith("$argon2id$v=19$m=19456,t=2,p=1$")


@pytest.mark.parametrize(
    "planted",
    ["$argon2id$v=19$m=4194304,t=99,p=8$c2FsdHNhbHQ$aGFzaGhhc2g", "$2b$12$abc", "x", ""],
)
def test_a_hash_that_a_tenant_planted_costs_no_more_than_ours(tenant: Tenant, planted: str) -> None:
    """The first would take 4 GiB."""
    tenant.sign_up()
    tenant.server.sql(tenant.name, "run", "UPDATE users SET password_hash = ?", [planted])
    assert tenant.log_in().code == "invalid_credentials"


def test_logins_beyond_the_queue_are_told_to_come_back(tenant: Tenant) -> None:
    """A hundred at once, of users of their own: each gets an answer, none waits for long."""

    def sign_up(number: int) -> Reply:
        body = {"email": f"u{number}@example.com", "name": "U", "password": PASSWORD}
        with httpx2.Client(timeout=30, trust_env=False) as http:
            url = f"{tenant.server.url}/t/{tenant.name}/auth/signup"
            reply = http.post(url, json=body)
        return Reply(reply.status_code, reply.headers, reply.content)

    with ThreadPoolExecutor(100) as pool:
        replies = list(pool.map(sign_up, range(100)))
    statuses = {reply.status for reply in replies}
    assert 201 in statuses
    assert statuses <= {201, 503}
    for reply in replies:
        if reply.status == 503:
            assert (reply.code, reply.headers["retry-after"]) == ("login_overloaded", "1")


# --- streams ----------------------------------------------------------------------------------


def address(tenant: Tenant, query: str = "") -> str:
    return f"{tenant.server.url.replace('http', 'ws', 1)}/t/{tenant.name}/changes{query}"


def ticket_of(tenant: Tenant, token: str) -> str:
    reply = tenant.ask("POST", "/auth/ticket", token)
    assert reply.status == 201
    return str(reply.json()["ticket"])


def test_a_websocket_is_let_in_by_header_subprotocol_or_ticket(tenant: Tenant) -> None:
    token = tenant.admin()
    headers = {"Authorization": f"Bearer {token}"}
    with connect(address(tenant), additional_headers=headers, proxy=None):
        pass
    protocols = [Subprotocol("dosql"), Subprotocol(f"dosql.bearer.{token}")]
    with connect(address(tenant), subprotocols=protocols, proxy=None) as socket:
        assert socket.subprotocol == "dosql"
    query = f"?ticket={ticket_of(tenant, token)}"
    with connect(address(tenant, query), proxy=None):
        pass
    with pytest.raises(InvalidStatus) as caught:  # a ticket is good for once
        connect(address(tenant, query), proxy=None)
    assert caught.value.response.status_code == 401


def test_a_websocket_is_refused_before_it_is_accepted(tenant: Tenant) -> None:
    user = tenant.sign_up()["token"]
    other = Tenant(tenant.server)
    stranger = other.admin()
    for credentials, query, status in (
        ({}, "", 401),
        ({"Authorization": "Bearer dss_" + "A" * 43}, "", 401),
        ({"Authorization": f"Bearer {user}"}, "", 403),
        ({"Authorization": f"Bearer {stranger}"}, "", 401),
        ({}, f"?ticket={ticket_of(other, stranger)}", 401),
        ({}, f"?ticket={ticket_of(tenant, user)}", 403),
        ({}, f"?token={tenant.server.admin_token}", 401),
    ):
        with pytest.raises(InvalidStatus) as caught:
            connect(address(tenant, query), additional_headers=credentials, proxy=None)
        assert caught.value.response.status_code == status, (credentials, query)


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://app.test", True),
        ("https://evil.test", False),
        ("null", False),
        ("https://app.test.evil.test", False),
        ("http://app.test", False),
    ],
)
def test_a_page_opens_a_websocket_only_if_its_origin_is_listed(
    tenant: Tenant, origin: str, allowed: bool
) -> None:
    headers = {"Authorization": f"Bearer {tenant.server.admin_token}"}

    def open_it() -> None:
        with connect(
            address(tenant), additional_headers=headers, origin=Origin(origin), proxy=None
        ):
            pass

    if allowed:
        open_it()
        return
    with pytest.raises(InvalidStatus) as caught:
        open_it()
    assert caught.value.response.status_code == 403
    assert json.loads(caught.value.response.body)["code"] == "origin_not_allowed"


END_BY: dict[str, Callable[[Tenant, str], object]] = {
    "logout": lambda tenant, token: tenant.ask("POST", "/auth/logout", token),
    "refresh": lambda tenant, token: tenant.ask("POST", "/auth/refresh", token),
    "role": lambda tenant, _: tenant.server.sql(
        tenant.name, "run", "UPDATE users SET role = 'user'"
    ),
    "user": lambda tenant, _: tenant.server.sql(tenant.name, "run", "DELETE FROM users"),
}


@pytest.mark.parametrize("end", END_BY.values(), ids=END_BY.keys())
def test_an_open_websocket_is_closed_within_5_s_of_the_end_of_its_session(
    tenant: Tenant, end: Callable[[Tenant, str], object]
) -> None:
    assert SESSION_SWEEP_S + SESSION_CHECK_S_MAX <= 5  # of a server that is given its time
    token = tenant.admin()
    headers = {"Authorization": f"Bearer {token}"}
    with connect(address(tenant), additional_headers=headers, proxy=None) as socket:
        end(tenant, token)
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                socket.recv(timeout=60)  # the machine may be busy with anything
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 4401


def test_an_open_event_stream_ends_within_5_s_of_the_end_of_its_token(tenant: Tenant) -> None:
    created = tenant.server.request("POST", "/admin/tokens", json={"tenant": tenant.name}).json()
    session = tenant.admin()
    for token, end in (
        (session, lambda: tenant.ask("POST", "/auth/logout", session)),
        (
            created["token"],
            lambda: tenant.server.request("DELETE", f"/admin/tokens/{created['id']}"),
        ),
    ):
        url = f"{tenant.server.url}/t/{tenant.name}/changes"
        headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
        with (
            httpx2.Client(timeout=60, trust_env=False) as http,
            http.stream("GET", url, headers=headers) as stream,
        ):
            assert stream.status_code == 200
            timer = threading.Timer(0, end)
            timer.start()
            for _ in stream.iter_bytes():  # ends, or times out
                pass
            timer.join()


def test_a_stream_whose_session_lives_goes_on(tenant: Tenant) -> None:
    """Commits make the server look at the session again; that alone must not end it."""
    token = tenant.admin()
    headers = {"Authorization": f"Bearer {token}"}
    with connect(address(tenant), additional_headers=headers, proxy=None) as socket:
        for number in range(3):
            tenant.server.sql(tenant.name, "run", "UPDATE users SET bio = ?", [str(number)])
            while json.loads(socket.recv(timeout=60)).get("type") == "progress":
                pass
            time.sleep(0.7)  # the sweep is each second
        tenant.server.sql(tenant.name, "run", "UPDATE users SET bio = 'end'")
        assert "end" in str(socket.recv(timeout=60))


# --- settings ---------------------------------------------------------------------------------


def test_signing_up_may_be_left_to_the_tenants_own_server(
    start_server: Callable[..., ServerProcess],
) -> None:
    tenant = Tenant(start_server(signup="closed"))
    body = {"email": "a@example.com", "name": "A", "password": PASSWORD}
    tokens = [None, tenant.server.new_token(tenant.name, "read-only")]
    assert [tenant.ask("POST", "/auth/signup", t, body).status for t in tokens] == [401, 403]
    reply = tenant.ask("POST", "/auth/signup", tenant.server.new_token(tenant.name), body)
    assert reply.status == 201
    body["email"] = "b@example.com"
    assert tenant.ask("POST", "/auth/signup", reply.json()["token"], body).code == "signup_closed"


def test_without_users_no_session_is_valid_and_there_are_no_routes(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server()
    tenant = Tenant(server)
    token = tenant.admin()
    server.stop()
    off = start_server(data_dir=server.data_dir, auth="off")
    assert off.request("GET", "/auth/me", token=token, tenant=tenant.name).status == 404
    assert off.sql(tenant.name, "query", "SELECT 1 AS one", token=token).code == "invalid_token"


def test_the_roles_that_reach_sql_are_a_setting(
    start_server: Callable[..., ServerProcess],
) -> None:
    tenant = Tenant(start_server(sql_roles=("user",)))
    assert tenant.ask("POST", "/query", tenant.sign_up()["token"], ROWS).status == 200
    reply = tenant.ask("POST", "/query", tenant.admin(), ROWS)
    assert reply.json()["error"] == "Requires one of roles: user"


def test_a_schema_without_users_has_no_logins(
    start_server: Callable[..., ServerProcess], tmp_path: Any
) -> None:
    (tmp_path / "none").mkdir()
    tenant = Tenant(start_server(migrations=str(tmp_path / "none")))
    assert tenant.log_in().code == "no_accounts"
    assert not tenant.is_valid("dss_" + "A" * 43)


# --- the client -------------------------------------------------------------------------------


def test_the_client_does_all_of_it(tenant: Tenant) -> None:
    """The synchronous one, which is made from the asynchronous."""
    with Client(tenant.server.url) as anybody:
        auth = anybody.tenant(tenant.name).auth
        made = auth.signup("ada@example.com", "Ada", PASSWORD)
        with pytest.raises(ConflictError, match="Email already exists"):
            auth.signup("ada@example.com", "Ada", PASSWORD)
        with pytest.raises(AuthenticationError, match="Invalid email or password"):
            auth.login("ada@example.com", "wrong password")
        session = auth.login("ada@example.com", PASSWORD)
        assert auth.me(session.token).user == made.user
        fresh = auth.refresh(session.token)
        with pytest.raises(AuthenticationError):
            auth.me(session.token)
        assert auth.ticket(fresh.token).ticket.startswith("dst_")
        newest = auth.change_password(PASSWORD, "something else", fresh.token)
    with Client(tenant.server.url, token=newest.token) as ada:
        auth = ada.tenant(tenant.name).auth
        assert auth.me().user.name == "Ada"
        auth.logout()
        with pytest.raises(AuthenticationError):
            auth.me()
