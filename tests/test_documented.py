"""What users see is documented: error codes, settings, commands; links resolve, examples run."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
CODE = re.compile(r"[a-z]+(_[a-z0-9]+)*")


def sources() -> Iterator[Path]:
    for package in ("dosql", "server"):
        yield from sorted((ROOT / package).rglob("*.py"))


def texts(node: ast.AST) -> Iterator[str]:
    """Every string in an expression: both arms of a condition, all values of a table."""
    for child in ast.walk(node):
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child.value


def error_codes(source: str) -> Iterator[str]:
    """Codes that the source raises: ``code=...``, ``default_code = ...``, tables beside a class."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg == "code":
            if isinstance(node.value, (ast.Constant, ast.IfExp, ast.BoolOp)):
                yield from texts(node.value)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if node.target.id == "default_code" and node.value is not None:
                yield from texts(node.value)
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if "default_code" in names:
                yield from texts(node.value)
            if "_CONSTRAINTS" in names and isinstance(node.value, ast.Dict):
                for value in node.value.values:
                    yield from texts(value)
        elif isinstance(node, (ast.Tuple, ast.Call)):
            yield from _beside_a_class(node)


def _beside_a_class(node: ast.Tuple | ast.Call) -> Iterator[str]:
    """``(UnavailableError, "code", ...)`` and ``Denial("code", ...)``."""
    if isinstance(node, ast.Call):
        named = isinstance(node.func, ast.Name) and node.func.id == "Denial"
        candidates = node.args[:1] if named else []
    else:
        first = node.elts[0] if node.elts else None
        named = isinstance(first, ast.Name) and first.id.endswith("Error")
        candidates = node.elts[1:2] if named else []
    for candidate in candidates:
        if isinstance(candidate, ast.Constant) and isinstance(candidate.value, str):
            yield candidate.value


def raised_codes() -> dict[str, set[str]]:
    """Code to the modules that raise it."""
    found: dict[str, set[str]] = {}
    for path in sources():
        for code in error_codes(path.read_text(encoding="utf-8")):
            if CODE.fullmatch(code):
                found.setdefault(code, set()).add(str(path.relative_to(ROOT)))
    found.pop("error", None)  # the base class; nothing raises it
    return found


def first_cells(page: Path) -> set[str]:
    """The ``code`` words in the first column of all tables of a page."""
    cells: set[str] = set()
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            cells.update(re.findall(r"`([^`]+)`", line.split("|")[1]))
    return cells


# --- errors -----------------------------------------------------------------------------------


def test_every_error_code_is_documented() -> None:
    documented = first_cells(DOCS / "errors.md")
    missing = {code: where for code, where in raised_codes().items() if code not in documented}
    assert missing == {}, "add these to docs/errors.md"


def test_no_documented_error_code_is_made_up() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in sources())
    gone = {
        code
        for code in first_cells(DOCS / "errors.md")
        if CODE.fullmatch(code) and f'"{code}"' not in source
    }
    assert gone == set(), "nothing in the source mentions these"


@pytest.mark.parametrize(
    "source",
    [
        'raise NotFoundError("x", code="my_code")',
        'raise X("x", code="my_code" if y else "my_code")',
        'class E(Exception):\n    default_code = "my_code"',
        'class E(Exception):\n    default_code: ClassVar[str] = "my_code"',
        '_FIXED = {1: (UnavailableError, "my_code", "text")}',
        '_CONSTRAINTS = {1: "my_code"}',
        'Denial("my_code", "text")',
    ],
)
def test_an_undocumented_code_would_be_found(source: str) -> None:
    """The finder itself, on every way in which the source names a code."""
    assert set(error_codes(source)) == {"my_code"}


# --- settings and commands --------------------------------------------------------------------


def documented_settings() -> dict[str, tuple[str, str]]:
    """Variable to (flag, default), as docs/configuration.md has them."""
    rows: dict[str, tuple[str, str]] = {}
    for line in (DOCS / "configuration.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `DOSQL_"):
            _, variable, flag, default, *_ = [cell.strip() for cell in line.split("|")]
            rows[variable.strip("`")] = (flag.strip("`"), default.strip("`"))
    return rows


def actual_settings() -> dict[str, str]:
    """Variable to its default, as the server has them."""
    import msgspec

    from server.settings import PREFIX, Settings

    return {
        f"{PREFIX}{field.name.upper()}": as_documented(field.default)
        for field in msgspec.structs.fields(Settings)
    }


def as_documented(default: object) -> str:
    """A default in the words of the table."""
    if default is None or default == ():
        return "none"
    if isinstance(default, tuple):
        return ",".join(default)
    if isinstance(default, float) and default.is_integer():
        return str(int(default))
    return str(default)


def test_every_setting_is_documented_with_its_default() -> None:
    documented = {variable: default for variable, (_, default) in documented_settings().items()}
    assert documented == actual_settings()


