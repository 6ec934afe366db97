"""Rate limits: the five rules against an oracle, and over HTTP against a real server."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from dosql.clock import SystemClock
from dosql.errors import InvalidRequestError
from dosql.objects.rate_rules import Algorithm, Rule
from dosql.objects.rate_table import clean_up, hit, rate_key
from dosql.sqlite.database import Database
from server.client_address import ClientAddress
from server.node_limits import NodeLimits
from server.rate_policies import parse_policies, plain_path
from tests.support.rate_play import ALGORITHMS, START, play
from tests.support.server import Reply, ServerProcess

STEPS = int(os.environ.get("DOSQL_TEST_RATE_STEPS", "4000"))
"""For each algorithm; 200,000 in the nightly run."""
KEY = rate_key("test")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(str(tmp_path / "t.sqlite"), clock=SystemClock())
    yield database
    database.close()


# --- the rules --------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_check_answers_as_the_definition_in_exact_fractions_does(
    algorithm: Algorithm, tmp_path: Path
) -> None:
    """Random rules, costs, pauses to the millisecond before and at the end of a wait, and clocks
    that are set back: allowed, remaining, reset and wait are all the same."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    assert play(algorithm, STEPS, seed, tmp_path) == []


def test_the_play_sees_a_limit_that_is_one_too_high(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sabotage that must go red."""
    import tests.support.rate_play as module

    def generous(db: Database, rule: Rule, key: bytes, now: int, cost: int) -> object:
        more = Rule(rule.algorithm, rule.limit + 1, rule.window_ms, rule.burst)
        return hit(db, more, key, now, cost)

    monkeypatch.setattr(module, "hit", generous)
    assert play("sliding", 500, 1, tmp_path)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_waiting_exactly_as_long_as_told_succeeds_and_a_millisecond_less_does_not(
    algorithm: Algorithm, db: Database
) -> None:
    rule, now = Rule(algorithm, 7, 60_000), START
    while (verdict := hit(db, rule, KEY, now)).allowed:
        now += 137
    assert not hit(db, rule, KEY, now + verdict.retry_after_ms - 1).allowed
    assert hit(db, rule, KEY, now + verdict.retry_after_ms).allowed


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_wait_in_whole_seconds_is_enough_and_a_second_less_is_not(
    algorithm: Algorithm, db: Database
) -> None:
    rule, now = Rule(algorithm, 7, 60_000), START
    while (verdict := hit(db, rule, KEY, now)).allowed:
        now += 137
    assert not hit(db, rule, KEY, now + (verdict.retry_after_s - 1) * 1_000).allowed
    assert hit(db, rule, KEY, now + verdict.retry_after_s * 1_000).allowed


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_clock_that_is_set_back_gives_nothing_away_and_locks_nobody_out(
    algorithm: Algorithm, db: Database
) -> None:
    rule = Rule(algorithm, 5, 60_000)
    for _ in range(5):
        assert hit(db, rule, KEY, START).allowed
    earlier = START - 3_600_000
    verdict = hit(db, rule, KEY, earlier)
    assert not verdict.allowed
    assert verdict.retry_after_ms <= rule.memory_ms
    assert hit(db, rule, KEY, earlier + verdict.retry_after_ms).allowed


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_refused_check_writes_nothing(algorithm: Algorithm, db: Database) -> None:
    """A flood of them costs no log, no copy in a bucket."""
    rule = Rule(algorithm, 3, 60_000)
    while hit(db, rule, KEY, START).allowed:
        pass
    frames = db.wal_frames
    for _ in range(50):
        assert not hit(db, rule, KEY, START + 1).allowed
    assert db.wal_frames == frames


def test_a_sliding_log_never_lets_more_than_the_limit_into_any_window(db: Database) -> None:
    chance, rule, now = random.Random(5), Rule("log", 10, 1_000), START
    allowed: list[int] = []
    for _ in range(3_000):
        now += chance.randrange(120)
        if hit(db, rule, KEY, now).allowed:
            allowed.append(now)
    for number, first in enumerate(allowed):
        assert sum(1 for t in allowed[number:] if t < first + 1_000) <= 10


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_cleaning_up_forgets_what_says_nothing_any_more_and_only_that(
    algorithm: Algorithm, db: Database
) -> None:
    rule = Rule(algorithm, 2, 60_000)
    for number in range(300):
        hit(db, rule, rate_key(number), START)
    later = START + 4 * 60_000
    hit(db, rule, KEY, later)
    assert clean_up(db, later, 100) == 100  # no more than asked for
    assert clean_up(db, later, 1_000) == 200
    assert clean_up(db, later, 1_000) == 0
    assert hit(db, rule, KEY, later).remaining == 0


@pytest.mark.parametrize("cost", [0, -1, 4])
def test_what_could_never_be_allowed_is_an_error(cost: int, db: Database) -> None:
    with pytest.raises(InvalidRequestError):
        hit(db, Rule("gcra", 3, 1_000), KEY, START, cost)


def test_a_tenant_can_neither_see_nor_touch_its_counters(server: ServerProcess) -> None:
    """Seed 2: L567-577, rate_limits was reachable by the tenant's SQL."""
    tenant = server.new_tenant()
    assert users(server, tenant).status == 200
    for sql in ("SELECT * FROM _dosql_rate_limits", "DELETE FROM _dosql_rate_limits"):
        assert server.sql(tenant, "query", sql).code == "sql_forbidden"


# --- over HTTP --------------------------------------------------------------------------------


def users(server: ServerProcess, tenant: str, **headers: str) -> Reply:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.request("GET", "/api/v1/users", tenant=tenant, headers=names)


def limited(**policy: object) -> str:
    return json.dumps([{"name": "test", "window": 3600, **policy}])


def test_the_table_of_migration_004_is_not_what_limits_are_kept_in(
    server: ServerProcess, tmp_path: Path
) -> None:
    """docs/rate-limits.md says so, and that an operator may drop it."""
    tenant = server.new_tenant()
    assert server.request("GET", "/api/v1/users", tenant=tenant).status == 200
    login = {"email": "ada@example.com", "password": "wrong password"}
    assert server.request("POST", "/auth/login", json=login, tenant=tenant).status == 401
    path = tmp_path / "copy.sqlite"
    path.write_bytes(server.request("GET", f"/admin/tenants/{tenant}/export").body)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("rate_limits", "_dosql_rate_limits", "_dosql_login_attempts")
        }
    assert rows == {"rate_limits": 0, "_dosql_rate_limits": 1, "_dosql_login_attempts": 3}
    db = Database(str(path), clock=SystemClock())
    db.exec("DROP TABLE rate_limits")
    assert db.internal_query("SELECT 1 FROM sqlite_schema WHERE name = 'rate_limits'") == []
    db.close()


