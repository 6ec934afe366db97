"""Auth: signing up, logging in and out, in terms of a tenant's database and of passwords.

Every failed login has one answer and takes one time, whatever was wrong. No work on a password
runs within an event of the tenant, so a login holds up nobody's statements.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from dosql.accounts import (
    ChangePassword,
    CurrentSession,
    LogIn,
    SessionCreated,
    SetRole,
    SignUp,
    TicketCreated,
    UserInfo,
    UserPage,
)
from dosql.clock import Clock, iso_from_ms
from dosql.errors import (
    AuthenticationError,
    ConflictError,
    DosqlError,
    InvalidRequestError,
    OverloadedError,
)
from dosql.host.accounts import (
    Login,
    UserQuery,
    create_user,
    find_login,
    in_accounts,
    list_users,
    login_of,
    set_password,
    set_role,
)
from dosql.host.sessions import Session, Sessions, User
from dosql.host.tenant import Tenant
from dosql.limits import EMAIL_CHARS_MAX, USER_NAME_CHARS_MAX
from dosql.sqlite.database import Database
from server.auth_attempts import LoginLimits
from server.auth_limits import Attempt, AuthLimits
from server.auth_passwords import Passwords, check_password
from server.auth_tickets import Tickets
from server.client_address import ClientAddress
from server.context import context_of
from server.gate import Principal

_EMAIL = re.compile(r"[^\s@\x00-\x1f\x7f]{1,64}@[^\s@\x00-\x1f\x7f]+\.[^\s@.\x00-\x1f\x7f]+")


class Auth:
    """All about users and their sessions; one for all tenants."""

    def __init__(
        self,
        sessions: Sessions,
        passwords: Passwords,
        limits: LoginLimits,
        tickets: Tickets,
        clock: Clock,
        addresses: ClientAddress,
    ) -> None:
        """``limits``: those of addresses over all tenants."""
        self._sessions = sessions
        self._passwords = passwords
        self._limits = AuthLimits(limits, clock)
        self._tickets = tickets
        self._clock = clock
        self._addresses = addresses
        self.is_signup_open = True
        """Whether anybody may sign up; if not, only by a token of the tenant that may write."""

    def address_of(self, scope: Mapping[str, Any]) -> str:
        """Where a request comes from, for the limits."""
        forwarded = context_of(scope).headers.get(b"x-forwarded-for")
        return self._addresses(scope.get("client"), forwarded)

    # --- without a session --------------------------------------------------------------------

    async def sign_up(self, tenant: Tenant, request: SignUp, address: str) -> SessionCreated:
        """A user of the default role, and a session.

        Raises:
            InvalidRequestError: ``invalid_email``, ``invalid_name``, ``invalid_password``.
            ConflictError: ``email_taken``.
            RateLimitedError: ``too_many_attempts``: to find out who is a user here.
        """
        email, name = checked_email(request.email), checked_name(request.name)
        check_password(request.password)
        attempt = Attempt.of_sign_up(tenant, address)
        await self._limits.begin(attempt, lambda db: login_of(db, 0))
        token = self._sessions.new_token()
        try:
            hashed = await self._passwords.hash(request.password)

            def work(db: Database) -> Session:
                user = create_user(db, name, email, hashed, self._clock.now_ms())
                self._limits.take_back(db, attempt)
                return self._sessions.begin(db, tenant, user, token)

            session = await in_accounts(tenant, work)
        except ConflictError:
            raise
        except DosqlError:
            await self._limits.give_up(attempt)
            raise
        return self._created(session, token)

    async def log_in(self, tenant: Tenant, request: LogIn, address: str) -> SessionCreated:
        """A new session.

        Raises:
            AuthenticationError: ``invalid_credentials``, for whatever reason.
            RateLimitedError: ``too_many_attempts``.
            OverloadedError: ``login_overloaded``.
        """
        email = normalized_email(request.email)
        find = find_login if _EMAIL.fullmatch(email) else _find_nobody
        attempt = Attempt.of_login(tenant, email, address)
        return await self._prove(attempt, lambda db: find(db, email), request.password)

    async def _prove(
        self,
        attempt: Attempt,
        find: Callable[[Database], Login | None],
        password: str,
        new_password: str | None = None,
    ) -> SessionCreated:
        """A session for whoever knows the password; with a new one, all others end."""
        tenant = attempt.tenant
        login = await self._limits.begin(attempt, find)
        stored = None if login is None else login.password_hash
        rehashed = None
        try:
            proven = await self._passwords.verify(stored, password)
            if proven and stored is not None:
                chosen = new_password
                if chosen is None and self._passwords.is_outdated(stored):
                    chosen = password
                if chosen is not None:
                    rehashed = await self._passwords.hash(chosen)
        except OverloadedError:
            await self._limits.give_up(attempt)
            raise
        if not proven or login is None:
            raise _invalid_credentials()
        token, user_id = self._sessions.new_token(), login.user.id

        def work(db: Database) -> Session:
            now = login_of(db, user_id)
            if now is None or now.password_hash != stored:  # it changed meanwhile
                raise _invalid_credentials()
            if rehashed is not None:
                set_password(db, user_id, rehashed, self._clock.now_ms())
            if new_password is not None:
                self._sessions.end_all(db, user_id)
            self._limits.forgive(db, attempt)
            return self._sessions.begin(db, tenant, now.user, token)

        session = await in_accounts(tenant, work)
        self._limits.succeeded(attempt)
        return self._created(session, token)

    # --- with one -----------------------------------------------------------------------------

    async def refresh(self, tenant: Tenant, session: Session) -> SessionCreated:
        """Another token for the session; its old one is dead when this returns.

        Raises:
            AuthenticationError: ``invalid_token``: somebody else was faster.
        """
        token = self._sessions.new_token()
        rotated = await in_accounts(
            tenant, lambda db: self._sessions.rotate(db, tenant, session, token)
        )
        if rotated is None:
            raise AuthenticationError("Invalid or expired token", code="invalid_token")
        return self._created(rotated, token)

    async def log_out(self, tenant: Tenant, session: Session) -> None:
        """End the session."""
        await in_accounts(tenant, lambda db: self._sessions.end(db, session))

    async def change_password(
        self, tenant: Tenant, session: Session, request: ChangePassword, address: str
    ) -> SessionCreated:
        """A new password, and a new session in place of all that the user has.

        Raises: as `log_in`; InvalidRequestError ``invalid_password``.
        """
        check_password(request.new_password)
        user = session.user
        return await self._prove(
            Attempt.of_login(tenant, user.email, address),
            lambda db: login_of(db, user.id),
            request.current_password,
            request.new_password,
        )

    def current(self, session: Session) -> CurrentSession:
        """Whose it is, and when it ends."""
        return CurrentSession(info_of(session.user), iso_from_ms(self._sessions.end_of(session)))

    def ticket(self, principal: Principal, tenant: Tenant) -> TicketCreated:
        """For one stream of the principal's."""
        ticket, ends_ms = self._tickets.issue(principal, tenant.name)
        return TicketCreated(ticket, iso_from_ms(ends_ms))

    def _created(self, session: Session, token: str) -> SessionCreated:
        ends = iso_from_ms(self._sessions.end_of(session))
        return SessionCreated(token, ends, info_of(session.user))

    # --- users --------------------------------------------------------------------------------

    async def set_role(self, tenant: Tenant, user_id: int, request: SetRole) -> UserInfo:
        """Give a user another role; all of the user's sessions end.

        Raises:
            NotFoundError: ``user_not_found``.
            ConstraintError: there is no such role.
        """

        def work(db: Database) -> User:
            user = set_role(db, user_id, request.role, self._clock.now_ms())
            self._sessions.end_all(db, user_id)
            return user

        return info_of(await in_accounts(tenant, work))

    async def users(self, tenant: Tenant, query: UserQuery) -> UserPage:
        """One page of them."""
        return await in_accounts(tenant, lambda db: list_users(db, query))


