"""Login limits: counted in the tenant's database, in one statement, over restarts."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dosql.clock import SystemClock
from dosql.errors import RateLimitedError
from dosql.host.login_attempts import Keys, LoginAttempts
from dosql.objects.rate_table import rate_key
from dosql.sqlite.database import Database
from server.auth_attempts import OF_ACCOUNT, OF_ADDRESS, OF_CLIENT, Attempts
from tests.support.server import Reply, ServerProcess

ACCOUNT = {"email": "ada@example.com", "name": "Ada", "password": "correct horse"}


class TwoClocks:
    """A wall clock and a monotonic one that a test moves."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.seconds = 0.0
        self.wall_ms = now_ms

    def monotonic(self) -> float:
        return self.seconds

    def now_ms(self) -> int:
        return self.wall_ms + round(self.seconds * 1_000)


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return Database(str(tmp_path / "t.sqlite"), clock=SystemClock())


def keys(account: str = "ada", address: str = "1.2.3.4") -> Keys:
    return [
        (rate_key("client", account, address), OF_CLIENT),
        (rate_key("account", account), OF_ACCOUNT),
        (rate_key("address", address), OF_ADDRESS),
    ]


def rows(db: Database) -> int:
    return int(str(db.internal_query("SELECT count(*) FROM _dosql_login_attempts")[0][0]))


