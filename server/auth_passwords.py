"""Passwords: argon2id on a few threads, so that logins neither stall nor starve the server.

A wrong password and a user that does not exist take the same work.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from dosql.clock import Randomness
from dosql.errors import InvalidRequestError, OverloadedError
from dosql.limits import (
    PASSWORD_BYTES_MAX,
    PASSWORD_BYTES_MIN,
    PASSWORD_QUEUE_MAX,
    PASSWORD_THREADS,
)
from dosql.sqlite.priority import give_way

if TYPE_CHECKING:
    from argon2 import PasswordHasher

T = TypeVar("T")
_MEMORY_KIB = 19 * 1024
_ITERATIONS = 2
"""With one lane: what OWASP recommends; about 40 ms of a core."""
_SALT_BYTES = 16
_MEMORY_KIB_MAX = 128 * 1024
_ITERATIONS_MAX = 8
_LANES_MAX = 8
"""A tenant may write its own hashes into ``users``: none may cost more than this."""


class Passwords:
    """Hashes and verifies. Close it."""

    def __init__(
        self,
        randomness: Randomness,
        *,
        threads: int = PASSWORD_THREADS,
        queue_max: int = PASSWORD_QUEUE_MAX,
    ) -> None:
        self._randomness = randomness
        self._threads = ThreadPoolExecutor(
            threads, thread_name_prefix="dosql-passwords", initializer=give_way
        )
        self._pending_max = threads + queue_max
        self._pending = 0
        self._hasher: PasswordHasher | None = None
        self._dummy: str | None = None

    async def hash(self, password: str) -> str:
        """The hash of a password that `check_password` let through.

        Raises:
            OverloadedError: ``login_overloaded``.
        """
        return await self._on_thread(lambda: self._hash(normalized(password)))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether ``stored`` is the password's hash; never of None, which takes as long.

        Raises:
            OverloadedError: ``login_overloaded``.
        """
        return await self._on_thread(lambda: self._verify(stored, password))

    def is_outdated(self, stored: str) -> bool:
        """Whether the hash should be made anew with the present parameters."""
        return self._argon2().check_needs_rehash(stored)

    def close(self) -> None:
        """Wait for those under way."""
        self._threads.shutdown(cancel_futures=True)

    async def _on_thread(self, work: Callable[[], T]) -> T:
        if self._pending >= self._pending_max:
            raise OverloadedError(
                "Too many logins at a time.", code="login_overloaded", retry_after_s=1
            )
        loop = asyncio.get_running_loop()
        self._pending += 1
        future = self._threads.submit(work)
        future.add_done_callback(lambda _: self._count_down(loop))
        return await asyncio.wrap_future(future)

    def _count_down(self, loop: asyncio.AbstractEventLoop) -> None:
        """On any thread. A request that was given up still holds its place until it is done."""
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        self._pending -= 1

    # --- on a thread --------------------------------------------------------------------------

    def _argon2(self) -> PasswordHasher:
        if self._hasher is None:
            from argon2 import PasswordHasher  # a server whose tenants have no users needs it not

            self._hasher = PasswordHasher(_ITERATIONS, _MEMORY_KIB, 1)
        return self._hasher

    def _hash(self, password: bytes) -> str:
        return self._argon2().hash(password, salt=self._randomness.token_bytes(_SALT_BYTES))

    def _verify(self, stored: str | None, password: str) -> bool:
        from argon2.exceptions import Argon2Error, InvalidHash

        try:
            text = normalized(password)
        except InvalidRequestError:
            text, stored = b"", None
        known = stored if stored is not None and _is_affordable(stored) else None
        if self._dummy is None:
            self._dummy = self._hash(self._randomness.token_bytes(_SALT_BYTES))
        try:
            self._argon2().verify(known or self._dummy, text)
        except (Argon2Error, InvalidHash):
            return False
        return known is not None


def check_password(password: str) -> None:
    """Raises InvalidRequestError (``invalid_password``) for one that cannot be chosen."""
    if len(normalized(password)) < PASSWORD_BYTES_MIN:
        raise _invalid()


def normalized(password: str) -> bytes:
    """The same bytes for all ways to type it. Raises InvalidRequestError."""
    try:
        if len(password) <= PASSWORD_BYTES_MAX:
            text = unicodedata.normalize("NFKC", password).encode()
            if len(text) <= PASSWORD_BYTES_MAX:
                return text
    except UnicodeEncodeError:
        pass
    raise _invalid()


def _invalid() -> InvalidRequestError:
    return InvalidRequestError(
        f"A password has {PASSWORD_BYTES_MIN} to {PASSWORD_BYTES_MAX:,} bytes of UTF-8.",
        code="invalid_password",
    )


def _is_affordable(stored: str) -> bool:
    """Whether it is a hash of argon2's that costs no more than ours may."""
    from argon2 import extract_parameters
    from argon2.exceptions import InvalidHash

    try:
        parameters = extract_parameters(stored)
    except (InvalidHash, ValueError):
        return False
    return (
        parameters.memory_cost <= _MEMORY_KIB_MAX
        and parameters.time_cost <= _ITERATIONS_MAX
        and parameters.parallelism <= _LANES_MAX
    )
