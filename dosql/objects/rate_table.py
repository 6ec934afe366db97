"""Rate table: the state of rate limits in a tenant's database, and the statements that decide.

Each check is one statement: a row comes back if it was allowed, none if it was not, and then
nothing was written. So no number of simultaneous callers gets more than the limit, and a flood of
refused requests costs reading only.

``now`` is in milliseconds and passed in. A stored time that lies in the future, because the clock
was set back, is pulled back to now: that gives nothing away, and locks nobody out for longer than
the rule itself does.
"""

from __future__ import annotations

import hashlib

from dosql.objects.internal_table import InternalTable
from dosql.objects.rate_rules import (
    Rule,
    Verdict,
    Window,
    bucket_verdict,
    check_cost,
    fixed_verdict,
    sliding_verdict,
)
from dosql.sqlite.database import Database

_EXPIRY_MS = 60_000
"""Expiry is kept in these steps: so the index on it changes once a minute and key, not per hit."""

_STATE_COLUMNS = """(
  key BLOB PRIMARY KEY, -- see `rate_key`
  at INTEGER NOT NULL, -- start of the window; when the tokens were counted; GCRA: see there
  used INTEGER NOT NULL, -- units in the window; tokens left
  before INTEGER NOT NULL, -- units in the window before
  expires INTEGER NOT NULL -- from then on the row says nothing any more
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS _dosql_rate_limits_expires ON _dosql_rate_limits (expires)"""
_HIT_COLUMNS = """(
  key BLOB NOT NULL,
  at INTEGER NOT NULL,
  units INTEGER NOT NULL,
  expires INTEGER NOT NULL,
  PRIMARY KEY (key, at)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS _dosql_rate_hits_expires ON _dosql_rate_hits (expires)"""
# Whichever is needed first makes both: that one is missing would be found out again and again.
_STATES = InternalTable(
    "_dosql_rate_limits",
    f"{_STATE_COLUMNS}; CREATE TABLE IF NOT EXISTS _dosql_rate_hits {_HIT_COLUMNS}",
)
_HITS = InternalTable(
    "_dosql_rate_hits",
    f"{_HIT_COLUMNS}; CREATE TABLE IF NOT EXISTS _dosql_rate_limits {_STATE_COLUMNS}",
)

_INSERT = "INSERT INTO _dosql_rate_limits VALUES (:key, {at}, {used}, 0, :expires)"
_FIXED = (
    _INSERT.format(at=":now", used=":cost")
    + """
ON CONFLICT (key) DO UPDATE SET
  at = iif(:now - at < :window, min(at, :now), :now),
  used = iif(:now - at < :window, used, 0) + :cost,
  expires = :expires
WHERE iif(:now - at < :window, used, 0) + :cost <= :limit
RETURNING at, used, before"""
)

_COUNT = "iif(:now - at < :window, used, 0)"
_BEFORE = (
    "CASE WHEN :now - at < :window THEN before WHEN :now - at < 2 * :window THEN used ELSE 0 END"
)
_START = (
    "CASE WHEN :now - at < :window THEN min(at, :now)"
    " WHEN :now - at < 2 * :window THEN at + :window ELSE :now END"
)
_SLIDING = (
    _INSERT.format(at=":now", used=":cost")
    + f"""
ON CONFLICT (key) DO UPDATE SET
  at = {_START}, used = {_COUNT} + :cost, before = {_BEFORE}, expires = :expires
WHERE ({_BEFORE}) * (:window - :now + ({_START})) + ({_COUNT} + :cost) * :window
  <= :limit * :window
RETURNING at, used, before"""
)

# Tokens in units of 1/window: `limit` of them come back each millisecond.
_TOKENS = "min(:capacity, used + max(:now - at, 0) * :limit)"
_BUCKET = (
    _INSERT.format(at=":now", used=":capacity - :take")
    + f"""
ON CONFLICT (key) DO UPDATE SET at = :now, used = {_TOKENS} - :take, expires = :expires
WHERE {_TOKENS} >= :take
RETURNING at, used, before"""
)

# The theoretical arrival time, in units of 1/limit ms, of which one unit takes `window`.
_GCRA = (
    _INSERT.format(at=":scaled + :take", used="0")
    + """
ON CONFLICT (key) DO UPDATE SET at = max(at, :scaled) + :take, expires = :expires
WHERE max(at, :scaled) + :take - :scaled <= :capacity
RETURNING at, used, before"""
)

_LOG = """INSERT INTO _dosql_rate_hits
SELECT :key, :now, :cost, :expires
WHERE coalesce((SELECT sum(units) FROM _dosql_rate_hits
                WHERE key = :key AND at > :now - :window), 0) + :cost <= :limit
ON CONFLICT (key, at) DO UPDATE SET units = units + excluded.units
RETURNING at"""

_STATEMENTS = {"fixed": _FIXED, "sliding": _SLIDING, "bucket": _BUCKET, "gcra": _GCRA}
_STATE = "SELECT at, used, before FROM _dosql_rate_limits WHERE key = ?"
_PULL_BACK = "UPDATE _dosql_rate_limits SET at = ? WHERE key = ?"
_LOGGED = "SELECT coalesce(sum(units), 0), max(at) FROM _dosql_rate_hits WHERE key = ? AND at > ?"
_FORGET = "DELETE FROM _dosql_rate_hits WHERE key = ? AND at <= ?"
_OLDEST = "SELECT at, units FROM _dosql_rate_hits WHERE key = ? AND at > ? ORDER BY at LIMIT ?"
_CLEAN = (
    (_STATES, "_dosql_rate_limits", "key"),
    (_HITS, "_dosql_rate_hits", "(key, at)"),
)


