"""docs/storage.md: its examples run, in an object of a real host."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from dosql import App, DurableObject
from tests.support.hosts import running_host

PAGE = Path(__file__).parents[2] / "docs" / "storage.md"


class Page(DurableObject):
    async def run(self, code: str) -> None:
        """Run the code, which may await, with ``storage`` in its scope."""
        names: dict[str, Any] = vars(self).setdefault(
            "names", {"__name__": __name__, "storage": self.ctx.storage}
        )
        compiled = compile(code, PAGE.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(compiled, names)
        if inspect.isawaitable(result):
            await result


async def test_the_examples_print_what_they_promise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = App()
    app.durable_object(Page)
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5
    async with running_host(tmp_path, app=app) as host:
        page: Any = host.objects.env.PAGE.get_by_name("storage")
        for block in blocks:
            await page.run(block)
            promised = re.findall(r"# prints (.*)$", block, re.MULTILINE)
            assert capsys.readouterr().out.splitlines() == promised
