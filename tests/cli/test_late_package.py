"""A package that is entered without being run; see `enter_late`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, environment

INIT = "print('ran')\nfrom late.heavy import burden\nanswer = 42\n"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Of three modules: its ``__init__``, what that imports, and what does not need it."""
    folder = tmp_path / "late"
    folder.mkdir()
    (folder / "__init__.py").write_text(INIT)
    (folder / "heavy.py").write_text("burden = 1\n")
    (folder / "light.py").write_text("value = 7\n")
    return tmp_path


def run(path: Path, program: str) -> list[str]:
    """The lines that a new interpreter prints which has entered the package late."""
    done = subprocess.run(
        [sys.executable, "-c", "from dosql.cli.late_package import enter_late\n" + program],
        capture_output=True,
        text=True,
        check=True,
        env=environment() | {"PYTHONPATH": f"{ROOT}:{path}"},
        cwd=ROOT,
    )
    return done.stdout.splitlines()


def test_a_module_of_it_is_imported_without_what_the_package_imports(package: Path) -> None:
    program = "enter_late('late')\nimport late.light, sys\nprint(late.light.value, *sys.modules)"
    words = run(package, program)[0].split()
    assert words[0] == "7"
    assert "late.light" in words
    assert "late.heavy" not in words


@pytest.mark.parametrize(
    "asking",
    ["import late; print(late.answer)", "from late import answer; print(answer)"],
)
def test_the_package_runs_when_something_is_asked_of_it(package: Path, asking: str) -> None:
    program = f"enter_late('late')\nimport late.light\n{asking}\n{asking}\nprint(late.heavy.burden)"
    assert run(package, program) == ["ran", "42", "42", "1"]


def test_what_it_does_not_have_it_does_not_have(package: Path) -> None:
    program = "enter_late('late')\nimport late\nprint(hasattr(late, 'nothing'), late.answer)"
    assert run(package, program) == ["ran", "False 42"]


def test_a_package_that_is_imported_already_is_left_alone(package: Path) -> None:
    program = "import late\nenter_late('late')\nprint(late.answer)"
    assert run(package, program) == ["ran", "42"]


def test_a_package_that_is_not_installed_is_missed_as_ever(package: Path) -> None:
    program = (
        "enter_late('no_such_package')\n"
        "try:\n    import no_such_package.module\n"
        "except ModuleNotFoundError as error:\n    print(error.name)"
    )
    assert run(package, program) == ["no_such_package"]
