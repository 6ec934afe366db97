"""Protocol: uvicorn's HTTP protocol with limits on what a client may send before it has asked.

The parser itself would take headers without end, and wait for them for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from typing import Literal, NoReturn

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from dosql.clock import Clock, Randomness
from dosql.errors import DosqlError, InvalidRequestError, LimitError
from server.refusals import refuse

HEAD_BYTES_MAX = 64 * 1024
"""Request line and headers; more than any browser or proxy sends."""
HEADERS_MAX = 100
"""Header lines; more than any browser or proxy sends."""
HEAD_S_MAX = 10.0
"""From the first byte of a request to the end of its headers."""
BODY_PAUSE_S_MAX = 30.0
"""Between two pieces of a body."""
BODY_S_MAX = 10.0
"""From the end of the headers to the end of the body, beside the time that it may take at
`BODY_BYTES_PER_S_MIN`. What we make the client wait does not count."""
BODY_BYTES_PER_S_MIN = 1_024
IDLE_S_MAX = 75.0
"""From the connection to the first byte; as long as an idle one is kept after a reply."""
WRITE_S_MAX = 60.0
"""For how long a client may leave what was written for it unread, from the moment at which
neither its system nor ours takes more."""
SWEEP_S = 1.0


class Protocol(HttpToolsProtocol):
    """One connection."""

    clock: Clock
    randomness: Randomness
    has_app: bool
    """All set on a subclass by `protocol_class`."""

    _part: Literal["new", "idle", "head", "body"] = "new"
    """What of a request is awaited."""
    _waiting_since: float | None = None
    """Since when: the connection, the first byte of a head, the newest byte of a body."""
    _body_until = 0.0
    """When the body must be complete, as far as it has come."""
    _swept_at = 0.0
    _unread_since: float | None = None
    """Since when the client takes nothing of what we write."""
    _head_bytes = 0
    _head_ended = False
    """Within the data just received."""
    _data_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Now it must begin to speak."""
        super().connection_made(transport)
        self._waiting_since = self.clock.monotonic()

    def pause_writing(self) -> None:
        """The client does not read what we write."""
        self._unread_since = self.clock.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self._unread_since = None
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Parse; then see what is still awaited."""
        self._head_ended = False
        self._data_bytes = len(data)
        super().data_received(data)
        part = self._part
        if part == "idle":
            if self._is_answered:
                # No request, and uvicorn gave up its own timer: empty lines, or the rest of a
                # body that was not wanted.
                self._part, self._waiting_since = "new", self.clock.monotonic()
            return
        if part == "body":
            now = self._waiting_since = self.clock.monotonic()
            if self._head_ended:
                self._body_until, self._swept_at = now + BODY_S_MAX, now
            self._body_until += len(data) / BODY_BYTES_PER_S_MIN
            return
        if part == "new":
            self._part, self._waiting_since = "head", None
        if self._waiting_since is None:
            self._waiting_since = self.clock.monotonic()
        if not self._head_ended:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _head_too_large())

    @property
    def _is_answered(self) -> bool:
        """Whether no request is under way."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def on_message_begin(self) -> None:
        """A request begins."""
        self._part, self._waiting_since, self._head_bytes = "head", None, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header. Trailers, which come behind a body, are dropped: none of them may pass for a
        header that a proxy would have looked at."""
        if self._part != "body":
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is over."""
        self._part, self._head_ended = "body", True
        self._check_headers()
        if self._data_bytes > HEAD_BYTES_MAX and self._size_of_head() > HEAD_BYTES_MAX:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _head_too_large())
            raise ValueError("the head is too large")  # the parser stops
        super().on_headers_complete()

    def _check_headers(self) -> None:
        """What the parser lets pass, and two servers in a row might read in two ways."""
        if len(self.headers) > HEADERS_MAX:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _too_many_headers())
            raise ValueError("there are too many headers")
        assert self.parser is not None  # it calls this
        old = self.parser.get_http_version() == "1.0"
        hosts = [value for name, value in self.headers if name == b"host"]
        for name, value in self.headers:
            if name == b"transfer-encoding" and (old or value.lower() != b"chunked"):
                self._refuse_as_ambiguous("Transfer-Encoding must be chunked, and in HTTP/1.1.")
        if len(hosts) > 1 or (not hosts and not old):
            self._refuse_as_ambiguous("There must be one Host header.")
        scheme, found, rest = self.url.partition(b"://")
        if found and b"/" not in scheme and rest.partition(b"/")[0] not in hosts:
            self._refuse_as_ambiguous("The URL and the Host header name different hosts.")

    def _refuse_as_ambiguous(self, message: str) -> NoReturn:
        self.send_400_response(message)
        raise ValueError(message)  # the parser stops

    def _size_of_head(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._part, self._waiting_since = "idle", None
        super().on_message_complete()

    def is_stalled(self, now: float) -> bool:
        """Whether the client keeps us waiting for too long, or what we wrote for it."""
        if self._unread_since is not None and now - self._unread_since > WRITE_S_MAX:
            return True
        if self._waiting_since is None:
            return False
        if self._part == "new":
            return now - self._waiting_since > IDLE_S_MAX
        if self._part == "head":
            return now - self._waiting_since > HEAD_S_MAX
        if self.flow.read_paused:  # it is us who do not read
            self._body_until += now - self._swept_at
            self._waiting_since = now
        self._swept_at = now
        return now - self._waiting_since > BODY_PAUSE_S_MAX or now > self._body_until

    def send_400_response(self, msg: str) -> None:
        """What the parser cannot make sense of."""
        self._refuse(HTTPStatus.BAD_REQUEST, InvalidRequestError(msg, code="invalid_http"))

    def _should_upgrade(self) -> bool:
        """Without an app there is one route with WebSockets; to all others an upgrade is none."""
        if not (self.has_app or self.url.partition(b"?")[0].endswith(b"/changes")):
            return False
        return super()._should_upgrade()

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade is ignored, as RFC 9110 has it; that is no news for the log."""

    def _refuse(self, status: HTTPStatus, error: DosqlError) -> None:
        """Answer outside of any request, and close."""
        refuse(self.transport, status, error, self.randomness)


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
                connection.transport.abort()  # to close would wait for what it does not read


def _too_many_headers() -> LimitError:
    return LimitError(f"There are more than {HEADERS_MAX} headers.", code="headers_too_large")


def _head_too_large() -> LimitError:
    return LimitError(
        f"The headers are larger than {HEAD_BYTES_MAX:,} bytes.", code="headers_too_large"
    )
