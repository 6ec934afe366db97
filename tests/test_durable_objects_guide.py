"""docs/durable-objects.md does what it says: its program is served, its examples run against it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.examples import Socket, running
from tests.support.server import ADMIN_TOKEN, ServerProcess

ROOT = Path(__file__).parent.parent
ADDRESS = "127.0.0.1:8787"
PAGE = ROOT / "docs" / "durable-objects.md"
EXAMPLES = ["counter_guide", "live_counter", "object_patterns", "chat_room"]


def blocks(language: str, page: Path = PAGE) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run_shell(block: str, server: ServerProcess) -> None:
    """Run a block that prints what the server answers; fails if that is an error."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.replace(ADDRESS, address_of(server))],
        capture_output=True,
        text=True,
        env=os.environ,
        timeout=60,
        check=True,
    )
    assert done.stdout
    assert '"error"' not in done.stdout


def address_of(server: ServerProcess) -> str:
    return server.url.removeprefix("http://").rstrip("/")


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    """The page's first program, served; the working directory is where the page supposes it."""
    (tmp_path / "room.py").write_text(blocks("python")[0])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin-token").write_text(ADMIN_TOKEN)
    monkeypatch.chdir(tmp_path)
    environ = {"DOSQL_ADMIN_TOKEN": ADMIN_TOKEN, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    server = ServerProcess(tmp_path / "server", app="room:app", environ=environ)
    yield server
    server.kill()


def test_the_guide_runs_from_top_to_bottom(
    room: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a line ends with ``# prints X``, that is what it prints."""
    address = address_of(room)
    namespace: dict[str, Any] = {"__name__": "guide"}
    for number, block in enumerate(blocks("python")[1:], start=2):
        code = compile(block.replace(ADDRESS, address), f"guide, block {number}", "exec")
        exec(code, namespace)
        assert capsys.readouterr().out.splitlines() == re.findall(
            r"# prints (.*)$", block, re.MULTILINE
        )
    namespace["client"].close()
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    for block in blocks("sh"):
        run_shell(block, room)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_curl_lines_of_an_example_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its other blocks start servers and clients, which tests/seeds does."""
    found = blocks("sh", ROOT / "examples" / name / "README.md")
    lines = [block[block.index("curl ") :] for block in found if "curl " in block]
    assert lines
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin-token").write_text(ADMIN_TOKEN)
    monkeypatch.chdir(tmp_path)
    with running(f"{name}.app:app", tmp_path / "server") as server:
        for line in lines:
            run_shell(line, server)


def test_the_room_of_the_guide_takes_websockets(room: ServerProcess) -> None:
    with (
        Socket(room, "/rooms/lobby?name=Bob") as bob,
        Socket(room, "/objects/room/lobby/", {"Authorization": f"Bearer {ADMIN_TOKEN}"}) as other,
    ):
        bob.send("Hello")
        assert bob.receive_text() == other.receive_text() == "Bob: Hello"
    listed = room.request("GET", "/rooms/lobby", token=None).json()
    assert listed == [{"id": 1, "who": "Bob", "text": "Hello"}]
