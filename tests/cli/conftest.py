"""Runs of the command line in processes of their own."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from dosql.cli import main
from dosql.client import Client, Tenant
from tests.support.server import ServerProcess

ROOT = Path(__file__).resolve().parents[2]
_numbers = itertools.count(1)

Finished = subprocess.CompletedProcess[str]
Run = Callable[..., Finished]


def environment(**variables: str) -> dict[str, str]:
    """This process's, without any setting of dosql but the given ones."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("DOSQL_")}
    return {**inherited, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **variables}


def run_dosql(
    *arguments: str | Path, stdin: str = "", cwd: Path | None = None, **variables: str
) -> Finished:
    """Run ``dosql`` to its end."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "dosql.cli", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=environment(**variables),
    )


@pytest.fixture
def dosql(shared_server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``dosql`` with the admin token of a running server.

    In this process, which is thirty times faster than one of its own.
    """
    for variable in [name for name in os.environ if name.startswith("DOSQL_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("DOSQL_URL", shared_server.url)
    monkeypatch.chdir(tmp_path)

    def run(
        *arguments: str | Path, stdin: str = "", token: str = shared_server.admin_token
    ) -> Finished:
        words = ["dosql", *map(str, arguments)]
        out, err = StringIO(), StringIO()
        with monkeypatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setenv("DOSQL_TOKEN", token)
            patch.setattr(sys, "argv", words)
            patch.setattr(sys, "stdin", StringIO(stdin))
            with pytest.raises(SystemExit) as exit_:
                main()
        status = exit_.value.code
        assert isinstance(status, int)
        return Finished(words, status, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def name() -> str:
    """A tenant that nobody else uses."""
    return f"cli-{next(_numbers)}"


@pytest.fixture
def tenant(shared_server: ServerProcess, name: str) -> Iterator[Tenant]:
    """The same, created."""
    with Client(shared_server.url, token=shared_server.admin_token) as client:
        client.admin.tenants.create(name)
        yield client.tenant(name)
