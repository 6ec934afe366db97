"""The programs of docs/websockets.md run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import ADMIN_TOKEN, ServerProcess

ROOT = Path(__file__).parents[2]


async def test_the_room_and_its_client_of_the_page_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "websockets.md").read_text()
    room, client = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "page_room.py").write_text(room)
    environ = {"DOSQL_ADMIN_TOKEN": ADMIN_TOKEN, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    server = ServerProcess(tmp_path / "data", app="page_room:app", environ=environ)
    try:
        namespace: dict[str, Any] = {"TOKEN": ADMIN_TOKEN}
        exec(client.replace("http://127.0.0.1:8787", server.url), namespace)
        await namespace["main"]()
    finally:
        server.kill()
    assert capsys.readouterr().out.splitlines() == re.findall(r"# prints (.*)$", client, re.M)