def test_seed_2_25_and_2_34_the_101st_request_of_a_minute_is_refused(
    server: ServerProcess,
) -> None:
    """The default: 100 a minute on ``/api/*``, by address, each tenant by itself."""
    tenant, other = server.new_tenant(), server.new_tenant()
    replies = [users(server, tenant) for _ in range(101)]
    assert [reply.status for reply in replies] == [200] * 100 + [429]
    refused = replies[-1]
    assert refused.json()["error"] == "Too many requests"
    assert refused.code == "rate_limited"
    assert 0 < int(refused.headers["retry-after"]) <= 61
    assert users(server, other).status == 200
    sql = server.sql(tenant, "query", "SELECT 1 AS one")
    assert sql.status == 200
    assert "x-ratelimit-limit" not in sql.headers


def test_seed_2_26_what_is_left_is_told_with_every_reply(server: ServerProcess) -> None:
    """Remaining is max - count - 1, and the draft's headers say the same."""
    tenant = server.new_tenant()
    for count in range(3):
        headers = users(server, tenant).headers
        assert headers["x-ratelimit-limit"] == "100"
        assert headers["x-ratelimit-remaining"] == str(100 - count - 1)
        assert 0 < int(headers["x-ratelimit-reset"]) <= 60
        assert headers["ratelimit-policy"] == '"default";q=100;w=60'
        assert headers["ratelimit"].startswith(f'"default";r={99 - count};t=')
        assert "retry-after" not in headers


