"""The floors of the architecture: imports only go down.

The map below is the rule (docs/architecture.md explains it). Imports inside functions count too:
a lazy import is still a dependency.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = {
    "dosql.accounts": 0,
    "dosql.durability": 0,
    "dosql.errors": 0,
    "dosql.ids": 0,
    "dosql.bookmarks": 0,
    "dosql.limits": 0,
    "dosql.clock": 0,
    "dosql.wire": 0,
    "dosql.pages": 0,
    "dosql.points": 0,
    "dosql.fetch": 0,
    "dosql.headers": 0,
    "dosql.rpc": 0,
    "dosql.__version__": 0,
    "dosql.sqlite": 1,
    "dosql.log": 1,
    "dosql.client": 1,
    "dosql.replica": 2,
    "dosql.objects": 2,
    "dosql.host": 3,
    "dosql.patterns": 5,
    "dosql.testing": 4,
    "server": 4,
    "dosql.cli": 5,
    "dosql": 4,
}
"""Part to floor. ``dosql`` itself is its ``__init__``: the public names, gathered."""
ONLY = {
    "dosql.client": {0},
    "dosql.cli": {0, "dosql.client", "dosql"},
    "dosql": {0, "dosql.client", "dosql.objects", "dosql.host"},
    "dosql.patterns": {0, "dosql"},
}
"""Parts that may import less than everything below them."""
EXCEPT = {("dosql.cli.start", "server.run")}
"""Single imports that a rule above would forbid: the command that starts the server."""


def modules() -> Iterator[tuple[str, Path]]:
    for package in ("dosql", "server"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield name.removesuffix(".__init__"), path


def part_of(module: str) -> str | None:
    """The longest part that the module belongs to; None for code that is not ours."""
    if module.split(".")[0] not in {"dosql", "server"}:
        return None
    return max((part for part in FLOORS if f"{module}.".startswith(f"{part}.")), key=len)


def imports_of(module: str, source: str, *, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that the source imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")[: len(module.split(".")) - node.level + is_package]
                base = ".".join([*above, *filter(None, [base])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def violations(module: str, source: str, *, is_package: bool = False) -> Iterator[str]:
    part = part_of(module)
    assert part is not None
    floor = FLOORS[part]
    for line, name in imports_of(module, source, is_package=is_package):
        target = part_of(name)
        if target is None or target == part:
            continue
        if any((module, name[: len(allowed)]) == (module_, allowed) for module_, allowed in EXCEPT):
            continue
        below = FLOORS[target] < floor or (floor == 0 and FLOORS[target] == 0)
        only = ONLY.get(part)
        if not below:
            yield f"{module}:{line} imports {name}: floor {floor} may not use {FLOORS[target]}"
        elif only is not None and FLOORS[target] not in only and target not in only:
            yield f"{module}:{line} imports {name}: {part} may use {only} only"


def test_every_module_belongs_to_a_part() -> None:
    """A new folder or top-level module must be given its floor here."""
    loose = [name for name, _ in modules() if part_of(name) == "dosql" and name != "dosql"]
    assert loose == []


def test_imports_only_go_down() -> None:
    found = [
        violation
        for name, path in modules()
        for violation in violations(
            name, path.read_text(encoding="utf-8"), is_package=path.name == "__init__.py"
        )
    ]
    assert found == [], "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("dosql.sqlite.database", "from dosql.objects.turns import Turns"),
        ("dosql.log.redo", "import dosql.sqlite.wal"),
        ("dosql.host.host", "def f():\n    from server.settings import Settings"),
        ("dosql.client.client", "from dosql.sqlite import database"),
        ("dosql.cli.tenant", "from server.run import serve"),
        ("dosql.log.redo", "from ..host import host"),
        ("dosql.objects.turns", "from dosql import App"),
    ],
)
def test_an_import_that_goes_up_or_sideways_is_found(module: str, source: str) -> None:
    """The checker itself, on imports that must not pass."""
    assert len(list(violations(module, source))) == 1


def test_only_the_clock_reads_time() -> None:
    """The linter bans the usual names; this catches the module behind an alias."""
    allowed = {"dosql.clock"}
    readers = [
        f"{name}:{line}"
        for name, path in modules()
        if name not in allowed
        for line, imported in imports_of(name, path.read_text(encoding="utf-8"))
        if imported in {"time.time", "time.time_ns"} or imported.split(".")[0] == "random"
    ]
    assert readers == []
