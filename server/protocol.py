"""Protocol: uvicorn's HTTP protocol with limits on what a client may send before it has asked.

The parser itself would take headers without end, and wait for them for ever.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from typing import Literal

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dosql.clock import Clock, Randomness
from dosql.errors import DosqlError, InvalidRequestError, LimitError
from dosql.wire import ErrorReply
from server.error_responses import encode_reply

HEAD_BYTES_MAX = 64 * 1024
"""Request line and headers; more than any browser or proxy sends."""
HEAD_S_MAX = 10.0
"""From the first byte of a request to the end of its headers."""
BODY_PAUSE_S_MAX = 30.0
"""Between two pieces of a body. A steady upload may take as long as it needs."""
SWEEP_S = 1.0

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
_BAD = b"HTTP/1.1 400 Bad Request\r\n"


class Protocol(HttpToolsProtocol):
    """One connection."""

    clock: Clock
    randomness: Randomness
    has_app: bool
    """All set on a subclass by `protocol_class`."""

    _part: Literal["idle", "head", "body"] = "idle"
    """What of a request is awaited."""
    _waiting_since: float | None = None
    """Since when: the first byte of a head, the newest byte of a body."""
    _head_bytes = 0
    _head_ended = False
    """Within the data just received."""
    _data_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Parse; then see what is still awaited."""
        self._head_ended = False
        self._data_bytes = len(data)
        super().data_received(data)
        part = self._part
        if part == "idle":
            return
        if part == "body":
            self._waiting_since = self.clock.monotonic()
            return
        if self._waiting_since is None:
            self._waiting_since = self.clock.monotonic()
        if not self._head_ended:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse(_TOO_LARGE, _head_too_large())

    def on_message_begin(self) -> None:
        """A request begins."""
        self._part, self._waiting_since, self._head_bytes = "head", None, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is over."""
        self._part, self._head_ended = "body", True
        if self._data_bytes > HEAD_BYTES_MAX and self._size_of_head() > HEAD_BYTES_MAX:
            self._refuse(_TOO_LARGE, _head_too_large())
            raise ValueError("the head is too large")  # the parser stops
        super().on_headers_complete()

    def _size_of_head(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._part, self._waiting_since = "idle", None
        super().on_message_complete()

    def is_stalled(self, now: float) -> bool:
        """Whether the client keeps us waiting for the rest of a request for too long."""
        if self._waiting_since is None:
            return False
        if self._part == "head":
            return now - self._waiting_since > HEAD_S_MAX
        if self.cycle.response_complete:
            return False  # uvicorn's keep-alive timeout has it
        if self.flow.read_paused:  # it is us who do not read
            self._waiting_since = now
        return now - self._waiting_since > BODY_PAUSE_S_MAX

    def send_400_response(self, msg: str) -> None:
        """What the parser cannot make sense of."""
        self._refuse(_BAD, InvalidRequestError(msg, code="invalid_http"))

    def _should_upgrade(self) -> bool:
        """Without an app there is one route with WebSockets; to all others an upgrade is none."""
        if not (self.has_app or self.url.partition(b"?")[0].endswith(b"/changes")):
            return False
        return super()._should_upgrade()

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade is ignored, as RFC 9110 has it; that is no news for the log."""

    def _refuse(self, status_line: bytes, error: DosqlError) -> None:
        """Answer outside of any request, and close."""
        if self.transport.is_closing():
            return
        request_id = str(uuid.UUID(bytes=self.randomness.token_bytes(16), version=4))
        body = encode_reply(ErrorReply(error=error.message, code=error.code, request_id=request_id))
        head = (
            b"content-type: application/json\r\ncontent-length: %d\r\n"
            b"x-request-id: %b\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
        ) % (len(body), request_id.encode())
        self.transport.write(status_line + head + body)
        self.transport.close()


def protocol_class(clock: Clock, randomness: Randomness, *, has_app: bool) -> type[Protocol]:
    """The protocol with its components: uvicorn makes the instances."""
    parts = {"clock": clock, "randomness": randomness, "has_app": has_app}
    return type("Protocol", (Protocol,), parts)


async def close_stalled(connections: Iterable[object], clock: Clock) -> None:
    """For ever: close the connections of clients that do not finish their requests."""
    while True:
        await asyncio.sleep(SWEEP_S)
        now = clock.monotonic()
        for connection in list(connections):
            if isinstance(connection, Protocol) and connection.is_stalled(now):
                connection.transport.close()


def _head_too_large() -> LimitError:
    return LimitError(
        f"The headers are larger than {HEAD_BYTES_MAX:,} bytes.", code="headers_too_large"
    )