def rate_key(*parts: object) -> bytes:
    """A key of 16 bytes for what is counted: nothing of what a user sent is stored."""
    text = "\0".join(str(part) for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


def hit(db: Database, rule: Rule, key: bytes, now: int, cost: int = 1) -> Verdict:
    """Take ``cost`` units, if they are there.

    Raises:
        InvalidRequestError: ``invalid_request``: more than could ever be there.
        DosqlError: the database could not be written.
    """
    check_cost(rule, cost)
    if rule.algorithm == "log":
        return _hit_log(db, rule, key, now, cost)
    params: dict[str, int | bytes] = {
        "key": key,
        "now": now,
        "cost": cost,
        "limit": rule.limit,
        "window": rule.window_ms,
        "take": cost * rule.window_ms,
        "capacity": rule.capacity * rule.window_ms,
        "scaled": now * rule.limit,
        "expires": _expiry(rule, now),
    }
    rows = _STATES.upsert(db, _STATEMENTS[rule.algorithm], params)
    allowed = bool(rows)
    state = rows[0] if allowed else db.internal_query(_STATE, (key,))[0]
    at, used, before = (int(str(value)) for value in state)
    ahead = _ahead(rule, at, now)
    if ahead is not None:
        at = ahead
        if not allowed:
            db.internal_run(_PULL_BACK, (at, key))
    if rule.algorithm == "gcra":
        base = max(at, now * rule.limit)
        tokens = now * rule.limit + rule.capacity * rule.window_ms - base
        return bucket_verdict(rule, tokens, cost, allowed=allowed)
    if rule.algorithm == "bucket":
        tokens = min(rule.capacity * rule.window_ms, used + (now - at) * rule.limit)
        return bucket_verdict(rule, tokens, cost, allowed=allowed)
    window = _window(rule, at, used, before, now)
    verdict = fixed_verdict if rule.algorithm == "fixed" else sliding_verdict
    return verdict(rule, window, now, cost, allowed=allowed)


def _ahead(rule: Rule, at: int, now: int) -> int | None:
    """What a stored time that lies in the future is pulled back to; None: it does not."""
    latest = now
    if rule.algorithm == "gcra":
        latest = now * rule.limit + rule.capacity * rule.window_ms
    return latest if at > latest else None


def _window(rule: Rule, at: int, used: int, before: int, now: int) -> Window:
    """The window that holds ``now``, from a row that may be older."""
    if now - at < rule.window_ms:
        return Window(at, used, before)
    if rule.algorithm == "sliding" and now - at < 2 * rule.window_ms:
        return Window(at + rule.window_ms, 0, used)
    return Window(now, 0)


def _hit_log(db: Database, rule: Rule, key: bytes, now: int, cost: int) -> Verdict:
    since = now - rule.window_ms
    params: dict[str, int | bytes] = {
        "key": key,
        "now": now,
        "cost": cost,
        "limit": rule.limit,
        "window": rule.window_ms,
        "expires": _expiry(rule, now),
    }
    allowed = bool(_HITS.upsert(db, _LOG, params))
    db.internal_run(_FORGET, (key, since))
    row = db.internal_query(_LOGGED, (key, since))[0]
    used = int(str(row[0]))
    newest = now if row[1] is None else int(str(row[1]))
    if newest > now:
        _pull_back_hits(db, rule, key, now)
        newest = now
    reset = newest + rule.window_ms - now if used else 0
    retry = 0
    if not allowed:
        too_many = used + cost - rule.limit
        for at, units in db.internal_query(_OLDEST, (key, since, too_many)):
            too_many -= int(str(units))
            if too_many <= 0:
                retry = int(str(at)) + rule.window_ms - now
                break
    return Verdict(allowed, rule.limit, rule.limit - used, reset, retry)


def _pull_back_hits(db: Database, rule: Rule, key: bytes, now: int) -> None:
    """Hits of the future become one hit of now."""
    with db.transaction():
        ahead = db.internal_query(
            "SELECT sum(units) FROM _dosql_rate_hits WHERE key = ? AND at > ?", (key, now)
        )[0][0]
        db.internal_run("DELETE FROM _dosql_rate_hits WHERE key = ? AND at > ?", (key, now))
        db.internal_run(
            "INSERT INTO _dosql_rate_hits VALUES (?, ?, ?, ?)"
            " ON CONFLICT (key, at) DO UPDATE SET units = units + excluded.units",
            (key, now, ahead, _expiry(rule, now)),
        )


def _expiry(rule: Rule, now: int) -> int:
    return ((now + rule.memory_ms) // _EXPIRY_MS + 1) * _EXPIRY_MS


def clean_up(db: Database, now: int, rows_max: int) -> int:
    """Delete rows that say nothing any more, at most so many of each table; how many went."""
    deleted = 0
    for table, name, columns in _CLEAN:
        deleted += table.delete(
            db,
            f"DELETE FROM {name} WHERE {columns} IN"
            f" (SELECT {columns.strip('()')} FROM {name} WHERE expires <= ? LIMIT ?)",
            (now, rows_max),
        )
    return deleted
