"""RateLimiter: who may still do something, by one of four rules.

| route | body | rule |
|---|---|---|
| ``POST /check`` | ``key, limit, window`` (ms) | ``limit`` in a window opened by its first hit |
| ``POST /check/sliding-window`` | the same | ``limit`` in any stretch of ``window`` |
| ``POST /check/token-bucket`` | ``key, capacity, refillRate``, ``tokens`` | tokens come back |
| ``POST /check/leaky-bucket`` | ``key, capacity, leakRate`` | what was poured in runs out |

Rates are per second.

The answer is ``{"allowed", "count", "remaining", "resetAt"}``: 200, or 429 with ``Retry-After`` in
whole seconds, after which the same check succeeds if nobody else comes first. ``count`` is how much
is used now, ``resetAt`` (ms) when nothing will be. A check that was denied changes nothing. Each
check is one step of the object: no number of simultaneous callers gets more than the limit.

The rules do not share their counts. Rows that say nothing any more are deleted by an alarm. One
object can hold many keys, but serves one event at a time: name objects after what they guard, and
spread over several when one is too busy. Whoever calls decides the limits: keep them in your code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from dosql import AlarmInfo, InvalidRequestError, ObjectState, Request, Response
from dosql.patterns.base import BaseDurableObject

_KEY_CHARS_MAX = 256
_AMOUNT_MAX = 1_000_000
_SLIDING_LIMIT_MAX = 10_000
"""A sliding window remembers each hit."""
_WINDOW_MS_MAX = 366 * 24 * 60 * 60 * 1_000
_CLEAN_UP = "rate-limiter-clean-up"
_CLEAN_UP_S = 60
_CLEAN_UP_ROWS = 1_000
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS rate_levels (
        rule TEXT NOT NULL,
        key TEXT NOT NULL,
        level REAL NOT NULL,
        at_ms INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        PRIMARY KEY (rule, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS rate_levels_expiry ON rate_levels(expires_at);
    CREATE TABLE IF NOT EXISTS rate_hits (
        key TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        expires_at INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS rate_hits_key ON rate_hits(key, at_ms);
    CREATE INDEX IF NOT EXISTS rate_hits_expiry ON rate_hits(expires_at);
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found."""

    allowed: bool
    count: int
    """Used now, this hit included if it was allowed."""
    remaining: int
    reset_at: int
    """When nothing is used any more if nobody comes, in ms since the Unix epoch."""
    retry_after_ms: int
    """0 if allowed; else when the same check can succeed."""


