"""The synchronous client is what the generator makes of the asynchronous one."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from dosql import client

ROOT = Path(__file__).resolve().parents[2]


def test_the_generated_code_is_not_stale() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/generate_sync.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["Client", "Namespace", "Stub", "Tenant", "Transaction"])
def test_both_have_the_same_methods_with_the_same_parameters(name: str) -> None:
    renamed = {"aclose": "close", "__aenter__": "__enter__", "__aexit__": "__exit__"}
    asynchronous = {
        renamed.get(method, method): list(inspect.signature(function).parameters)
        for method, function in inspect.getmembers(
            getattr(client, f"Async{name}"), inspect.isfunction
        )
    }
    synchronous = {
        method: list(inspect.signature(function).parameters)
        for method, function in inspect.getmembers(getattr(client, name), inspect.isfunction)
    }
    assert asynchronous == synchronous


def test_nothing_async_is_left() -> None:
    for path in (ROOT / "dosql" / "client" / "_sync").glob("*.py"):
        code = path.read_text()
        assert "await" not in code
        assert "async " not in code.replace("dosql/client/_async", "")
