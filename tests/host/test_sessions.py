"""Sessions on a host whose clock stands still until it is moved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from dosql.clock import SystemRandomness
from dosql.errors import RateLimitedError
from dosql.host.accounts import create_user, in_accounts
from dosql.host.host import Host, HostSettings
from dosql.host.sessions import Session, Sessions, SessionSettings, User
from dosql.host.tenant import Tenant
from dosql.limits import SESSIONS_PER_USER_MAX, TICKETS_MAX
from dosql.sqlite.database import Database
from dosql.sqlite.migrations import load_migrations
from dosql.testing.clock import ManualClock
from server.auth_attempts import OF_ACCOUNT, OF_ADDRESS, OF_CLIENT, Attempts, Keys
from server.auth_tickets import Tickets
from server.auth_watch import Watches
from server.gate import Principal
from server.host_settings import default_migrations

LIFE_S, IDLE_S = 1_000.0, 100.0


class World:
    """One tenant with one user."""

    def __init__(self, host: Host, clock: ManualClock, tenant: Tenant, user: User) -> None:
        self.host, self.clock, self.tenant, self.user = host, clock, tenant, user
        settings = SessionSettings.of(LIFE_S, IDLE_S)
        self.sessions = Sessions(host.tenants, settings, clock, SystemRandomness())

    async def log_in(self) -> str:
        token = self.sessions.new_token()
        await in_accounts(
            self.tenant, lambda db: self.sessions.begin(db, self.tenant, self.user, token)
        )
        return token

    async def check(self, token: str) -> Session | None:
        return await self.sessions.check(self.tenant, token.encode())

    async def refresh(self, token: str) -> str:
        session = await self.check(token)
        assert session is not None
        new = self.sessions.new_token()
        await in_accounts(
            self.tenant, lambda db: self.sessions.rotate(db, self.tenant, session, new)
        )
        return new

    async def log_out(self, token: str) -> None:
        session = await self.check(token)
        if session is not None:
            await in_accounts(self.tenant, lambda db: self.sessions.end(db, session))

    async def stored(self) -> int:
        count, _ = await self.tenant.perform(
            lambda db: db.internal_query("SELECT count(*) FROM sessions")[0][0]
        )
        assert isinstance(count, int)
        return count


async def make_world(data_dir: Path) -> World:
    clock = ManualClock()
    settings = HostSettings(data_dir, migrations=load_migrations(default_migrations()))
    host = await Host.start(settings, clock=clock)
    tenant = await host.tenants.ensure("acme")
    user = await in_accounts(tenant, lambda db: create_user(db, "Ada", "ada@x.test", "hash", 1))
    return World(host, clock, tenant, user)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await make_world(tmp_path / "data")
    yield made
    await made.host.close()


# --- expiry -----------------------------------------------------------------------------------


async def test_a_session_ends_when_it_was_idle_for_long_enough_and_not_before(
    world: World,
) -> None:
    token = await world.log_in()
    world.clock.advance(IDLE_S - 0.001)
    assert await world.check(token)
    world.clock.advance(IDLE_S)
    assert await world.check(token) is None


async def test_use_keeps_a_session_alive_up_to_its_absolute_end(world: World) -> None:
    token = await world.log_in()
    for _ in range(19):
        world.clock.advance(LIFE_S / 20)
        assert await world.check(token)
    world.clock.advance(LIFE_S / 20 - 0.001)
    assert await world.check(token)
    world.clock.advance(0.001)
    assert await world.check(token) is None


async def test_a_refresh_does_not_move_the_absolute_end(world: World) -> None:
    token = await world.log_in()
    for _ in range(19):
        world.clock.advance(LIFE_S / 20)
        token = await world.refresh(token)
    world.clock.advance(LIFE_S / 20)
    assert await world.check(token) is None


async def test_use_is_noted_now_and_then_not_each_time(world: World) -> None:
    token = await world.log_in()
    await world.check(token)
    instance = await world.host.tenants.wake(world.tenant)
    before = instance.bookmark
    for _ in range(100):
        assert await world.check(token)
    assert instance.bookmark == before
    world.clock.advance(world.sessions.touch_ms / 1000)
    session = await world.check(token)
    assert session is not None
    assert session.last_used_ms == world.clock.now_ms()


async def test_expired_sessions_are_deleted_by_later_logins(world: World) -> None:
    for _ in range(5):
        await world.log_in()
    world.clock.advance(LIFE_S)
    await world.log_in()
    assert await world.stored() == 1


async def test_a_user_has_so_many_sessions_and_the_least_used_ends_first(world: World) -> None:
    tokens = []
    for _ in range(SESSIONS_PER_USER_MAX):
        tokens.append(await world.log_in())
        world.clock.advance(0.1)
    await world.refresh(tokens[0])  # the oldest, but not the least used
    await world.log_in()
    assert await world.stored() == SESSIONS_PER_USER_MAX
    assert await world.check(tokens[1]) is None
    assert await world.check(tokens[2])


# --- what is remembered -----------------------------------------------------------------------


async def test_between_two_commits_a_check_does_not_touch_the_database(world: World) -> None:
    token = await world.log_in()
    assert await world.check(token)
    instance = await world.host.tenants.wake(world.tenant)
    await instance.turns.enter()  # whoever wants the database now waits
    try:
        async with asyncio.timeout(5):
            assert await world.check(token)
    finally:
        instance.turns.leave()


async def test_two_commits_in_one_batch_are_told_apart(world: World) -> None:
    """Login and logout before the log took either: the version of the database must differ."""
    token = world.sessions.new_token()
    instance = await world.host.tenants.wake(world.tenant)

    def begin(db: Database) -> Session:
        return world.sessions.begin(db, world.tenant, world.user, token)

    session = instance.run_inline(begin)
    assert await world.check(token)
    instance.run_inline(lambda db: world.sessions.end(db, session))
    assert await world.check(token) is None


async def test_a_tenant_that_slept_knows_its_sessions(world: World) -> None:
    token = await world.log_in()
    await world.check(token)
    await world.host.node.awake.sleep_now(world.tenant.key)
    assert await world.check(token)


async def test_a_token_of_one_tenant_is_none_of_another(world: World) -> None:
    token = await world.log_in()
    other = await world.host.tenants.ensure("other")
    await in_accounts(other, lambda db: create_user(db, "Ada", "ada@x.test", "hash", 1))
    assert await world.check(token)
    assert await world.sessions.check(other, token.encode()) is None


async def test_following_a_session_does_not_wake_its_tenant(world: World) -> None:
    token = await world.log_in()
    session = await world.check(token)
    assert session is not None
    still_valid = world.sessions.follow(world.tenant, session)
    answer = still_valid()
    assert answer is True or await answer  # type: ignore[misc]
    await world.host.node.awake.sleep_now(world.tenant.key)
    assert still_valid() is True
    assert world.host.node.awake.peek(world.tenant.key) is None
    world.clock.advance(IDLE_S)
    assert still_valid() is False


async def test_a_stream_is_told_of_the_end_of_its_session(world: World) -> None:
    token = await world.log_in()
    session = await world.check(token)
    assert session is not None
    watches = Watches(every_s=3600)
    with watches.watch(world.sessions.follow(world.tenant, session)) as watch:
        await watches.sweep()
        assert not watch.revoked.is_set()
        await world.log_out(token)
        await watches.sweep()
        assert watch.revoked.is_set()
    assert len(watches) == 0


# --- any order of events ----------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Logins, refreshes, logouts, time and sleep in any order: what was revoked stays so, and
    what should be valid is, also after the host closed and opened again."""

    tokens = Bundle("tokens")

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.world = self.run(make_world(Path(self.folder.name) / "data"))
        self.ends: dict[str, float] = {}
        self.used: dict[str, float] = {}
        self.dead: set[str] = set()

    def run(self, coroutine):  # type: ignore[no-untyped-def]
        return self.loop.run_until_complete(coroutine)

    @property
    def now(self) -> float:
        return self.world.clock.monotonic()

    @rule(target=tokens)
    def log_in(self) -> str:
        token: str = self.run(self.world.log_in())
        self.ends[token], self.used[token] = self.now + LIFE_S, self.now
        return token

    @rule(token=tokens, target=tokens)
    def refresh(self, token: str) -> str:
        if token in self.dead or self.run(self.world.check(token)) is None:
            self.dead.add(token)
            return token
        new: str = self.run(self.world.refresh(token))
        self.dead.add(token)
        self.ends[new], self.used[new] = self.ends[token], self.now
        return new

    @rule(token=tokens)
    def log_out(self, token: str) -> None:
        self.run(self.world.log_out(token))
        self.dead.add(token)

    @rule(seconds=st.sampled_from([0.5, 9, 30, 60, 95, 400]))
    def wait(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    @rule()
    def sleep(self) -> None:
        self.run(self.world.host.node.awake.sleep_now(self.world.tenant.key))

    @rule()
    def restart(self) -> None:
        clock, user = self.world.clock, self.world.user
        self.run(self.world.host.close())
        settings = self.world.host.settings
        host = self.run(Host.start(settings, clock=clock))
        self.world = World(host, clock, host.tenants.get("acme"), user)

    @rule(token=tokens)
    def use(self, token: str) -> None:
        slack = self.world.sessions.touch_ms / 1000
        idle = self.now - self.used[token]
        found = self.run(self.world.check(token))
        if token in self.dead or self.now >= self.ends[token] or idle >= IDLE_S:
            assert found is None
            self.dead.add(token)
        elif idle < IDLE_S - slack:
            assert found is not None
        if found is not None:
            self.used[token] = self.now

    @invariant()
    def the_dead_stay_dead(self) -> None:
        for token in self.dead:
            assert self.run(self.world.check(token)) is None

    def teardown(self) -> None:
        self.run(self.world.host.close())
        self.loop.close()
        self.folder.cleanup()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = hypothesis_settings(
    max_examples=15, stateful_step_count=25, deadline=None, derandomize=True
)


# --- attempts ---------------------------------------------------------------------------------


def keys(account: str = "ada", address: str = "1.2.3.4") -> Keys:
    return [((account, address), OF_CLIENT), (account, OF_ACCOUNT), (address, OF_ADDRESS)]


def tries(attempts: Attempts, these: Keys) -> bool:
    try:
        attempts.begin(these)
    except RateLimitedError:
        return False
    return True


def wait_of(attempts: Attempts) -> int:
    """Seconds that the next attempt is told to wait; it is not counted."""
    try:
        attempts.begin(keys())
    except RateLimitedError as error:
        return error.retry_after_s or 0
    attempts.gave_up(keys())
    return 0


def test_waiting_as_long_as_said_is_enough_and_a_second_less_is_not() -> None:
    clock = ManualClock()
    attempts = Attempts(clock)
    waits: list[int] = []
    for _ in range(14):
        assert tries(attempts, keys())
        waits.append(wait_of(attempts))
        if waits[-1]:
            clock.advance(waits[-1] - 1)
            assert not tries(attempts, keys())
            clock.advance(1)
    assert waits == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300]