def test_it_answers_as_the_same_rules_in_memory_do(db: Database) -> None:
    """Random attempts, ends and pauses, of few accounts and addresses."""
    draw = random.Random(6)
    clock = TwoClocks()
    stored, memory = LoginAttempts(clock), Attempts(clock)
    open_attempts: list[Keys] = []
    refused = 0
    for _ in range(4_000):
        these = keys(draw.choice("abc"), draw.choice("xyz"))
        match draw.randrange(10):
            case 0 if open_attempts:
                these = open_attempts.pop()
                stored.succeeded(db, these)
                memory.succeeded(these)
            case 1 if open_attempts:
                these = open_attempts.pop()
                stored.gave_up(db, these)
                memory.gave_up(these)
            case 2:
                clock.seconds += draw.choice([0.25, 1, 4, 60, 1_000])
            case _:
                wait_ms = stored.begin(db, these)
                assert -(-wait_ms // 1_000) == wait_in_memory(memory, these)
                if wait_ms:
                    refused += 1
                else:
                    open_attempts.append(these)
    assert 100 < refused < 3_500


def wait_in_memory(attempts: Attempts, these: Keys) -> int:
    try:
        attempts.begin(these)
    except RateLimitedError as error:
        return error.retry_after_s or 0
    return 0


def test_waiting_as_long_as_said_is_enough_and_a_millisecond_less_is_not(db: Database) -> None:
    clock = TwoClocks()
    attempts = LoginAttempts(clock)
    waits: list[int] = []
    for _ in range(14):
        assert attempts.begin(db, keys()) == 0
        wait_ms = attempts.begin(db, keys())
        if wait_ms:
            waits.append(wait_ms)
            clock.seconds += (wait_ms - 1) / 1_000
            assert attempts.begin(db, keys()) > 0
            clock.seconds += 0.001
        else:
            waits.append(0)
            attempts.gave_up(db, keys())
    assert waits == [1_000 * s for s in (0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300)]


def test_an_attempt_that_is_refused_writes_nothing(db: Database) -> None:
    attempts = LoginAttempts(TwoClocks())
    while attempts.begin(db, keys()) == 0:
        pass
    frames, changes = db.wal_frames, db.state
    for _ in range(100):
        assert attempts.begin(db, keys()) > 0
    assert (db.wal_frames, db.state) == (frames, changes)


@pytest.mark.parametrize("back_s", [1, 3_600, 10 * 365 * 24 * 3_600])
def test_a_clock_that_is_set_back_gives_nothing_away_and_locks_nobody_out(
    back_s: int, db: Database
) -> None:
    before = LoginAttempts(TwoClocks())
    while before.begin(db, keys()) == 0:
        pass
    clock = TwoClocks()
    clock.wall_ms -= back_s * 1_000
    after = LoginAttempts(clock)
    wait_ms = after.begin(db, keys())
    assert 0 < wait_ms <= OF_CLIENT.delay_s_max * 1_000
    clock.seconds += wait_ms / 1_000
    assert after.begin(db, keys()) == 0
    assert after.begin(db, keys()) > 0


def test_failures_are_forgotten_and_their_rows_go(db: Database) -> None:
    clock = TwoClocks()
    attempts = LoginAttempts(clock)
    for number in range(300):
        attempts.begin(db, keys(str(number), str(number)))
    while attempts.begin(db, keys()) == 0:
        pass
    clock.seconds += 3_600
    free = 0
    while attempts.begin(db, keys()) == 0:
        free += 1
    assert free == OF_CLIENT.free
    for _ in range(64 * 6):
        attempts.begin(db, keys())
    assert rows(db) == 3


def test_their_number_is_bounded_and_who_must_wait_longest_is_kept(db: Database) -> None:
    attempts = LoginAttempts(TwoClocks(), rows_max=1_000)
    for _ in range(OF_CLIENT.free):
        attempts.begin(db, keys())
    wait_ms = attempts.begin(db, keys())
    assert wait_ms > 0
    for number in range(5_000):
        attempts.begin(db, keys(str(number), str(number)))
    assert rows(db) <= 1_000 + 3 * 64
    assert attempts.begin(db, keys()) == wait_ms


def test_neither_addresses_nor_accounts_are_stored(db: Database, tmp_path: Path) -> None:
    LoginAttempts(TwoClocks()).begin(db, keys("ada@example.com", "192.0.2.77"))
    stored = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    assert b"_dosql_login_attempts" in stored
    assert b"ada@" not in stored
    assert b"192.0.2" not in stored


# --- over HTTP --------------------------------------------------------------------------------


def log_in(server: ServerProcess, tenant: str, password: str = "wrong one") -> Reply:
    body = {"email": ACCOUNT["email"], "password": password}
    return server.request("POST", "/auth/login", json=body, token=None, tenant=tenant)


def locked_out(server: ServerProcess) -> str:
    """A tenant at whose account this address must wait for long."""
    tenant = server.new_tenant()
    reply = server.request("POST", "/auth/signup", json=ACCOUNT, token=None, tenant=tenant)
    assert reply.status == 201
    # Waiting for real would take minutes: what is left to count is counted in the database.
    while log_in(server, tenant).status == 401:
        pass
    return tenant


DELAYS = """
import server.auth_limits as module
from dosql.host.login_attempts import Allowance
module.OF_CLIENT = Allowance(5, 300.0)
import dosql.host.login_attempts as attempts
attempts._BEGIN = attempts._BEGIN.replace("1000 << ", "100000 << ")  # 100, 200, 300 s
"""


def test_a_limit_on_guessing_survives_a_restart(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(prelude=DELAYS)
    tenant = locked_out(server)
    waited = int(log_in(server, tenant).headers["retry-after"])
    server.restart()
    reply = log_in(server, tenant, ACCOUNT["password"])
    assert (reply.status, reply.code) == (429, "too_many_attempts")
    assert 0 < int(reply.headers["retry-after"]) <= waited


def test_a_limit_on_guessing_survives_a_crash_once_anything_else_was_written(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(prelude=DELAYS)
    tenant = locked_out(server)
    assert server.sql(tenant, "run", "CREATE TABLE t (a)").status == 200
    server.kill()
    server.restart()
    assert log_in(server, tenant, ACCOUNT["password"]).status == 429


def test_a_limit_on_signing_up_survives_a_restart(
    start_server: Callable[..., ServerProcess],
) -> None:
    """It is what keeps strangers from finding out who is a user."""
    server = start_server(prelude=DELAYS)
    tenant = server.new_tenant()

    def sign_up() -> int:
        return server.request(
            "POST", "/auth/signup", json=ACCOUNT, token=None, tenant=tenant
        ).status

    assert sign_up() == 201
    tried = 0
    while sign_up() == 409:
        tried += 1
    assert tried == OF_ADDRESS.free
    server.restart()
    assert sign_up() == 429


def test_no_more_than_the_limit_reach_the_password_however_many_come_at_once(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(prelude=DELAYS)
    tenant = server.new_tenant()
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda _: log_in(server, tenant).status, range(64)))
    assert sorted(set(statuses)) == [401, 429]
    assert statuses.count(401) == OF_CLIENT.free


def test_a_tenant_can_neither_see_nor_touch_its_attempts(shared_server: ServerProcess) -> None:
    tenant = shared_server.new_tenant()
    log_in(shared_server, tenant)
    for kind, sql in (
        ("query", "SELECT * FROM _dosql_login_attempts"),
        ("run", "DELETE FROM _dosql_login_attempts"),
        ("run", "UPDATE _dosql_login_attempts SET next = 0"),
    ):
        reply = shared_server.sql(tenant, kind, sql)
        assert (reply.status, reply.code) == (403, "sql_forbidden")


def test_no_attempt_is_let_through_that_cannot_be_counted(
    start_server: Callable[..., ServerProcess],
) -> None:
    """Else a full disk would be the time to guess: the right password fails there, the wrong one
    fails otherwise."""
    prelude = """
import server.auth_limits as module
from dosql.errors import UnavailableError
def broken(self, db, keys):
    raise UnavailableError("full")
module.LoginAttempts.begin = broken
"""
    server = start_server(prelude=prelude)
    tenant = server.new_tenant()
    right = log_in(server, tenant, ACCOUNT["password"])
    assert (right.status, right.json()["error"]) == (503, "full")


def test_a_schema_without_users_gets_no_table_by_being_asked(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    (tmp_path / "migrations").mkdir()
    server = start_server(migrations=str(tmp_path / "migrations"))
    tenant = server.new_tenant()
    reply = log_in(server, tenant)
    assert (reply.status, reply.code) == (404, "no_accounts")
    found = server.sql(tenant, "query", "SELECT name FROM sqlite_schema")
    assert found.json() == {"rows": []}
