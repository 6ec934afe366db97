"""The server against its own OpenAPI document: whatever the document allows, and what it forbids,
is answered as the document says, and never with a failure of the server's.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.server import ServerProcess

EXAMPLES = os.environ.get("DOSQL_TEST_API_EXAMPLES", "5")
"""For each operation and phase; 200 in the nightly run."""
CHECKS = "all"
CONFIG = """
[[operations]]
include-path = "/changes"
enabled = false
"""


def test_schemathesis_finds_no_server_error_and_no_violation_of_the_document(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """All checks, all phases, with the admin token."""
    server = start_server(rate_limits="none", default_tenant="fuzz", log_level="error")
    (tmp_path / "schemathesis.toml").write_text("")
    result = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "--config-file",
            str(tmp_path / "schemathesis.toml"),
            "run",
            f"{server.url}/schema/openapi.json",
            "--checks=" + CHECKS,
            "--phases=examples,coverage,fuzzing,stateful",
            "--max-examples=" + EXAMPLES,
            "--header=Authorization: Bearer " + server.admin_token,
            "--request-timeout=20",
            "--no-color",
            "--exclude-path-regex=/changes$",  # endless
            "--continue-on-failure",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=900,
    )
    print(result.stdout[-8000:], result.stderr[-2000:])
    assert server.log_lines("request_failed") == []
    assert result.returncode == 0, result.stdout[-8000:]
