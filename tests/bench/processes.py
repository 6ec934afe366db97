"""Server processes under measurement: started, called, looked at from outside, stopped."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import psutil

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "bench-admin-token"
OBJECTS_APP = "tests.bench.objects_app:app"
_START_S_MAX = 60.0


class ServerProcess:
    """A process that prints ``listens on URL`` once it takes connections."""

    def __init__(
        self, command: Sequence[str], directory: Path, settings: Mapping[str, object] | None = None
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        environment = {
            **{key: value for key, value in os.environ.items() if _is_kept(key)},
            "DOSQL_ADMIN_TOKEN": TOKEN,
            "PYTHONPATH": str(ROOT),
            **{f"DOSQL_{name.upper()}": str(value) for name, value in (settings or {}).items()},
        }
        self._errors = directory / "stderr.log"
        self.spawned_at = time.perf_counter()
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True
            )
        self.url = self._wait_for_url()
        where = urlsplit(self.url)
        self._connection = http.client.HTTPConnection(
            where.hostname or "", where.port, timeout=_START_S_MAX
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait_for_url(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            found = re.search(r"listens on (http://\S+)", line)
            if found:
                return found[1]
        self._process.kill()
        self._process.communicate()
        raise RuntimeError(f"the server did not start: {self._errors.read_text()[-2000:]}")

    def call(self, method: str, path: str, body: object = None, tenant: str = "") -> Any:
        """One request; the decoded JSON, or the text of another type.

        Raises:
            RuntimeError: the answer is not 2xx.
        """
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        if tenant:
            headers["X-Tenant-ID"] = tenant
        data = None if body is None else json.dumps(body)
        self._connection.request(method, path, data, headers)
        reply = self._connection.getresponse()
        text = reply.read().decode()
        if reply.status // 100 != 2:
            raise RuntimeError(f"{method} {path}: {reply.status} {text}")
        is_json = reply.headers.get_content_type() == "application/json"
        return json.loads(text) if is_json else text

    def metrics(self) -> dict[str, float]:
        """What ``GET /metrics`` says, by name and labels."""
        lines = self.call("GET", "/metrics").splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def cpu_s(self) -> float:
        """Processor seconds used so far."""
        times = psutil.Process(self._process.pid).cpu_times()
        return times.user + times.system

    def rss_bytes(self) -> int:
        """Resident memory."""
        return psutil.Process(self._process.pid).memory_info().rss

    def descriptors(self) -> int:
        """Open file descriptors."""
        return psutil.Process(self._process.pid).num_fds()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop and wait for the end; a second call does nothing."""
        self._connection.close()
        self._process.send_signal(number)
        self._process.wait(timeout=_START_S_MAX)
        if self._process.stdout is not None:
            self._process.stdout.close()


def _is_kept(variable: str) -> bool:
    """Settings of ours would change what is measured. Without bytecode on the disk every start
    would compile all modules anew, which takes longer than everything else in it."""
    return not variable.startswith("DOSQL_") and variable != "PYTHONDONTWRITEBYTECODE"


def start_dosql(directory: Path, **settings: object) -> ServerProcess:
    """The real server, as its command starts it, on a free port and with its log in a file."""
    command = [sys.executable, "-m", "dosql.cli", "serve", "--listen", "127.0.0.1:0"]
    return ServerProcess([*command, "--data-dir", str(directory / "data")], directory, settings)


def start_bare_app(directory: Path) -> ServerProcess:
    """uvicorn with the same settings, answering constants."""
    program = Path(__file__).with_name("bare_app.py")
    return ServerProcess([sys.executable, str(program)], directory)
