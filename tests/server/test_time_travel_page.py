"""docs/time-travel.md: its shell blocks run one after the other, and answer what the page says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.support.server import ADMIN_TOKEN, ServerProcess

PAGE = Path(__file__).parents[2] / "docs" / "time-travel.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_shell_blocks_run(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "data-of-page" / "data").mkdir(parents=True)
    folder = tmp_path / "data-of-page"
    (folder / "data" / "admin-token").write_text(ADMIN_TOKEN)
    outputs = []
    for block in BLOCK.findall(PAGE.read_text()):
        script = "set -eu\n" + block.replace("http://127.0.0.1:8787", server.url)
        done = subprocess.run(
            ["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    read, restored = outputs
    assert read.endswith('{"rows":[{"n":0}]}{"rows":[{"n":2}]}{"rows":[{"n":0}]}')
    assert "error" not in read + restored
    assert restored.count('"bookmark"') == 3
    assert '"tenant":"acme-copy"' in restored
