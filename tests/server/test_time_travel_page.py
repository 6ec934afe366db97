"""docs/time-travel.md: its blocks run one after the other, and answer what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import ADMIN_TOKEN, ServerProcess

PAGE = Path(__file__).parents[2] / "docs" / "time-travel.md"
URL = "http://127.0.0.1:8787"


def blocks(language: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the server's data directory is ``data``."""
    folder = tmp_path / "beside-data"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "admin-token").write_text(ADMIN_TOKEN)
    return folder


def test_the_shell_blocks_run(server: ServerProcess, folder: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "DOSQL_URL": server.url, "DOSQL_TOKEN": ADMIN_TOKEN}
    outputs: list[tuple[str, str]] = []
    for block in blocks("sh"):
        done = subprocess.run(
            ["bash", "-euc", block.replace(URL, server.url)],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        assert "error" not in done.stdout
        outputs.append((done.stdout, done.stderr))
    (read, _), (restored, _), (_, taken_back), (kept, _), (compared, merged) = outputs
    assert read.endswith('{"rows":[{"n":0}]}{"rows":[{"n":2}]}{"rows":[{"n":0}]}')
    assert restored.count('"bookmark"') == 3
    assert '"tenant":"acme-copy"' in restored
    assert "to take it back: dosql restore acme --at " in taken_back
    assert re.search(r"^SOUND +yes$", kept, re.MULTILINE)
    assert "  + item 'kiwi', n 9" in compared
    assert "merged: 1 added, 0 changed, 0 removed, 0 conflicts" in merged


def test_the_python_blocks_run(
    server: ServerProcess,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    namespace: dict[str, Any] = {}
    for number, block in enumerate(blocks("python")):
        code = compile(block.replace(URL, server.url), f"block {number + 1}", "exec")
        exec(code, namespace)
        promised = re.findall(r"# prints (.*)$", block, re.MULTILINE)
        assert capsys.readouterr().out.splitlines() == promised
