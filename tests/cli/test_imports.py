"""What a command loads before it knows that it needs it."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from dosql.cli.serve import serve
from dosql.cli.start import FLAGS, simple_overrides
from tests.cli.conftest import ROOT, environment

HEAVY = {"httpx2", "rich", "prompt_toolkit", "litestar", "apsw", "boto3"}
PROGRAM = """
import sys
from dosql.cli import main
sys.argv = ["dosql", *sys.argv[1:]]
try:
    main()
except SystemExit:
    pass
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def loaded_by(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
        cwd=ROOT,
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [("--version",), ("serve", "--help"), ("tenant", "--help")])
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert not loaded_by(*arguments) & HEAVY


def test_serve_does_not_load_the_client() -> None:
    """Refused settings come after everything that the server itself imports."""
    loaded = loaded_by("serve", "--listen", "nonsense")
    assert "uvicorn" in loaded
    assert not loaded & {"httpx2", "rich", "prompt_toolkit", "typer"}


def test_serve_loads_only_what_the_first_answers_need() -> None:
    """uvicorn's own command line, the framework and the passwords have time, or are never used."""
    loaded = loaded_by("serve", "--listen", "nonsense")
    late = {
        "argon2",
        "boto3",
        "click",
        "cronsim",
        "litestar",
        "multiprocessing",
        "prometheus_client",
    }
    assert not loaded & late


def test_both_ways_into_the_server_know_the_same_flags() -> None:
    """The short way does not load what shows help and explains mistakes."""
    flags = {"--" + name.replace("_", "-") for name in inspect.signature(serve).parameters}
    assert flags == FLAGS


@pytest.mark.parametrize(
    ("arguments", "overrides"),
    [
        ([], {}),
        (["--listen", ":1", "--max-open=5"], {"listen": ":1", "max_open": "5"}),
        (["--data-dir", "a", "--data-dir", "b=c"], {"data_dir": "b=c"}),
        (["--reload", "--app", "m:a"], {"reload": "true", "app": "m:a"}),
        (["--reload=yes"], None),
        (["--help"], None),
        (["--listen"], None),
        (["--listen", "--max-open"], None),
        (["--nonsense", "1"], None),
        (["word"], None),
    ],
)
def test_the_short_way_leaves_what_it_does_not_understand(
    arguments: list[str], overrides: dict[str, str] | None
) -> None:
    assert simple_overrides(arguments) == overrides


def test_a_command_of_the_client_loads_neither_server_nor_shell() -> None:
    loaded = loaded_by("tenant", "ls", "--url", "http://127.0.0.1:1", "--token", "t")
    assert "httpx2" in loaded
    assert not loaded & {"litestar", "apsw", "prompt_toolkit", "rich"}
