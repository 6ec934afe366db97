"""The examples of docs/client.md that need a program: the first block is the program."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import ServerProcess

PAGE = Path(__file__).parents[2] / "docs" / "client.md"
ADDRESS = "http://127.0.0.1:8787"


def test_the_examples_with_objects_run(
    start_server: Callable[..., ServerProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where a line ends with ``# prints X``, that is what it prints."""
    program, *examples = re.findall(
        r"^```py\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    (tmp_path / "room.py").write_text(program)
    server = start_server(app="room:app", prelude=f"sys.path.insert(0, {str(tmp_path)!r})")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin-token").write_text(server.admin_token)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    assert examples
    for number, example in enumerate(examples):
        code = example.replace(ADDRESS, server.url)
        exec(compile(code, f"client.md, example {number + 1}", "exec"), namespace)
        assert capsys.readouterr().out.splitlines() == re.findall(r"# prints (.*)$", example, re.M)
