"""Type checkers see the row types that the client returns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CASES = Path(__file__).with_name("client_types.py")

CHECKERS = {
    "mypy": ["mypy", "--strict", "--warn-unused-ignores"],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_the_checker_knows_what_each_call_returns(checker: str) -> None:
    """The cases hold both what must pass (assert_type) and what must be refused."""
    done = subprocess.run(
        [sys.executable, "-m", *CHECKERS[checker], str(CASES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
