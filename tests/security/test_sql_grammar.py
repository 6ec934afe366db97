"""Random SQL against the sandbox: no crash, no read of the server's tables, and, where both answer,
the rows of plain SQLite."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.security.sql_grammar import Grammar
from tests.security.sql_target import DEADLINE_S

ROOT = Path(__file__).parents[2]
_ANSWERS = {
    "ok", "sql_error", "sql_forbidden", "sql_empty", "sql_multiple_statements",
    "statement_is_read_only", "statement_too_complex", "transaction_forbidden",
    "invalid_encoding", "invalid_parameter", "invalid_text", "query_timeout", "value_too_large",
    "result_too_large", "memory_limit", "transaction_aborted", "quota_exceeded", "schema_limit",
}  # fmt: skip


def play(folder: Path, seed: int, count: int, timeout_s: float) -> dict[str, Any]:
    """Run the target in a process of its own, whose death is an error."""
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.security.sql_target", str(folder), str(seed), str(count)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, (seed, done.returncode, done.stderr[-2000:])
    report: dict[str, Any] = json.loads(done.stdout)
    print(f"seed {seed}: {report['codes']}, slowest {report['slowest']:.3f} s")
    assert report["leaks"] == []
    assert report["differences"] == []
    unexpected = {code for code in report["codes"] if not code.startswith("constraint_")}
    assert unexpected <= _ANSWERS
    assert report["slowest"] < 2 * DEADLINE_S
    return report


def test_13_400_random_statements_and_6_700_compared_with_plain_sqlite(tmp_path: Path) -> None:
    report = play(tmp_path / "0", 20_260, 13_400, 100)
    codes = report["codes"]
    assert codes["ok"] > 1_000  # a grammar that only makes errors would prove nothing
    assert codes["sql_forbidden"] > 100
    assert report["compared"] == 6_700


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(10))
def test_200_000_random_statements(tmp_path: Path, seed: int) -> None:
    play(tmp_path / "0", seed * 1_000, 13_400, 1_800)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(min_value=0, max_value=2**32))
def test_the_grammar_is_a_function_of_its_seed(seed: int) -> None:
    first, second = Grammar(seed), Grammar(seed)
    assert [first.statement() for _ in range(50)] == [second.statement() for _ in range(50)]