def test_every_flag_of_serve_is_documented() -> None:
    shown = run_dosql("serve", "--help")
    flags = set(re.findall(r"--[a-z][a-z0-9-]+", shown)) - {"--help"}
    documented = {flag for flag, _ in documented_settings().values() if flag.startswith("--")}
    assert flags == documented


def test_every_command_is_documented() -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    missing = [command for command in commands() if f"dosql {command}" not in page]
    assert missing == []


def commands() -> Iterator[str]:
    import typer
    from typer.main import get_command

    from dosql.cli.app import app

    def walk(command: Any, name: str) -> Iterator[str]:
        children = getattr(command, "commands", None)
        if children is None:
            yield name
            return
        for child in children:
            yield from walk(children[child], f"{name} {child}".strip())

    assert isinstance(app, typer.Typer)
    yield from walk(get_command(app), "")


def run_dosql(*arguments: str) -> str:
    done = subprocess.run(
        [Path(sys.executable).with_name("dosql"), *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
    )
    return done.stdout


def test_every_route_is_documented(server: Any) -> None:
    """Of the routes that exist below ``/t/{tenant}`` too, the page has the short form."""
    paths = server.request("GET", "/schema/openapi.json").json()["paths"]
    routes = {
        f"{method.upper()} {re.sub('{[^}]*}', '{}', path)}"
        for path, operations in paths.items()
        if not path.startswith("/t/")
        for method in operations
    }
    text = (DOCS / "http-api.md").read_text(encoding="utf-8")
    found = re.findall(r"`((?:GET|POST|PUT|DELETE) /[^`?]*)", text)
    assert routes - {re.sub("{[^}]*}", "{}", route) for route in found} == set()


# --- links ------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    broken: list[str] = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    pages = [str(page.relative_to(DOCS)) for page in sorted(DOCS.rglob("*.md"))]
    assert [page for page in pages if page != "index.md" and f"({page})" not in index] == []


def test_files_named_in_the_docs_exist() -> None:
    """A path of ours in backticks names a file that is there."""
    pattern = re.compile(r"`((?:dosql|server|tests|docs|examples|requirements|scripts)/[\w./*-]+)`")
    gone = {
        f"{page.relative_to(ROOT)}: {path}"
        for page in PAGES
        for path in pattern.findall(page.read_text(encoding="utf-8"))
        if not any(ROOT.glob(path.rstrip("/")))
    }
    assert gone == set()


# --- examples ---------------------------------------------------------------------------------
# Python blocks of a page run one after the other in one namespace, shell blocks as one script
# each, in a folder where ./data is the server's data directory. Only the address is replaced.

ADDRESS = "127.0.0.1:8787"
NOT_RUN = ("make ", "git ", "docker ", "systemctl ", "pip ")


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def beside_data(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A working directory like the one of the README; the server's address."""
    folder = tmp_path / "checkout"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "admin-token").write_text(server.admin_token + "\n")
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "backup").mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DOSQL_URL", server.url)
    monkeypatch.setenv("DOSQL_TOKEN", server.admin_token)
    return str(server.url).removeprefix("http://").rstrip("/")


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", DOCS / "client.md", DOCS / "changes.md"],
    ids=lambda page: page.name,
)
def test_python_examples_run(
    page: Path, beside_data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a line ends with ``# prints X``, that is what it prints."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    found = blocks(page, "python")
    assert found
    for number, block in enumerate(found):
        code = block.replace(ADDRESS, beside_data)
        exec(compile(code, f"{page.name}, block {number + 1}", "exec"), namespace)
        promised = re.findall(r"# prints (.*)$", block, re.MULTILINE)
        assert capsys.readouterr().out.splitlines() == promised


@pytest.mark.parametrize(
    ("page", "tenants"),
    [
        (ROOT / "README.md", []),
        (DOCS / "http-api.md", []),
        (DOCS / "cli.md", []),
        (DOCS / "changes.md", []),
        (DOCS / "operations.md", ["acme"]),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_shell_examples_run(page: Path, tenants: list[str], beside_data: str) -> None:
    """``tenants``: those that the page takes for granted."""
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    found = [block for block in blocks(page, "sh") if not block.startswith(NOT_RUN)]
    assert found
    if any("curl" in block for block in found) and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    for block in [*(f"dosql tenant create {name}" for name in tenants), *found]:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.replace(ADDRESS, beside_data)],
            capture_output=True,
            text=True,
            env=env,
            timeout=240,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        assert '"error"' not in done.stdout, done.stdout


def test_the_demo_runs_the_sql_of_the_readme(beside_data: str) -> None:
    """And comes to the end: it compares every answer with SQLite's own."""
    source = ast.parse((ROOT / "examples" / "demo.py").read_text(encoding="utf-8"))
    sql = {
        node.targets[0].id: node.value.value
        for node in source.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for name in ("TOP_GENRES", "COUNT_ARTISTS", "ADD_ARTIST"):
        assert " ".join(str(sql[name]).split()) in readme

    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py", "--url", f"http://{beside_data}"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Everything is as expected.\n")
