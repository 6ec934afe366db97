"""Accounts: the users of a tenant, as rows of its own database.

All functions run within an event of the tenant, by the server's right; those that write, in the
current transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from dosql.accounts import Pagination, UserDetails, UserPage
from dosql.clock import iso_from_ms
from dosql.errors import ConflictError, NotFoundError, SqlError
from dosql.host.sessions import User
from dosql.host.tenant import Tenant
from dosql.sqlite.database import Database, Row

T = TypeVar("T")
_CREATE = """
INSERT INTO users (name, email, password_hash, created_at, updated_at)
VALUES (?1, ?2, ?3, ?4, ?4) ON CONFLICT DO NOTHING RETURNING id, name, email, role
"""
_LOGIN = "SELECT id, name, email, role, password_hash FROM users WHERE email = ?"
_BY_ID = "SELECT id, name, email, role, password_hash FROM users WHERE id = ?"
_SET_PASSWORD = "UPDATE users SET password_hash = ?, updated_at = ? WHERE id = ?"
_SET_ROLE = """
UPDATE users SET role = ?, updated_at = ? WHERE id = ? RETURNING id, name, email, role
"""
_MATCHES = "(?1 = '' OR instr(lower(name), ?1) > 0 OR instr(lower(email), ?1) > 0)"
_COUNT = f"SELECT count(*) FROM users WHERE {_MATCHES}"
_PAGE = f"""
SELECT id, name, email, bio, role, created_at, updated_at FROM users
WHERE {_MATCHES} AND (?2 IS NULL OR (created_at, id) < (?2, ?3))
ORDER BY created_at DESC, id DESC LIMIT ?4 OFFSET ?5
"""


@dataclass(frozen=True, slots=True)
class Login:
    """A user and what proves to be that user."""

    user: User
    password_hash: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class UserQuery:
    """Which users to list."""

    limit: int
    offset: int = 0
    search: str = ""
    """Part of a name or an address; ASCII letters match in either case."""
    after: tuple[int, int] | None = None
    """Creation time and id of the last user of the page before."""


async def in_accounts(
    tenant: Tenant, work: Callable[[Database], T], *, confirmed: bool = True
) -> T:
    """Run ``work`` as one transaction, durable when this returns. ``confirmed``: see
    `Instance.call`.

    Raises:
        NotFoundError: ``no_accounts``: the tenant's schema has no users or sessions.
    """

    def transaction(db: Database) -> T:
        with db.transaction():
            return work(db)

    try:
        return (await tenant.perform(transaction, confirmed=confirmed))[0]
    except SqlError as error:
        if error.message.startswith("no such "):
            raise NotFoundError(
                "The tenant's schema has no tables for users and sessions.", code="no_accounts"
            ) from error
        raise


def create_user(db: Database, name: str, email: str, password_hash: str, now_ms: int) -> User:
    """A user of the default role. Raises ConflictError (``email_taken``)."""
    rows = db.internal_query(_CREATE, (name, email, password_hash, now_ms))
    if not rows:
        raise ConflictError("Email already exists", code="email_taken")
    return _user(rows[0])


def find_login(db: Database, email: str) -> Login | None:
    """By address, in either case."""
    rows = db.internal_query(_LOGIN, (email,))
    return _login(rows[0]) if rows else None


def login_of(db: Database, user_id: int) -> Login | None:
    """By id."""
    rows = db.internal_query(_BY_ID, (user_id,))
    return _login(rows[0]) if rows else None


def set_password(db: Database, user_id: int, password_hash: str, now_ms: int) -> None:
    """Nothing if there is no such user."""
    db.internal_run(_SET_PASSWORD, (password_hash, now_ms, user_id))


def set_role(db: Database, user_id: int, role: str, now_ms: int) -> User:
    """Raises NotFoundError (``user_not_found``); ConstraintError for a role that is none."""
    rows = db.internal_query(_SET_ROLE, (role, now_ms, user_id))
    if not rows:
        raise NotFoundError("User not found", code="user_not_found")
    return _user(rows[0])


def list_users(db: Database, query: UserQuery) -> UserPage:
    """A page and the number of all that match, both of the same moment."""
    search = query.search.lower()
    time, id = query.after or (None, None)
    total = db.internal_query(_COUNT, (search,))[0][0]
    assert isinstance(total, int)
    rows = db.internal_query(_PAGE, (search, time, id, query.limit + 1, query.offset))
    more = len(rows) > query.limit
    rows = rows[: query.limit]
    cursor = f"{rows[-1][5]!r}-{rows[-1][0]!r}" if more else None
    pagination = Pagination(total, query.limit, query.offset, cursor)
    return UserPage([_details(row) for row in rows], pagination)


def _user(row: Row) -> User:
    id, name, email, role, *_ = row
    assert isinstance(id, int)
    return User(id, str(name), str(email), str(role))


def _login(row: Row) -> Login:
    password_hash = row[4]
    return Login(_user(row), password_hash if isinstance(password_hash, str) else None)


def _details(row: Row) -> UserDetails:
    id, name, email, bio, role, created, updated = row
    assert isinstance(id, int) and isinstance(created, int) and isinstance(updated, int)
    return UserDetails(
        id=id,
        name=str(name),
        email=str(email),
        bio=None if bio is None else str(bio),
        role=str(role),
        created_at=iso_from_ms(created),
        updated_at=iso_from_ms(updated),
    )
