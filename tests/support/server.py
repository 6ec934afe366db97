"""A real server in a process of its own, and the fixtures that start one.

``server``: a fresh one per test. ``start_server``: the same with settings of the test's choice.
``shared_server``: one per session; take a tenant of your own from `new_tenant`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import httpx2
import pytest

from tests.support.canaries import Canaries, objects_of_s3

if TYPE_CHECKING:
    from dosql.client import Client

ADMIN_TOKEN = f"admin-token-of-the-tests-{secrets.token_urlsafe(32)}"
"""Of all servers that this process starts, and in none of their files: see `Canaries`."""
_ROOT = Path(__file__).parent.parent.parent
_PROGRAM = """
import json, sys
{prelude}
from server.run import serve
serve(json.loads(sys.argv[1]))
"""
_names = itertools.count(1)
_SECRET_NAMES = ("_TOKEN", "_SECRET_ACCESS_KEY")


@dataclass(frozen=True)
class Reply:
    """One reply, read to its end."""

    status: int
    headers: httpx2.Headers
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The code in an error's body, None in any other."""
        try:
            body = self.json()
        except ValueError:
            return None
        return body.get("code") if isinstance(body, dict) else None


class ServerProcess:
    """Starts when made; settings are those of ``server/settings.py``."""

    def __init__(
        self,
        data_dir: Path,
        *,
        environ: dict[str, str] | None = None,
        prelude: str = "",
        **settings: object,
    ) -> None:
        """``prelude`` is Python that runs before the server's own code: to plant a fault."""
        self.data_dir = data_dir
        self.admin_token = ADMIN_TOKEN
        self.url = ""
        self.announced: list[str] = []
        """What it printed on stdout before it was ready."""
        self._settings = {"listen": "127.0.0.1:0", **settings, "data_dir": str(data_dir)}
        self._program = _PROGRAM.format(prelude=prelude)
        self._environ = {"DOSQL_ADMIN_TOKEN": ADMIN_TOKEN} if environ is None else environ
        self._log = data_dir.with_name(f"{data_dir.name}.log")
        self._canaries = Canaries()
        self._canaries.register(
            *(each for name, each in self._environ.items() if name.endswith(_SECRET_NAMES))
        )
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("DOSQL_")}
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", self._program, json.dumps(self._settings)],
                cwd=_ROOT,
                env={**inherited, "PYTHONPATH": str(_ROOT), **self._environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.announced = []
        assert process.stdout is not None
        for line in process.stdout:
            self.announced.append(line.decode().rstrip("\n"))
            if self.announced[-1].startswith("  curl "):
                break
        else:
            process.wait()
            process.stdout.close()
            pytest.fail(f"the server did not start: {self._log.read_text()[-4000:]}")
        self.url = self.announced[0].rpartition(" ")[2]
        self._canaries.listen(self.url)
        self._http = httpx2.Client(base_url=self.url, timeout=30, trust_env=False)
        return process

    # --- requests -----------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        content: bytes | None = None,
        token: str | None = ADMIN_TOKEN,
        headers: dict[str, str] | None = None,
        tenant: str | None = None,
    ) -> Reply:
        """Send one request. ``token=None`` sends none; ``content`` goes as it is."""
        sent = dict(headers or {})
        if token is not None:
            sent.setdefault("Authorization", f"Bearer {token}")
        if tenant is not None:
            sent["X-Tenant-ID"] = tenant
        reply = self._http.request(method, path, json=json, content=content, headers=sent)
        return Reply(reply.status_code, reply.headers, reply.content)

    def sql(
        self,
        tenant: str,
        kind: str,
        sql: str,
        params: object = None,
        *,
        token: str | None = ADMIN_TOKEN,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """``POST /query`` and its like, with the tenant in its header."""
        body = {"sql": sql} if params is None else {"sql": sql, "params": params}
        path = f"/{kind}"
        return self.request("POST", path, json=body, token=token, headers=headers, tenant=tenant)

    def new_tenant(self) -> str:
        """Create a tenant that no other test uses."""
        name = f"t{next(_names)}-{os.getpid()}"
        assert self.request("POST", "/admin/tenants", json={"name": name}).status == 201
        return name

    def new_token(self, tenant: str, access: str = "read-write") -> str:
        """Create a token for the tenant."""
        reply = self.request("POST", "/admin/tokens", json={"tenant": tenant, "access": access})
        assert reply.status == 201, reply.body
        token: str = reply.json()["token"]
        return token

    def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        for line in self.request("GET", "/metrics").body.decode().splitlines():
            if line.startswith(name + " "):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"no metric {name}")

    def wait_for(self, met: Callable[[], bool], what: str) -> None:
        """Poll until ``met()``: for effects that no reply tells of. Fails after a minute."""
        ends_at = time.monotonic() + 60
        while not met():
            assert time.monotonic() < ends_at, f"waited in vain for {what}"
            time.sleep(0.01)

    def log_lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """The JSON lines on stderr so far; they lag the replies by some milliseconds."""
        lines: list[dict[str, Any]] = []
        for line in self._log.read_text().splitlines():
            if line.startswith("{"):
                lines.append(json.loads(line))
        return [line for line in lines if event is None or line["event"] == event]

    @property
    def log_text(self) -> str:
        """All of stderr."""
        return self._log.read_text()

    def client(self) -> Client:
        """A client of the SDK with the admin token; close it."""
        from dosql.client import Client

        return Client(self.url, token=self.admin_token)

    # --- life ---------------------------------------------------------------------------------

    def stop(self) -> int:
        """SIGTERM, and wait for the orderly end; returns the exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """SIGKILL: what a crash does."""
        return self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        self._http.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(timeout=30)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._look_for_secrets()
        return status

    def _look_for_secrets(self) -> None:
        folders = [self.data_dir]
        others: list[tuple[str, bytes]] = []
        if "DOSQL_ADMIN_TOKEN" in self._environ:  # else it has made one, and told it once
            others.append(("stdout", "\n".join(self.announced).encode()))
        bucket = str(self._settings.get("bucket") or self._environ.get("DOSQL_BUCKET") or "")
        endpoint = str(self._settings.get("s3_endpoint") or "")
        if bucket.startswith("file:"):
            folders.append(Path(unquote(urlsplit(bucket).path)))
        elif bucket.startswith("s3:") and "AWS_ACCESS_KEY_ID" in self._environ:
            others += objects_of_s3(bucket, endpoint, self._environ)
        found = self._canaries.search(self._log, folders, others)
        assert not found, f"secrets of {self.data_dir} where none may be: {found[:20]}"

    def restart(self) -> None:
        """Stop, if it still runs, and start on the same data; the port is another."""
        if self.process.poll() is None:
            self.stop()
        self.process = self._start()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers with given settings; they are killed after the test."""
    numbers = itertools.count()

    with contextlib.ExitStack() as stack:  # all end, whatever is found in one of them

        def start(**settings: Any) -> ServerProcess:
            number = next(numbers)
            data_dir = settings.pop("data_dir", tmp_path / f"data{number}")
            server = ServerProcess(data_dir, **settings)
            stack.callback(server.kill)
            return server

        yield start


@pytest.fixture
def server(start_server: Callable[..., ServerProcess]) -> ServerProcess:
    """A server of the test's own."""
    return start_server()


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests that only add tenants to it."""
    server = ServerProcess(tmp_path_factory.mktemp("shared") / "data")
    yield server
    server.kill()