def test_ten_thousand_attempts_at_one_account_reach_the_password_a_few_times() -> None:
    """From one address, and from a thousand of them, ten in each second."""
    for addresses, most in ((1, 16), (1_000, 60)):
        clock = ManualClock()
        attempts = Attempts(clock)
        reached = 0
        for number in range(10_000):
            reached += tries(attempts, keys(address=f"10.0.0.{number % addresses}"))
            clock.advance(0.1)
        assert reached <= most, addresses


def test_one_address_that_tries_many_accounts_is_slowed_down_too() -> None:
    attempts = Attempts(ManualClock())
    assert sum(tries(attempts, keys(account=str(n))) for n in range(1_000)) == OF_ADDRESS.free


def test_a_success_is_no_failure_and_forgives_those_of_its_own() -> None:
    attempts = Attempts(ManualClock())
    for _ in range(1_000):
        attempts.begin(keys())
        attempts.succeeded(keys())
    assert len(attempts) == 0
    for _ in range(4):
        attempts.begin(keys())
    attempts.begin(keys())
    attempts.succeeded(keys())
    assert sum(tries(attempts, keys()) for _ in range(10)) == OF_CLIENT.free


def test_failures_are_forgotten_and_their_number_is_bounded() -> None:
    clock = ManualClock()
    attempts = Attempts(clock, kept_max=100)
    for number in range(10_000):
        tries(attempts, keys(account=str(number), address=str(number)))
    assert len(attempts) == 100
    for _ in range(5):
        attempts.begin(keys())
    clock.advance(3600)
    assert sum(tries(attempts, keys()) for _ in range(10)) == OF_CLIENT.free


