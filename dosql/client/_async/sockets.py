"""AsyncObjectSocket: a WebSocket to an object that finds its way back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from dosql.client._dial import async_dial
from dosql.client._order import AsyncTurn
from dosql.client._pause import asleep
from dosql.client.errors import error_from_reply
from dosql.client.reconnect import (
    CODES_OF_THE_END,
    CODES_TO_RECONNECT,
    Reconnect,
    Resume,
    closed_error,
    worth_another,
)
from dosql.errors import ConflictError, ConnectionFailedError, DosqlError, InvalidRequestError

if TYPE_CHECKING:
    from dosql.client._dial import AsyncLine


class AsyncObjectSocket:
    """One socket, over as many connections as it takes. Use it as a context manager.

    With ``reconnect`` a connection that was lost is made again by whoever next receives or sends:
    after 1001, 1006, 1011-1014 and 4008, and while the server is not there or overloaded. Any
    other code is the object's answer, and final. ``resume`` gets the last message received and
    returns parameters for the URL of the new connection, so that the object can send what came
    meanwhile; without it that is lost.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        timeout_s: float = 30.0,
        reconnect: Reconnect | None = None,
        resume: Resume | None = None,
    ) -> None:
        """``url`` begins with ``ws:`` or ``wss:``. ``timeout_s`` is for each handshake."""
        self.connections = 0
        """How many have been made."""
        self.close_code: int | None = None
        """Of the newest connection that ended."""
        self.close_reason = ""
        self._url = url
        self._headers = headers
        self._timeout_s = timeout_s
        self._policy = reconnect
        self._resume = resume
        self._last: str | bytes | None = None
        self._line: AsyncLine | None = None
        self._turn = AsyncTurn()
        self._closed = False

    # --- messages ------------------------------------------------------------------------------
    async def send(self, message: str | bytes) -> None:
        """Send text or bytes.

        That it returns does not say that the object has it: an answer of the object does.

        Raises:
            UnavailableError: ``connection_lost``: this message may or may not have arrived. It is
                not sent again by itself.
            ConflictError: ``websocket_closed``.
        """
        from websockets.exceptions import ConnectionClosed

        line = await self._connected()
        try:
            await line.send(message)
        except ConnectionClosed:
            raise self._lost(line) from None

    async def receive(self) -> str | bytes:
        """The next message.

        Raises:
            ConflictError: ``websocket_closed``: there will be none; see ``close_code``.
            UnavailableError: ``connection_lost``, without ``reconnect``.
        """
        from websockets.exceptions import ConnectionClosed

        while True:
            line = await self._connected()
            try:
                message = self._last = await line.recv()
            except ConnectionClosed:
                error = self._lost(line)
                if self._policy is None or self._closed or not self._may_return():
                    raise error from None
            else:
                return message

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        """All messages until the end: an orderly close (1000, 1001, 1005). Raises as `receive`."""
        while True:
            try:
                message = await self.receive()
            except DosqlError:
                if self._closed or self.close_code in CODES_OF_THE_END:
                    return
                raise
            yield message

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close for good; idempotent. Returns when the server has answered, or not in time."""
        self._closed = True
        if self._line is not None:
            await self._line.close(code, reason)

    async def __aenter__(self) -> Self:
        """Connect. Raises what kept the first connection from being made, and does not repeat."""
        async with self._turn:
            self._line = await self._dial()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # --- connections ---------------------------------------------------------------------------
    async def _connected(self) -> AsyncLine:
        """A connection that was open just now; made again if there may be one."""
        async with self._turn:
            line = self._line
            if line is None:
                raise ConflictError("The socket was not opened.", code="websocket_closed")
            if line.close_code is None:
                return line
            error = self._lost(line)
            if self._closed or self._policy is None or not self._may_return():
                raise error
            line = self._line = await self._dial_again(self._policy)
            if self._has_ended():  # meanwhile
                await line.close()
                raise closed_error(1000, "")
            return line

    def _has_ended(self) -> bool:
        return self._closed

    async def _dial_again(self, policy: Reconnect) -> AsyncLine:
        attempt = 0
        error: DosqlError | None = None
        while True:
            delay_s = policy.delay_s(attempt, error.retry_after_s if error else None)
            if delay_s is None:
                assert error is not None
                raise error
            await asleep(delay_s)
            if self._closed:
                raise closed_error(1000, "")
            try:
                return await self._dial()
            except DosqlError as failure:
                if not worth_another(failure):
                    raise
                error = failure
            attempt += 1

    async def _dial(self) -> AsyncLine:
        from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI

        url = self._url if self._resume is None else _extended(self._url, self._resume(self._last))
        try:
            line = await async_dial(url, self._headers, self._timeout_s)
        except InvalidStatus as exc:
            answer = exc.response
            body = bytes(answer.body or b"")
            raise error_from_reply(answer.status_code, answer.headers, body) from exc
        except InvalidURI as exc:
            raise InvalidRequestError(f"Not a URL: {exc}.", code="invalid_url") from exc
        except (OSError, TimeoutError, EOFError, InvalidHandshake) as exc:
            reason = str(exc).rstrip(".") or type(exc).__name__
            text = f"Cannot reach {_origin(self._url)}: {reason}."
            raise ConnectionFailedError(text) from exc
        self.connections += 1
        return line

    def _lost(self, line: AsyncLine) -> DosqlError:
        self.close_code = 1006 if line.close_code is None else line.close_code
        self.close_reason = line.close_reason or ""
        return closed_error(self.close_code, self.close_reason)

    def _may_return(self) -> bool:
        return self.close_code in CODES_TO_RECONNECT


def _extended(url: str, parameters: Mapping[str, str]) -> str:
    """The URL with these parameters, in place of its own of the same names."""
    parts = urlsplit(url)
    kept = [pair for pair in parse_qsl(parts.query, True) if pair[0] not in parameters]
    return urlunsplit(parts._replace(query=urlencode([*kept, *parameters.items()])))


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
