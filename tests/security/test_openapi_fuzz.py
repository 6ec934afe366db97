"""The server against its own OpenAPI document: whatever the document allows, and what it forbids,
is answered as the document says, and never with a failure of the server's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.server import ServerProcess

EXAMPLES = os.environ.get("DOSQL_TEST_API_EXAMPLES", "2")
"""For each operation and phase; 200 in the nightly run."""
CONFIG = """
# What no schema can say: that text is SQL, or the name of a tenant, or a moment in the past.
[checks]
positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 404, 409, 413, 422, 429]
"""
NOT_OURS = "allow_header_conformance,negative_data_rejection"
"""Litestar answers OPTIONS with the methods of the first handler of a path only, and takes 0 and 1
for booleans; tests/server/test_bad_input.py has what must be refused."""
EXCLUDED = r"/changes$|/import$"
"""A stream without end, and a file that no generator makes."""


def test_schemathesis_finds_no_server_error_and_no_violation_of_the_document(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """All phases, with the admin token."""
    server = start_server(rate_limits="none", default_tenant="fuzz")
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    result = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), f"--config-file={config}"),
            *("run", f"{server.url}/schema/openapi.json", "--checks=all"),
            f"--exclude-checks={NOT_OURS}",
            "--phases=examples,coverage,fuzzing,stateful",
            f"--max-examples={EXAMPLES}",
            f"--header=Authorization: Bearer {server.admin_token}",
            f"--exclude-path-regex={EXCLUDED}",
            *("--request-timeout=120", "--no-color", "--continue-on-failure"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    print(result.stdout[-2_000:], result.stderr[-2_000:])
    assert server.log_lines("request_failed") == []
    assert result.returncode == 0, result.stdout[-10_000:]
