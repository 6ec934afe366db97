"""Login attempts: how often somebody may try to log in, kept in the tenant's own database.

- An attempt counts as failed from its beginning, so that many at once are not told from many in a
  row. Behind the free ones each must wait longer than the one before.
- Counting is one statement within one event of the tenant: however many come at once, no more get
  in. An attempt that is refused writes nothing.
- No attempt waits for a disk: what it wrote goes to the log a second later at the latest. So the
  counts outlive a restart, and a crash forgets those of its last second.
- The table is bounded: what says nothing any more goes, and beyond `ROWS_MAX` what would have gone
  first.

Times are in milliseconds. A stored time that lies too far in the future, because the clock was set
back between two starts, is pulled back to what a failure of now would bring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dosql.clock import Clock
from dosql.limits import ATTEMPTS_FORGOTTEN_S, ATTEMPTS_KEPT_MAX
from dosql.objects.internal_table import InternalTable
from dosql.sqlite.database import Database

ROWS_MAX = ATTEMPTS_KEPT_MAX
"""About 2 MB of a tenant's database."""
TIDY_EVERY = 64
"""Attempts between two looks for rows that can go."""
TIDY_ROWS = 256
"""Rows deleted at one look: more than can have come since the last one."""
_FORGOTTEN_MS = int(ATTEMPTS_FORGOTTEN_S * 1_000)

_TABLE = InternalTable(
    "_dosql_login_attempts",
    """(
  key BLOB PRIMARY KEY, -- see `rate_key`: neither addresses nor accounts are stored
  failures INTEGER NOT NULL,
  seen INTEGER NOT NULL, -- when the newest of them began
  next INTEGER NOT NULL, -- when another is allowed
  expires INTEGER NOT NULL -- from then on the row says nothing any more
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS _dosql_login_attempts_expires ON _dosql_login_attempts (expires)""",
)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one key may do."""

    free: int
    """Failures without any delay."""
    delay_s_max: float

    @property
    def delay_ms_max(self) -> int:
        """The longest delay."""
        return int(self.delay_s_max * 1_000)


Keys = Sequence[tuple[bytes, Allowance]]
"""What an attempt counts for; see `rate_key`."""


def _delay(count: str, free: str, most: str) -> str:
    """SQL: 1, 2, 4... seconds behind the free ones, in milliseconds."""
    return f"iif({count} < {free}, 0, min(1000 << min({count} - {free}, 30), {most}))"


_COUNT = "(iif(t.expires > :now, t.failures, 0) + 1)"  # of no row: NULL > :now is not true
_BEGIN = f"""
INSERT OR REPLACE INTO _dosql_login_attempts
SELECT k.column1, {_COUNT}, :now, :now + {{delay}}, :now + {{delay}} + {_FORGOTTEN_MS}
FROM (VALUES {{keys}}) AS k LEFT JOIN _dosql_login_attempts AS t ON t.key = k.column1
WHERE NOT EXISTS (SELECT 1 FROM _dosql_login_attempts WHERE key IN ({{names}}) AND next > :now)
RETURNING key
""".replace("{delay}", _delay(_COUNT, "k.column2", "k.column3"))
_NEXT = "SELECT next FROM _dosql_login_attempts WHERE key = ? AND next > ?"
_PULL_BACK = """
UPDATE _dosql_login_attempts SET seen = ?2, next = ?3, expires = ?4 WHERE key = ?1
"""
_TAKE_BACK = f"""
UPDATE _dosql_login_attempts SET failures = failures - 1,
next = seen + {_delay("failures - 1", "?2", "?3")},
expires = seen + {_delay("failures - 1", "?2", "?3")} + {_FORGOTTEN_MS}
WHERE key = ?1
"""
_FORGET_NOTHING = "DELETE FROM _dosql_login_attempts WHERE key = ? AND failures <= 0"
_FORGET = "DELETE FROM _dosql_login_attempts WHERE key = ?"
_TIDY = """
DELETE FROM _dosql_login_attempts WHERE key IN
(SELECT key FROM _dosql_login_attempts WHERE expires <= ? ORDER BY expires LIMIT ?)
"""
_ROWS = "SELECT count(*) FROM _dosql_login_attempts"
_ALWAYS = 1 << 62


class LoginAttempts:
    """The attempts of all tenants of a host. All methods but `now_ms` run within an event of the
    tenant whose database they are given, and in its current transaction."""

    def __init__(self, clock: Clock, *, rows_max: int = ROWS_MAX) -> None:
        self._monotonic = clock.monotonic
        self._epoch_ms = clock.now_ms() - int(clock.monotonic() * 1_000)
        self._rows_max = rows_max
        self._begun = 0

    def now_ms(self) -> int:
        """The wall clock's time as of the start, moved on by the monotonic clock."""
        return self._epoch_ms + int(self._monotonic() * 1_000)

    def begin(self, db: Database, keys: Keys) -> int:
        """Count an attempt for all keys, and return 0; or how long to wait before the next one, if
        any of the keys must: then it is counted for none."""
        now = self.now_ms()
        self._begun += 1
        if self._begun % TIDY_EVERY == 0:
            self._tidy(db, now)
        params: dict[str, int | bytes] = {"now": now}
        for number, (key, allowance) in enumerate(keys):
            params |= {
                f"k{number}": key,
                f"f{number}": allowance.free,
                f"m{number}": allowance.delay_ms_max,
            }
        numbers = range(len(keys))
        sql = _BEGIN.format(
            keys=", ".join(f"(:k{each}, :f{each}, :m{each})" for each in numbers),
            names=", ".join(f":k{each}" for each in numbers),
        )
        if _TABLE.upsert(db, sql, params):
            return 0
        return max(self._wait(db, key, allowance, now) for key, allowance in keys)

    def _wait(self, db: Database, key: bytes, allowance: Allowance, now: int) -> int:
        rows = _TABLE.query(db, _NEXT, (key, now))
        if not rows:
            return 0
        wait, most = int(str(rows[0][0])) - now, allowance.delay_ms_max
        if wait > most:
            db.internal_run(_PULL_BACK, (key, now, now + most, now + most + _FORGOTTEN_MS))
        return min(wait, most)

    def succeeded(self, db: Database, keys: Keys) -> None:
        """The attempt was none: take it back, and forget the first key's failures."""
        self.gave_up(db, keys)
        _TABLE.delete(db, _FORGET, (keys[0][0],))

    def gave_up(self, db: Database, keys: Keys) -> None:
        """It was not tried after all: take it back."""
        for key, allowance in keys:
            _TABLE.delete(db, _TAKE_BACK, (key, allowance.free, allowance.delay_ms_max))
            _TABLE.delete(db, _FORGET_NOTHING, (key,))

    def _tidy(self, db: Database, now: int) -> None:
        if _TABLE.delete(db, _TIDY, (now, TIDY_ROWS)) >= TIDY_ROWS:
            return
        rows = _TABLE.query(db, _ROWS)
        too_many = int(str(rows[0][0])) - self._rows_max if rows else 0
        if too_many > 0:
            _TABLE.delete(db, _TIDY, (_ALWAYS, min(too_many, TIDY_ROWS)))
