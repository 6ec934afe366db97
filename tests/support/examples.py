"""For the tests of the programs under ``examples/``: servers that run one, WebSockets to them."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.server import Reply, ServerProcess

ROOT = Path(__file__).parent.parent.parent
WAIT_S = 10


@contextlib.contextmanager
def running(app: str, folder: Path, **settings: Any) -> Iterator[ServerProcess]:
    """A server of ``examples.<app>``, killed at the end."""
    folder.mkdir(exist_ok=True)
    server = ServerProcess(folder / "data", app=f"examples.{app}", **settings)
    try:
        yield server
    finally:
        server.kill()


class Socket:
    """One WebSocket; frames are JSON. Close it, or use it as a context manager."""

    def __init__(
        self, server: ServerProcess, path: str, headers: dict[str, str] | None = None
    ) -> None:
        """Raises `Refused` if the server answers anything but 101."""
        url = server.url.replace("http", "ws", 1).rstrip("/") + path
        try:
            self._context = connect(
                url,
                additional_headers=headers or {},
                proxy=None,
                open_timeout=WAIT_S,
                close_timeout=WAIT_S,
            )
            self._ws: ClientConnection = self._context.__enter__()
        except InvalidStatus as error:
            raise Refused(error) from None

    def send(self, message: object) -> None:
        """A str or bytes goes as it is, everything else as JSON."""
        self._ws.send(message if isinstance(message, str | bytes) else json.dumps(message))

    def receive(self) -> Any:
        """The next frame. Fails if none comes."""
        return json.loads(self._ws.recv(timeout=WAIT_S))

    def receive_text(self) -> str:
        """The next frame as it came. Fails if none comes."""
        text = self._ws.recv(timeout=WAIT_S)
        assert isinstance(text, str)
        return text

    def receive_type(self, kind: str) -> Any:
        """The next frame of this type; others are skipped."""
        while (frame := self.receive())["type"] != kind:
            pass
        return frame

    def closed(self) -> tuple[int | None, str | None]:
        """Wait for the end, whatever comes before it; code and reason."""
        ends_at = time.monotonic() + WAIT_S
        while time.monotonic() < ends_at:
            try:
                self._ws.recv(timeout=WAIT_S)
            except ConnectionClosed:
                return self._ws.close_code, self._ws.close_reason
        raise AssertionError("the socket stayed open")

    def close(self, code: int = 1000, reason: str = "") -> None:
        """The closing handshake."""
        self._ws.close(code, reason)
        self._context.__exit__(None, None, None)

    def drop(self) -> None:
        """Be gone without a word, as a client without power."""
        with contextlib.suppress(OSError):  # it may be gone already
            self._ws.socket.shutdown(socket.SHUT_RDWR)

    def send_raw(self, data: bytes) -> None:
        """Bytes that are no frame."""
        self._ws.socket.sendall(data)

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Refused(Exception):
    """The server did not accept the WebSocket."""

    def __init__(self, error: InvalidStatus) -> None:
        super().__init__(str(error))
        self.status = error.response.status_code
        self.headers = error.response.headers
        self.text = (error.response.body or b"").decode()


def refusal(server: ServerProcess, path: str, headers: dict[str, str] | None = None) -> Refused:
    """How the server refuses this WebSocket. Fails if it does not."""
    try:
        socket = Socket(server, path, headers)
    except Refused as refused:
        return refused
    socket.close()
    raise AssertionError("the WebSocket was accepted")


def handshake(server: ServerProcess, path: str, upgrade: str = "websocket") -> str:
    """The status line that a handshake written by hand is answered with."""
    host, _, port = server.url.removeprefix("http://").rstrip("/").partition(":")
    head = (
        f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\n"
        f"Upgrade: {upgrade}\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=WAIT_S) as connection:
        connection.sendall(head.encode())
        return connection.recv(4096).split(b"\r\n")[0].decode()


def public(server: ServerProcess, method: str, path: str, **options: Any) -> Reply:
    """A request as anybody may send it: without a token."""
    return server.request(method, path, token=None, **options)


def object_info(server: ServerProcess, namespace: str, name: str) -> Any:
    """What the admin route lists of an object; None if it does not exist."""
    reply = server.request("GET", f"/admin/objects/{namespace}?prefix={name}")
    assert reply.status == 200, reply.body
    return next((info for info in reply.json()["objects"] if info["name"] == name), None)


def wait_until_hibernated(server: ServerProcess, namespace: str, name: str) -> None:
    """Until the object has left memory; start the server with a short ``idle_seconds``."""

    def asleep() -> bool:
        info = object_info(server, namespace, name)
        return info is not None and info["state"] != "awake"

    server.wait_for(asleep, f"{name} to hibernate")


def run_program(module: str, *arguments: str, text: str | None = None) -> str:
    """Run ``examples.<module>`` to its end; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", f"examples.{module}", *arguments],
        cwd=ROOT,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
