"""Sessions: who a user's token speaks for, kept in the tenant's own database.

A token is ``dss_`` and 256 random bits; the database has its SHA-256 only. Invariants:

- A session ends at its absolute end, however often it is refreshed, and when it was not used for
  as long as the idle limit says (give or take `Sessions.touch_ms`).
- A token is of one life of one tenant: in a branch, a copy or an import it opens nothing; and after
  a restore in place nobody is logged in (see `end_sessions`).
- What was checked is remembered for as long as no commit was made in the tenant's database. So
  whatever ends a session (a logout, a new password, a deleted user, plain SQL) is seen by the next
  request, and a request between two commits costs one look-up in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar
from weakref import WeakKeyDictionary

import msgspec

from dosql.clock import Clock, Randomness
from dosql.errors import BudgetError, DosqlError, NotFoundError, SqlError
from dosql.host.tenant import Tenant
from dosql.host.tenants import Tenants
from dosql.limits import SESSION_TOUCH_S_MAX, SESSIONS_CACHED_MAX, SESSIONS_PER_USER_MAX
from dosql.objects.instance import Instance, InstanceClosed
from dosql.sqlite.database import Database

T = TypeVar("T")
PREFIX = b"dss_"
_TOKEN = re.compile(rb"dss_[A-Za-z0-9_-]{43}")
_FIND = """
SELECT u.id, u.name, u.email, u.role, s.last_used_at, s.expires_at
FROM sessions AS s JOIN users AS u ON u.id = s.user_id
WHERE s.token_hash = ? AND s.expires_at > ? AND s.last_used_at > ?
"""
_TOUCH = "UPDATE sessions SET last_used_at = ?1 WHERE token_hash = ?2 AND last_used_at < ?1"
_INSERT = "INSERT INTO sessions VALUES (?1, ?2, ?3, ?3, ?4)"
_ROTATE = "UPDATE sessions SET token_hash = ?, last_used_at = ? WHERE token_hash = ?"
_END = "DELETE FROM sessions WHERE token_hash = ?"
_END_ALL = "DELETE FROM sessions WHERE user_id = ?"
_END_OLDEST = """
DELETE FROM sessions WHERE user_id = ?1 AND token_hash NOT IN
(SELECT token_hash FROM sessions WHERE user_id = ?1 ORDER BY last_used_at DESC LIMIT ?2)
"""
_END_EXPIRED = """
DELETE FROM sessions WHERE token_hash IN
(SELECT token_hash FROM sessions WHERE expires_at <= ? ORDER BY expires_at LIMIT 20)
"""


class User(msgspec.Struct, frozen=True):
    """A user as of the check."""

    id: int
    name: str
    email: str
    role: str


@dataclass(frozen=True, slots=True)
class Session:
    """A session that was checked."""

    user: User
    hash: bytes = field(repr=False)
    """SHA-256 of its token."""
    last_used_ms: int
    ends_ms: int
    """The absolute end."""


class SessionSettings(msgspec.Struct, frozen=True):
    """Both in milliseconds."""

    life_ms: int
    idle_ms: int

    @classmethod
    def of(cls, life_s: float, idle_s: float) -> SessionSettings:
        """From seconds."""
        return cls(round(life_s * 1000), round(idle_s * 1000))


class _Known(msgspec.Struct):
    """Sessions as of one state of the database."""

    version: tuple[int, int] = (-1, -1)
    sessions: dict[bytes, Session] = msgspec.field(default_factory=dict[bytes, Session])


class Sessions:
    """The sessions of all tenants of a host."""

    def __init__(
        self, tenants: Tenants, settings: SessionSettings, clock: Clock, randomness: Randomness
    ) -> None:
        self._tenants = tenants
        self._settings = settings
        self._clock = clock
        self._randomness = randomness
        self._known: WeakKeyDictionary[Instance, _Known] = WeakKeyDictionary()
        self.touch_ms = min(int(SESSION_TOUCH_S_MAX * 1000), settings.idle_ms // 10)
        """A session that was used so long ago is noted as used again."""

    # --- checks -------------------------------------------------------------------------------

    async def check(self, tenant: Tenant, token: bytes) -> Session | None:
        """Whose session it is now; None if there is none: unknown, expired and ended are not told
        apart."""
        if not _TOKEN.fullmatch(token):
            return None
        return await self.find(tenant, hash_of(tenant, token.decode()))

    async def find(self, tenant: Tenant, hash: bytes) -> Session | None:
        """`check`, by the token's SHA-256."""
        now = self._clock.now_ms()
        instance = self._tenants.awake.peek(tenant.key)
        if instance is not None:
            session = self._remembered(instance).get(hash)
            if session is not None:
                if self.end_of(session) <= now:
                    return None
                # An open transaction has the turn, and may be this session's own.
                if now - session.last_used_ms < self.touch_ms or instance.turns.busy:
                    return session
        return await self._look_up(tenant, hash, now)

    async def _look_up(self, tenant: Tenant, hash: bytes, now: int) -> Session | None:
        try:
            return await self._in_turn(tenant, lambda db: self._find(db, hash, now))
        except SqlError:  # a schema without these tables has no sessions
            return None

    def end_of(self, session: Session) -> int:
        """When it ends if it is not used again, in milliseconds since the Unix epoch."""
        return min(session.ends_ms, session.last_used_ms + self._settings.idle_ms)

    def follow(
        self, tenant: Tenant, session: Session, roles: frozenset[str] | None = None
    ) -> Callable[[], bool | Awaitable[bool]]:
        """For a stream: whether the session is still good, and its user's role one of these. Told
        at once if nothing was committed since; a tenant that sleeps, and slept in between, is left
        alone."""
        seen = (-1, -1)

        def still_valid() -> bool | Awaitable[bool]:
            now = self._clock.now_ms()
            if self.end_of(session) <= now or not self._lives(tenant):
                return False
            instance = self._tenants.awake.peek(tenant.key)
            if instance is not None:
                state = instance.bookmark.txid, instance.db.wal_frames
                return True if state == seen else check(state)
            state = self._tenants.awake.txid(tenant.key), 0
            return True if state[0] == seen[0] else check(state)

        async def check(state: tuple[int, int]) -> bool:
            nonlocal seen, session
            found = await self.find(tenant, session.hash)
            if found is None or (roles is not None and found.user.role not in roles):
                return False
            seen, session = state, found
            return True

        return still_valid

    def _lives(self, tenant: Tenant) -> bool:
        with contextlib.suppress(NotFoundError):
            return self._tenants.get(tenant.name).key == tenant.key
        return False

    def _remembered(self, instance: Instance) -> dict[bytes, Session]:
        known = self._known.get(instance)
        if known is None:
            known = self._known[instance] = _Known()
        # The second number tells commits apart that will share a batch.
        version = instance.bookmark.txid, instance.db.wal_frames
        if known.version != version or len(known.sessions) >= SESSIONS_CACHED_MAX:
            known.version = version
            known.sessions.clear()
        return known.sessions

    def _find(self, db: Database, hash: bytes, now: int) -> Session | None:
        rows = db.internal_query(_FIND, (hash, now, now - self._settings.idle_ms))
        if not rows:
            return None
        id, name, email, role, used, ends = rows[0]
        assert isinstance(id, int) and isinstance(used, int) and isinstance(ends, int)
        if now - used >= self.touch_ms:
            with contextlib.suppress(DosqlError):  # writes may be refused just now
                db.internal_run(_TOUCH, (now, hash))
                used = now
        return Session(User(id, str(name), str(email), str(role)), hash, used, ends)

    async def _in_turn(
        self, tenant: Tenant, work: Callable[[Database], Session | None]
    ) -> Session | None:
        """Run ``work`` as an event that does not wait for earlier writes to be durable: whoever
        asks has yet to do what it came for, and waits then."""
        awake = self._tenants.awake
        while True:
            instance = awake.find(tenant.key) or await self._tenants.wake(tenant)
            if not instance.turns.try_enter():
                await instance.turns.enter()
            try:
                instance.check_open()
                session = instance.run_inline(work)
                if session is not None:
                    self._remembered(instance)[session.hash] = session
                return session
            except InstanceClosed:
                continue
            except BudgetError:
                pass
            finally:
                instance.turns.leave()
            return (await tenant.perform(work))[0]

    # --- beginning and ending, within an event of the tenant -------------------------------------

    def new_token(self) -> str:
        """Text that nobody can guess; it opens nothing until `begin` or `rotate`."""
        return PREFIX.decode() + self._randomness.token_urlsafe(32)

    def begin(self, db: Database, tenant: Tenant, user: User, token: str) -> Session:
        """Make ``token`` open a new session of the user, in the current transaction."""
        now = self._clock.now_ms()
        session = Session(user, hash_of(tenant, token), now, now + self._settings.life_ms)
        db.internal_run(_END_EXPIRED, (now,))
        db.internal_run(_END_OLDEST, (user.id, SESSIONS_PER_USER_MAX - 1))
        db.internal_run(_INSERT, (session.hash, user.id, now, session.ends_ms))
        return session

    def rotate(self, db: Database, tenant: Tenant, session: Session, token: str) -> Session | None:
        """Make ``token`` open the session instead of its old one; None if it has ended."""
        now = self._clock.now_ms()
        current = self._find(db, session.hash, now)
        new = hash_of(tenant, token)
        if current is None or not db.internal_run(_ROTATE, (new, now, session.hash)):
            return None
        return Session(current.user, new, now, current.ends_ms)

    def end(self, db: Database, session: Session) -> None:
        """End one session; nothing if it has ended."""
        db.internal_run(_END, (session.hash,))

    def end_all(self, db: Database, user_id: int) -> None:
        """End all sessions of a user."""
        db.internal_run(_END_ALL, (user_id,))


def hash_of(tenant: Tenant, token: str) -> bytes:
    """What is stored of a token: of the same text another for every life of every tenant."""
    life = tenant.key.incarnation.to_bytes(8, "little")
    return hashlib.sha256(b"".join((tenant.key.id, life, token.encode()))).digest()


def end_sessions(db: Database) -> None:
    """End all there are, in a tenant's database that is not open to anybody."""
    if db.internal_query("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'sessions'"):
        db.internal_run("DELETE FROM sessions")