# --- tickets ----------------------------------------------------------------------------------


def test_a_ticket_is_good_once_for_its_tenant_and_for_30_s() -> None:
    clock = ManualClock()
    tickets = Tickets(clock, SystemRandomness())
    principal = Principal("tenant", "acme")
    once, _ = tickets.issue(principal, "acme")
    assert tickets.redeem(once, "acme") is principal
    assert tickets.redeem(once, "acme") is None
    wrong, _ = tickets.issue(principal, "acme")
    assert tickets.redeem(wrong, "other") is None
    assert tickets.redeem(wrong, "acme") is None
    late, _ = tickets.issue(principal, "acme")
    clock.advance(30)
    assert tickets.redeem(late, "acme") is None


def test_unused_tickets_do_not_pile_up() -> None:
    clock = ManualClock()
    tickets = Tickets(clock, SystemRandomness())
    for _ in range(TICKETS_MAX + 10):
        tickets.issue(Principal("tenant", "acme"), "acme")
    assert len(tickets) == TICKETS_MAX
    clock.advance(30)
    tickets.issue(Principal("tenant", "acme"), "acme")
    assert len(tickets) == 1


def test_nothing_that_is_kept_of_a_token_shows_it() -> None:
    token = "dss_" + "A" * 43
    session = Session(User(1, "a", "b", "c"), b"h" * 32, 0, 0)
    principal = Principal("tenant", "acme", token=token)
    assert token not in repr(session) + repr(principal)
    assert session.hash.hex() not in repr(session)
