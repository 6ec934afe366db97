"""FaultyProxy: an HTTP proxy before an S3 store that breaks requests on their way, or replies."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal[
    "reset",  # the connection breaks, the store never hears of the request
    "lost_reply",  # the store answers, and the connection breaks before the reply arrives
    "slow_down",  # 503 SlowDown, the store never hears of it
    "conflict",  # 409 ConditionalRequestConflict, the same
    "error",  # 500 InternalError, the same
    "error_after",  # the store does it, and 500 arrives all the same
    "bad_gateway_after",  # the same with a 502 that is not S3's
    "truncated",  # half of the reply's body, then the connection breaks
    "denied",  # 403 AccessDenied, the store never hears of it
]
_XML = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>"
_ANSWERS: dict[str, tuple[int, str]] = {
    "slow_down": (503, "SlowDown"),
    "conflict": (409, "ConditionalRequestConflict"),
    "error": (500, "InternalError"),
    "error_after": (500, "InternalError"),
    "bad_gateway_after": (502, ""),
    "denied": (403, "AccessDenied"),
}
_AFTER = {"lost_reply", "error_after", "bad_gateway_after", "truncated"}
Chooser = Callable[[str, str], "Fault | None"]


@dataclass(frozen=True)
class Passed:
    """One request as it arrived."""

    method: str
    path: str
    fault: Fault | None
    headers: dict[str, str]


class FaultyProxy:
    """Listens from the construction to `close`. Faults come from `script`, in order; with that
    empty, from `choose`, which gets the method and the path."""

    def __init__(self, upstream: str, choose: Chooser = lambda method, path: None) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.choose = choose
        self.latency_s = 0.0
        """Before every request."""
        self.passed: list[Passed] = []
        self._script: deque[Fault | None] = deque()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        """The endpoint for the client."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def script(self, *faults: Fault | None) -> None:
        """What happens to the next requests; None lets one through."""
        with self._lock:
            self._script.extend(faults)
            self.passed.clear()

    def close(self) -> None:
        """Stop listening; connections under way break."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, method: str, path: str, headers: dict[str, str]) -> Fault | None:
        """Decide for one request, and note it."""
        with self._lock:
            fault = self._script.popleft() if self._script else self.choose(method, path)
            self.passed.append(Passed(method, path, fault, headers))
        if self.latency_s:
            time.sleep(self.latency_s)
        return fault


def by_chance(randomness: random.Random, rate: float, faults: Iterable[Fault]) -> Chooser:
    """One of the faults, at this rate, for every request."""
    choices = list(faults)
    lock = threading.Lock()

    def choose(method: str, path: str) -> Fault | None:
        with lock:
            return randomness.choice(choices) if randomness.random() < rate else None

    return choose


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    proxy: FaultyProxy

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections break here on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = dict(self.headers.items())
        fault = self.server.proxy.take(self.command, self.path, headers)
        if fault is None or fault in _AFTER:
            status, replied, content = self._ask(body, headers)
            if fault is None:
                self._reply(status, replied, content)
                return
            if fault == "truncated":
                self._reply(status, replied, content, cut=len(content) // 2)
                return
        if fault in _ANSWERS:
            status, code = _ANSWERS[fault]
            content = _XML.format(code=code).encode() if code else b"bad gateway"
            length = [("Content-Length", str(len(content))), ("Content-Type", "application/xml")]
            self._reply(status, length, content)
        else:
            self._break()

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass

    def _ask(
        self, body: bytes, headers: dict[str, str]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.server.proxy.upstream, timeout=30)
        try:
            headers.pop("Expect", None)
            connection.request(self.command, self.path, body=body, headers=headers)
            reply = connection.getresponse()
            return reply.status, reply.getheaders(), reply.read()
        finally:
            connection.close()

    def _reply(
        self, status: int, headers: list[tuple[str, str]], content: bytes, cut: int | None = None
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in headers):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content if cut is None else content[:cut])
        self.wfile.flush()
        if cut is not None:
            self._break()

    def _break(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        """Not on stderr."""
