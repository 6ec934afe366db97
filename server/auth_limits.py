"""Auth limits: what every attempt to log in or to sign up passes before any password is looked at.

The counts are in the tenant's own database, see `LoginAttempts`; those of an address over all
tenants are in memory, see `Attempts`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from dosql.clock import Clock
from dosql.errors import DosqlError
from dosql.host.accounts import in_accounts
from dosql.host.login_attempts import Allowance, Keys, LoginAttempts
from dosql.host.tenant import Tenant
from dosql.limits import EMAIL_CHARS_MAX
from dosql.objects.rate_table import rate_key
from dosql.sqlite.database import Database
from server.auth_attempts import (
    OF_ACCOUNT,
    OF_ADDRESS,
    OF_CLIENT,
    LoginLimits,
    too_many_attempts,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Attempt:
    """What somebody tries, once."""

    tenant: Tenant
    keys: Keys
    """In the tenant's database."""
    address: str | None
    """Counted over all tenants too."""

    @classmethod
    def of_login(cls, tenant: Tenant, email: str, address: str) -> Attempt:
        """To log in, or to be who is logged in."""
        account = email[:EMAIL_CHARS_MAX]
        return cls(
            tenant,
            [
                (rate_key("client", account, address), OF_CLIENT),
                (rate_key("account", account), OF_ACCOUNT),
                (rate_key("address", address), OF_ADDRESS),
            ],
            address,
        )

    @classmethod
    def of_sign_up(cls, tenant: Tenant, address: str) -> Attempt:
        """To find out who is a user here."""
        return cls(tenant, [(rate_key("signup", address), OF_ADDRESS)], None)

    @property
    def node_keys(self) -> list[tuple[str, Allowance]]:
        """In memory."""
        return [] if self.address is None else [(self.address, OF_ADDRESS)]


class AuthLimits:
    """Counts attempts."""

    def __init__(self, node: LoginLimits, clock: Clock) -> None:
        self._node = node
        self._attempts = LoginAttempts(clock)

    async def begin(self, attempt: Attempt, find: Callable[[Database], T]) -> T:
        """Count it, and find what it is about.

        Raises:
            RateLimitedError: ``too_many_attempts``.
            NotFoundError: ``no_accounts``.
            DosqlError: it cannot be counted, so it may not be tried.
        """
        self._node.begin(attempt.node_keys)

        def event(db: Database) -> tuple[int, T]:
            found = find(db)  # first: a schema without users gets no table
            return self._attempts.begin(db, attempt.keys), found

        try:
            wait_ms, found = await in_accounts(attempt.tenant, event, confirmed=False)
        except DosqlError:
            self._node.gave_up(attempt.node_keys)
            raise
        if wait_ms:
            self._node.gave_up(attempt.node_keys)
            raise too_many_attempts(wait_ms / 1_000)
        return found

    def take_back(self, db: Database, attempt: Attempt) -> None:
        """In the transaction of what was tried: it was no failure."""
        self._attempts.gave_up(db, attempt.keys)

    def forgive(self, db: Database, attempt: Attempt) -> None:
        """`take_back`, and forget the failures of this address at this account."""
        self._attempts.succeeded(db, attempt.keys)

    def succeeded(self, attempt: Attempt) -> None:
        """Behind that transaction."""
        self._node.gave_up(attempt.node_keys)

    async def give_up(self, attempt: Attempt) -> None:
        """It was not tried after all."""
        self._node.gave_up(attempt.node_keys)
        with contextlib.suppress(DosqlError):  # then it counts
            await in_accounts(
                attempt.tenant,
                lambda db: self._attempts.gave_up(db, attempt.keys),
                confirmed=False,
            )