@pytest.mark.parametrize("algorithm", ["sliding", "gcra"])
def test_64_clients_at_once_get_exactly_the_limit(
    algorithm: str, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server(rate_limits=limited(limit=50, window=86_400, algorithm=algorithm))
    tenant = server.new_tenant()
    headers = {"X-Tenant-ID": tenant, "Authorization": f"Bearer {server.admin_token}"}
    statuses: Counter[int] = Counter()
    lock = threading.Lock()

    def ask() -> None:
        with httpx2.Client(base_url=server.url, timeout=60, trust_env=False) as http:
            for _ in range(3):
                reply = http.get("/api/v1/users", headers=headers)
                with lock:
                    statuses[reply.status_code] += 1

    threads = [threading.Thread(target=ask) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == {200: 50, 429: 64 * 3 - 50}


def test_a_limit_survives_a_restart(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server(rate_limits=limited(limit=3))
    tenant = server.new_tenant()
    assert [users(server, tenant).status for _ in range(3)] == [200] * 3
    server.restart()
    refused = users(server, tenant)
    assert (refused.status, refused.headers["x-ratelimit-remaining"]) == (429, "0")


def test_a_limit_survives_a_crash_once_anything_else_was_written(
    start_server: Callable[..., ServerProcess],
) -> None:
    """Hits go to the log with the next commit that somebody waits for."""
    server = start_server(rate_limits=limited(limit=3))
    tenant = server.new_tenant()
    assert [users(server, tenant).status for _ in range(3)] == [200] * 3
    assert server.sql(tenant, "run", "CREATE TABLE t (a)").status == 200
    server.kill()
    server.restart()
    assert users(server, tenant).status == 429


def test_a_hit_waits_for_no_disk_and_neither_do_reads_after_it(
    start_server: Callable[..., ServerProcess],
) -> None:
    """With a disk whose syncs hang, writes hang, and limited reads do not."""
    server = start_server(prelude=HANGING)
    tenant = server.new_tenant()
    assert users(server, tenant).status == 200
    before = server.metric("dosql_flushes_total")
    (server.data_dir / "hang").touch()
    replies = [users(server, tenant) for _ in range(20)]
    (server.data_dir / "hang").unlink()
    assert {reply.status for reply in replies} == {200}
    assert server.metric("dosql_flushes_total") - before <= 2


HANGING = """
import os, sys, time, json
_sync = os.fdatasync
_flag = json.loads(sys.argv[1])["data_dir"] + "/hang"
def slow(fd):
    while os.path.exists(_flag):
        time.sleep(0.01)
    return _sync(fd)
os.fdatasync = slow
"""


def test_the_address_is_the_peers_whatever_the_client_says(
    start_server: Callable[..., ServerProcess],
) -> None:
    """Seed 2: L564, CF-Connecting-IP was believed."""
    server = start_server(rate_limits=limited(limit=20))
    tenant, chance = server.new_tenant(), random.Random(1)
    statuses = Counter(
        users(
            server,
            tenant,
            X_Forwarded_For=f"{chance.randrange(256)}.1.2.3",
            CF_Connecting_IP=f"9.9.9.{chance.randrange(256)}",
            Forwarded=f"for=8.8.8.{chance.randrange(256)}",
        ).status
        for _ in range(60)
    )
    assert statuses == {200: 20, 429: 40}


def test_behind_a_named_proxy_the_last_address_that_is_not_a_proxys_counts(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(rate_limits=limited(limit=1), trusted_proxies=["127.0.0.1", "10.0.0.0/8"])
    tenant = server.new_tenant()
    assert users(server, tenant, X_Forwarded_For="1.1.1.1").status == 200
    assert users(server, tenant, X_Forwarded_For="6.6.6.6, 1.1.1.1, 10.1.2.3").status == 429
    assert users(server, tenant, X_Forwarded_For="1.1.1.1, 2.2.2.2").status == 200


ADDRESSES = [
    ("1.2.3.4", None, "1.2.3.4"),
    ("1.2.3.4", b"5.6.7.8", "1.2.3.4"),
    ("10.0.0.1", b"5.6.7.8", "5.6.7.8"),
    ("10.0.0.1", b"5.6.7.8:443", "5.6.7.8"),
    ("10.0.0.1", b"9.9.9.9, 5.6.7.8, 10.0.0.9", "5.6.7.8"),
    ("10.0.0.1", b"nonsense", "10.0.0.1"),
    ("10.0.0.1", b"5.6.7.8, nonsense", "10.0.0.1"),
    ("10.0.0.1", b"", "10.0.0.1"),
    ("10.0.0.1", b"10.0.0.2", "10.0.0.2"),
    ("10.0.0.1", b"[2001:db8:1:2:3::4]:80", "2001:db8:1:2::/64"),
    ("2001:db8:1:2:ffff::1", None, "2001:db8:1:2::/64"),
    ("::ffff:10.0.0.1", b"5.6.7.8", "5.6.7.8"),
]


@pytest.mark.parametrize(("peer", "forwarded", "expected"), ADDRESSES)
def test_addresses_that_are_counted_by(peer: str, forwarded: bytes | None, expected: str) -> None:
    assert ClientAddress(["10.0.0.0/8"])((peer, 1), forwarded) == expected


def test_keys_by_header_token_and_tenant(start_server: Callable[..., ServerProcess]) -> None:
    policies = [
        {"name": "by-header", "limit": 1, "window": 3600, "key": "header:X-Api-Key"},
        {"name": "by-tenant", "limit": 4, "window": 3600, "key": "tenant"},
    ]
    server = start_server(rate_limits=json.dumps(policies))
    tenant = server.new_tenant()
    assert [users(server, tenant, X_Api_Key=key).status for key in "aabbc"] == [
        *(200, 429),
        *(200, 429),
        200,
    ]
    reply = users(server, tenant, X_Api_Key="d")
    assert reply.status == 200
    assert reply.headers["ratelimit-policy"] == '"by-header";q=1;w=3600, "by-tenant";q=4;w=3600'
    refused = users(server, tenant, X_Api_Key="e")
    assert refused.status == 429
    assert '"by-tenant";r=0' in refused.headers["ratelimit"]


def test_policies_by_route_method_tenant_and_role(
    start_server: Callable[..., ServerProcess],
) -> None:
    policies = [
        {"name": "writes", "routes": ["/run"], "limit": 1, "tenants": ["slow"], "roles": ["tenant"]}
    ]
    server = start_server(rate_limits=json.dumps(policies))
    for name in ("slow", "fast"):
        server.request("POST", "/admin/tenants", json={"name": name})
        token = server.new_token(name)
        writes = [
            server.sql(name, "run", "CREATE TABLE IF NOT EXISTS t (a)", token=token).status
            for _ in range(3)
        ]
        assert writes == ([200, 429, 429] if name == "slow" else [200] * 3)
    assert server.sql("slow", "run", "CREATE TABLE IF NOT EXISTS t (a)").status == 200
    assert server.sql("slow", "query", "SELECT 1 AS one").status == 200


def test_keys_by_user_and_token_count_no_invented_tokens(
    start_server: Callable[..., ServerProcess],
) -> None:
    """Two users have counts of their own; whoever has no valid token shares the address's."""
    server = start_server(rate_limits=limited(limit=2, routes=["/auth/me"], key="user"))
    tenant = server.new_tenant()

    def sign_up(name: str) -> str:
        account = {"email": f"{name}@example.com", "name": name, "password": "correct horse"}
        path = "/auth/signup"
        reply = server.request("POST", path, json=account, token=None, tenant=tenant)
        return str(reply.json()["token"])

    def ask(token: str) -> int:
        return server.request("GET", "/auth/me", token=token, tenant=tenant).status

    ada, grace = sign_up("ada"), sign_up("grace")
    assert [ask(ada) for _ in range(3)] == [200, 200, 429]
    assert [ask(grace) for _ in range(3)] == [200, 200, 429]
    assert [ask(f"dss_{number:043d}") for number in range(4)] == [401, 401, 429, 429]


def test_a_websocket_that_is_one_too_many_is_refused_before_it_is_accepted(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(rate_limits=limited(limit=1, routes=["/changes"]))
    tenant = server.new_tenant()
    server.request("GET", "/changes?after=x", tenant=tenant)  # counted, whatever becomes of it
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    reply = server.request("GET", "/changes", tenant=tenant, headers=headers)
    assert (reply.status, reply.code) == (429, "rate_limited")
    assert int(reply.headers["retry-after"]) > 0
    assert reply.headers["x-ratelimit-remaining"] == "0"


def test_a_limit_of_the_node_holds_before_any_tenant_is_looked_at(
    start_server: Callable[..., ServerProcess],
) -> None:
    policy = {"name": "node", "scope": "node", "routes": ["/*"], "limit": 5, "window": 3600}
    server = start_server(rate_limits=json.dumps([policy]))
    statuses = [
        server.request("POST", "/query", json={"sql": "SELECT 1"}, token="x", tenant=f"t{n}").status
        for n in range(7)
    ]
    assert statuses == [401] * 5 + [429] * 2


def test_the_memory_of_the_nodes_limits_is_bounded() -> None:
    limits, rule = NodeLimits(SystemClock(), keys_max=100), Rule("gcra", 1, 3_600_000)
    for number in range(1_000):
        assert limits.hit(rule, rate_key(number)).allowed
    assert len(limits) == 100
    assert not limits.hit(rule, rate_key(999)).allowed


@pytest.mark.parametrize(("mode", "status"), [("open", 200), ("closed", 503)])
def test_what_happens_when_it_cannot_be_counted_is_the_policys_choice(
    mode: str, status: int, start_server: Callable[..., ServerProcess]
) -> None:
    prelude = """
import dosql.host.rate_limits as module
from dosql.errors import UnavailableError
def broken(*args):
    raise UnavailableError("no")
module.hit = broken
"""
    server = start_server(rate_limits=limited(limit=3, onFailure=mode), prelude=prelude)
    reply = users(server, server.new_tenant())
    assert reply.status == status
    if mode == "closed":
        assert (reply.code, reply.headers["retry-after"]) == ("rate_limit_unavailable", "1")
    assert server.metric("dosql_rate_limit_failures_total") == 1


def test_a_path_cannot_be_written_so_that_no_limit_knows_it(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(rate_limits=limited(limit=2, routes=["/api/v1/users"]))
    tenant = server.new_tenant()
    paths = [
        "/api/v1/users",
        "/api//v1/users",
        "/api/v1/users/",
        "/%61pi/v1/users",
        "/api/v1/./users",
        f"/t/{tenant}/api/v1/users",
    ]
    replies = [server.request("GET", path, tenant=tenant) for path in paths]
    assert [reply.status for reply in replies].count(200) <= 2
    assert plain_path("//a///b/") == "/a/b"


def test_a_preflight_is_not_counted(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server(rate_limits=limited(limit=1), cors_origins=["https://app.example.com"])
    tenant, origin = server.new_tenant(), {"Origin": "https://app.example.com"}
    for _ in range(3):
        asked = {**origin, "Access-Control-Request-Method": "GET"}
        assert server.request("OPTIONS", "/api/v1/users", headers=asked, token=None).status == 204
    assert users(server, tenant, **origin).status == 200
    refused = users(server, tenant, **origin)
    assert refused.status == 429
    assert refused.headers["access-control-allow-origin"] == origin["Origin"]
    assert "Retry-After" in refused.headers["access-control-expose-headers"]


WRONG = [
    "[",
    "{}",
    '[{"name": "a"}]',
    '[{"name": "A", "limit": 1}]',
    '[{"name": "a", "limit": 0}]',
    '[{"name": "a", "limit": 1, "window": 0}]',
    '[{"name": "a", "limit": 1, "colour": "red"}]',
    '[{"name": "a", "limit": 1}, {"name": "a", "limit": 2}]',
    '[{"name": "a", "limit": 1, "key": "moon"}]',
    '[{"name": "a", "limit": 1, "routes": ["api"]}]',
    '[{"name": "a", "limit": 1, "burst": 2}]',
    '[{"name": "a", "limit": 100000, "algorithm": "log"}]',
    '[{"name": "a", "limit": 1, "scope": "node", "roles": ["admin"]}]',
    '[{"name": "a", "limit": 1, "scope": "node", "key": "user"}]',
]


@pytest.mark.parametrize("text", WRONG)
def test_a_policy_that_cannot_be_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="rate_limits") as caught:
        parse_policies(text)
    assert caught.value.code == "invalid_settings"


def test_none_means_no_limits_and_nothing_means_the_default() -> None:
    assert parse_policies("none") == ()
    (default,) = parse_policies(None)
    assert (default.limit, default.window, default.routes) == (100, 60.0, ("/api/*",))
    assert math.isclose(default.rule.window_ms, 60_000)