class _Window(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    limit: int
    window: int


class _Bucket(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    key: str
    capacity: int
    refill_rate: float
    tokens: int = 1


class _Leaky(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    key: str
    capacity: int
    leak_rate: float


class RateLimiter(BaseDurableObject):
    """The four rules as RPC methods, and over HTTP."""

    not_rpc: ClassVar[frozenset[str]] = BaseDurableObject.not_rpc

    def __init__(self, ctx: ObjectState, env: Any) -> None:
        super().__init__(ctx, env)
        self._has_schema = False

    def check(self, key: str, limit: int, window: int) -> Verdict:
        """At most ``limit`` hits in ``window`` ms, counted from the first of them."""
        _check_window(key, limit, window, _AMOUNT_MAX)
        level, started, now = self._level("window", key)
        if level == 0 or now >= started + window:
            level, started = 0.0, now
        ends_at = started + window
        if level + 1 > limit:
            return _verdict(False, level, limit, ends_at, ends_at - now)
        self._store("window", key, level + 1, started, ends_at)
        return _verdict(True, level + 1, limit, ends_at, 0)

    def check_sliding_window(self, key: str, limit: int, window: int) -> Verdict:
        """At most ``limit`` hits in any stretch of ``window`` ms."""
        _check_window(key, limit, window, _SLIDING_LIMIT_MAX)
        sql = self._prepared()
        newest = sql.exec("SELECT max(at_ms) AS at FROM rate_hits WHERE key = ?", key).one()["at"]
        now = max(self.now_ms(), newest or 0)
        inside = (key, now - window)
        count = sql.exec(
            "SELECT count(*) AS n FROM rate_hits WHERE key = ? AND at_ms > ?", *inside
        ).one()["n"]
        if count >= limit:
            # As many must leave the window as are too many now, and one more.
            leaves_at = (
                window
                + sql.exec(
                    "SELECT at_ms FROM rate_hits WHERE key = ? AND at_ms > ? "
                    "ORDER BY at_ms LIMIT 1 OFFSET ?",
                    *(*inside, count - limit),
                ).one()["at_ms"]
            )
            return _verdict(False, count, limit, newest + window, leaves_at - now)
        sql.exec("INSERT INTO rate_hits VALUES (?, ?, ?)", key, now, now + window)
        return _verdict(True, count + 1, limit, now + window, 0)

    def check_token_bucket(
        self, key: str, capacity: int, refill_rate: float, tokens: int = 1
    ) -> Verdict:
        """Take ``tokens`` of at most ``capacity``; ``refill_rate`` of them come back per second."""
        return self._bucket("tokens", key, capacity, refill_rate, tokens)

    def check_leaky_bucket(self, key: str, capacity: int, leak_rate: float) -> Verdict:
        """Pour one unit into a bucket of ``capacity`` that loses ``leak_rate`` per second."""
        return self._bucket("leaky", key, capacity, leak_rate, 1)

    def _bucket(self, rule: str, key: str, capacity: int, rate: float, cost: int) -> Verdict:
        """Both buckets are the same one, seen from its two sides: ``level`` is what is used."""
        _check_key(key)
        _check_amount("capacity", capacity, _AMOUNT_MAX)
        _check_amount("tokens", cost, capacity)
        if not (0 < rate <= _AMOUNT_MAX):
            raise InvalidRequestError(f"The rate must be above 0, at most {_AMOUNT_MAX}.")
        level, at, now = self._level(rule, key)
        level = max(0.0, level - (now - at) * rate / 1_000)
        too_much = level + cost - capacity
        if too_much > 1e-9:
            empty_at = now + math.ceil(level * 1_000 / rate)
            return _verdict(False, level, capacity, empty_at, math.ceil(too_much * 1_000 / rate))
        level += cost
        empty_at = now + math.ceil(level * 1_000 / rate)
        self._store(rule, key, level, now, empty_at)
        return _verdict(True, level, capacity, empty_at, 0)

    # --- rows ---------------------------------------------------------------------------------

    def _level(self, rule: str, key: str) -> tuple[float, int, int]:
        """What is stored, since when, and what time it is: never earlier than what is stored."""
        rows = self._prepared().exec(
            "SELECT level, at_ms FROM rate_levels WHERE rule = ? AND key = ?", rule, key
        )
        now = self.now_ms()
        for row in rows:
            return row["level"], row["at_ms"], max(now, row["at_ms"])
        return 0.0, now, now

    def _store(self, rule: str, key: str, level: float, at_ms: int, expires_at: int) -> None:
        self._prepared().exec(
            "INSERT OR REPLACE INTO rate_levels VALUES (?, ?, ?, ?, ?)",
            *(rule, key, level, at_ms, expires_at),
        )

    def _prepared(self) -> Any:
        sql = self.ctx.storage.sql
        if not self._has_schema:
            sql.exec(_SCHEMA)
            self._has_schema = True
            if self.ctx.storage.alarms.get(_CLEAN_UP) is None:
                self.ctx.storage.alarms.schedule(_CLEAN_UP, after=_CLEAN_UP_S)
        return sql

    async def alarm(self, info: AlarmInfo) -> None:
        """Delete what says nothing any more, some of it at a time.

        A subclass with alarms of its own calls this for those it does not know.
        """
        if info.name != _CLEAN_UP:
            return
        sql, now = self._prepared(), self.now_ms()
        for table, columns in (("rate_levels", "rule, key"), ("rate_hits", "rowid")):
            sql.exec(
                f"DELETE FROM {table} WHERE ({columns}) IN "
                f"(SELECT {columns} FROM {table} WHERE expires_at <= ? LIMIT ?)",
                *(now, _CLEAN_UP_ROWS),
            )
        left = "SELECT (SELECT count(*) FROM rate_levels) + (SELECT count(*) FROM rate_hits) AS n"
        if sql.exec(left).one()["n"]:
            self.ctx.storage.alarms.schedule(_CLEAN_UP, after=_CLEAN_UP_S)
        else:  # nothing is left: the object takes no disk space until somebody comes again
            sql.exec("DROP TABLE rate_levels; DROP TABLE rate_hits")
            self._has_schema = False

    # --- HTTP ---------------------------------------------------------------------------------

    async def handle_request(self, request: Request) -> Response:
        checks = {
            "/check": self._http_window,
            "/check/sliding-window": self._http_sliding,
            "/check/token-bucket": self._http_tokens,
            "/check/leaky-bucket": self._http_leaky,
        }
        check = checks.get(request.path)
        if check is None:
            return self.error("Not found", 404)
        if request.method != "POST":
            return self.method_not_allowed("POST")
        verdict = await check(request)
        body = {
            "allowed": verdict.allowed,
            "count": verdict.count,
            "remaining": verdict.remaining,
            "resetAt": verdict.reset_at,
        }
        if verdict.allowed:
            return self.json(body)
        retry_after = str(math.ceil(verdict.retry_after_ms / 1_000))
        return self.json(body, 429, {"Retry-After": retry_after})

    async def _http_window(self, request: Request) -> Verdict:
        return self.check(**msgspec.structs.asdict(await request.json(_Window)))

    async def _http_sliding(self, request: Request) -> Verdict:
        return self.check_sliding_window(**msgspec.structs.asdict(await request.json(_Window)))

    async def _http_tokens(self, request: Request) -> Verdict:
        return self.check_token_bucket(**msgspec.structs.asdict(await request.json(_Bucket)))

    async def _http_leaky(self, request: Request) -> Verdict:
        return self.check_leaky_bucket(**msgspec.structs.asdict(await request.json(_Leaky)))


def _verdict(
    allowed: bool, level: float, limit: int, reset_at: int, retry_after_ms: int
) -> Verdict:
    count = math.ceil(level - 1e-9)
    return Verdict(allowed, count, max(0, limit - count), reset_at, max(0, retry_after_ms))


def _check_window(key: str, limit: int, window: int, limit_max: int) -> None:
    _check_key(key)
    _check_amount("limit", limit, limit_max)
    _check_amount("window", window, _WINDOW_MS_MAX)


def _check_key(key: str) -> None:
    if not 1 <= len(key) <= _KEY_CHARS_MAX:
        raise InvalidRequestError(f"key must have 1 to {_KEY_CHARS_MAX} characters.")


def _check_amount(what: str, amount: int, most: int) -> None:
    if not 1 <= amount <= most:
        raise InvalidRequestError(f"{what} must be from 1 to {most}.")