def info_of(user: User) -> UserInfo:
    """The user as told to users."""
    return UserInfo(user.id, user.name, user.email, user.role)


def normalized_email(text: str) -> str:
    """One form for all ways to write an address."""
    return unicodedata.normalize("NFKC", text[: EMAIL_CHARS_MAX * 2].strip()).lower()


def checked_email(text: str) -> str:
    """Raises InvalidRequestError (``invalid_email``)."""
    email = normalized_email(text)
    if len(email) > EMAIL_CHARS_MAX or not _EMAIL.fullmatch(email) or not _is_text(email):
        raise InvalidRequestError("Valid email required", code="invalid_email")
    return email


def checked_name(text: str) -> str:
    """Raises InvalidRequestError (``invalid_name``)."""
    name = unicodedata.normalize("NFC", text.strip())
    if not 0 < len(name) <= USER_NAME_CHARS_MAX or "\0" in name or not _is_text(name):
        message = "Name required" if not name else "A name has 1 to 100 characters."
        raise InvalidRequestError(message, code="invalid_name")
    return name


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _find_nobody(db: Database, email: str) -> None:
    """What cannot be an address is looked for all the same: a schema without users says so."""
    find_login(db, "")


def _invalid_credentials() -> AuthenticationError:
    return AuthenticationError("Invalid email or password", code="invalid_credentials")
