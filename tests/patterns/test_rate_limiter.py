"""The four rules of RateLimiter, by a clock that only the test moves."""

from __future__ import annotations

import random
from typing import Any

import pytest

from dosql import App, InvalidRequestError, Request
from dosql.patterns import RateLimiter
from dosql.testing import ManualClock, SimpleState, harness


@pytest.fixture
async def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def limiter(clock: ManualClock) -> RateLimiter:
    state = SimpleState(clock)
    limiter = RateLimiter(state, {})
    await state.settled()
    return limiter


async def test_a_window_begins_with_its_first_hit_and_ends_as_a_whole(
    limiter: RateLimiter, clock: ManualClock
) -> None:
    start = clock.now_ms()
    found = [limiter.check("k", limit=2, window=1_000)]
    await clock.pass_time(0.4)
    found += [limiter.check("k", limit=2, window=1_000) for _ in range(2)]
    assert [verdict.allowed for verdict in found] == [True, True, False]
    assert [(verdict.count, verdict.remaining) for verdict in found] == [(1, 1), (2, 0), (2, 0)]
    assert {verdict.reset_at for verdict in found} == {start + 1_000}
    assert found[-1].retry_after_ms == 600
    await clock.pass_time(0.6)
    assert limiter.check("k", limit=2, window=1_000).count == 1


async def test_keys_and_rules_do_not_share_their_counts(limiter: RateLimiter) -> None:
    for key in ("a", "b"):
        assert limiter.check(key, 1, 1_000).allowed
        assert limiter.check_sliding_window(key, 1, 1_000).allowed
        assert limiter.check_token_bucket(key, 1, 1.0).allowed
        assert limiter.check_leaky_bucket(key, 1, 1.0).allowed
        assert not limiter.check_leaky_bucket(key, 1, 1.0).allowed


async def test_a_sliding_window_never_lets_more_than_the_limit_into_any_stretch(
    limiter: RateLimiter, clock: ManualClock
) -> None:
    """Against a plain list, with the rule's own answer about when to come back."""
    generator = random.Random(7)
    allowed_at: list[int] = []
    for _ in range(600):
        await clock.pass_time(generator.choice([0, 0.001, 0.05, 0.3]))
        now = clock.now_ms()
        verdict = limiter.check_sliding_window("k", limit=5, window=1_000)
        inside = [at for at in allowed_at if at > now - 1_000]
        assert verdict.allowed == (len(inside) < 5)
        if verdict.allowed:
            allowed_at.append(now)
        else:
            assert verdict.retry_after_ms == inside[-5] + 1_000 - now
            assert verdict.reset_at == inside[-1] + 1_000


async def test_tokens_come_back_at_their_rate_up_to_the_capacity(
    limiter: RateLimiter, clock: ManualClock
) -> None:
    def take(tokens: int) -> tuple[bool, int, int]:
        verdict = limiter.check_token_bucket("k", capacity=10, refill_rate=2, tokens=tokens)
        return verdict.allowed, verdict.remaining, verdict.retry_after_ms

    assert take(8) == (True, 2, 0)
    assert take(3) == (False, 2, 500)
    await clock.pass_time(0.5)
    assert take(3) == (True, 0, 0)
    await clock.pass_time(3_600)
    assert take(10) == (True, 0, 0)
    assert take(1) == (False, 0, 500)


async def test_a_leaky_bucket_lets_through_at_its_rate(
    limiter: RateLimiter, clock: ManualClock
) -> None:
    assert sum(limiter.check_leaky_bucket("k", 3, 1.0).allowed for _ in range(10)) == 3
    for _ in range(20):
        await clock.pass_time(0.5)
        first = limiter.check_leaky_bucket("k", 3, 1.0).allowed
        await clock.pass_time(0.5)
        assert [first, limiter.check_leaky_bucket("k", 3, 1.0).allowed] == [False, True]


@pytest.mark.parametrize("rule", ["check", "check_sliding_window", "bucket"])
async def test_a_clock_that_goes_back_gives_nothing_away_and_locks_nobody_out(
    limiter: RateLimiter, clock: ManualClock, rule: str
) -> None:
    def check() -> bool:
        if rule == "bucket":
            return limiter.check_token_bucket("k", 2, 2.0).allowed
        verdict: Any = getattr(limiter, rule)("k", 2, 1_000)
        return bool(verdict.allowed)

    assert [check(), check(), check()] == [True, True, False]
    clock.set_time(clock.now_ms() - 3_600_000)
    assert not check()
    clock.set_time(clock.now_ms() + 3_602_000)
    assert check()


async def test_over_http_a_denial_is_429_with_the_seconds_to_wait(
    limiter: RateLimiter, clock: ManualClock
) -> None:
    bodies = {
        "/check": '{"key": "k", "limit": 1, "window": 1500}',
        "/check/sliding-window": '{"key": "k", "limit": 1, "window": 1500}',
        "/check/token-bucket": '{"key": "k", "capacity": 2, "refillRate": 1, "tokens": 2}',
        "/check/leaky-bucket": '{"key": "k", "capacity": 1, "leakRate": 0.5}',
    }
    for path, body in bodies.items():
        allowed = await limiter.fetch(Request(path, "POST", body=body))
        denied = await limiter.fetch(Request(path, "POST", body=body))
        assert (allowed.status, denied.status) == (200, 429)
        assert set(await allowed.json()) == {"allowed", "count", "remaining", "resetAt"}
        assert (await denied.json())["allowed"] is False
        assert denied.headers["retry-after"] == "2"
    await clock.pass_time(2)
    for path, body in bodies.items():
        assert (await limiter.fetch(Request(path, "POST", body=body))).status == 200


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        '{"key": "k"}',
        '{"key": "", "limit": 1, "window": 1}',
        '{"key": "k", "limit": 0, "window": 1}',
        '{"key": "k", "limit": 1, "window": -1}',
        '{"key": "k", "limit": 1.5, "window": 1}',
        '{"key": "k", "limit": 1, "window": 1, "more": 1}',
    ],
)
async def test_wrong_questions_are_refused(limiter: RateLimiter, body: str) -> None:
    with pytest.raises(InvalidRequestError):
        await limiter.fetch(Request("/check", "POST", body=body))


async def test_only_post_asks_and_only_known_rules_answer(limiter: RateLimiter) -> None:
    assert (await limiter.fetch(Request("/check"))).status == 405
    assert (await limiter.fetch(Request("/check/other", "POST", body="{}"))).status == 404


async def test_rows_that_say_nothing_any_more_go_and_so_does_the_object() -> None:
    clock = ManualClock()

    app = App()
    app.durable_object(RateLimiter)
    async with harness(app, clock=clock) as h:
        stub = h.env.RATE_LIMITER.get_by_name("a")
        for number in range(50):
            await stub.check(f"k{number}", 5, 30_000)
            await stub.check_sliding_window(f"k{number}", 5, 90_000)

        def rows(limiter: RateLimiter) -> list[int]:
            counts = (
                "SELECT (SELECT count(*) FROM rate_levels) a, (SELECT count(*) FROM rate_hits) b"
            )
            return list(limiter.ctx.storage.sql.exec(counts).one().values())

        assert await h.run_in_durable_object(stub, rows) == [50, 50]
        await h.advance(61)
        assert await h.run_in_durable_object(stub, rows) == [0, 50]
        await h.advance(61)
        await h.hibernate(stub)
        assert h.list_ids("rate-limiter") == []
        assert (await stub.check("k0", 5, 30_000)).count == 1
