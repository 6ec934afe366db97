"""`--app`: how a program is found, what is said of one that cannot run, and its next version."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from dosql.errors import InvalidRequestError
from dosql.objects.app import App
from server.app_loader import AppLoader
from server.reloader import Reloader
from tests.support.server import ADMIN_TOKEN, ServerProcess

ROOT = Path(__file__).parents[2]
PROGRAM = """
from dosql import App, DurableObject

app = App()

@app.durable_object
class Counter(DurableObject):
    def answer(self) -> int:
        return 1
"""
ROOM = """
from dosql import App, DurableObject, Request, Response, WebSocketPair

app = App()

@app.durable_object
class Room(DurableObject):
    def visit(self):
        visits = self.ctx.storage.kv.get("visits", 0) + 1
        self.ctx.storage.kv.put("visits", visits)
        return "VERSION", visits

    async def fetch(self, request: Request) -> Response:
        client, server = WebSocketPair()
        self.ctx.accept_websocket(server)
        return Response(None, 101, web_socket=client)

    async def websocket_message(self, ws, message):
        ws.send("VERSION " + message)
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., AppLoader]]:
    """Writes files by name into a directory of the test's own; gives the loader of `target`."""
    modules, path = dict(sys.modules), list(sys.path)
    dont_write_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True

    def write(target: str = "program:app", **files: str) -> AppLoader:
        for name, source in files.items():
            file = tmp_path / f"{name.replace('__', '/', 1)}.py"
            file.parent.mkdir(exist_ok=True)
            file.write_text(source)
        return AppLoader(target, tmp_path)

    yield write
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.path[:] = path
    sys.dont_write_bytecode = dont_write_bytecode


def refusal(loader: AppLoader) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        loader.load()
    assert caught.value.code == "app_invalid"
    assert "\n" not in caught.value.message
    return caught.value.message


# --- loading ----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["program:app", "program", "package.inner:app"])
def test_a_program_is_found_beside_where_the_server_starts(
    program: Callable[..., AppLoader], target: str
) -> None:
    loader = program(target, program=PROGRAM, package__inner=PROGRAM, package____init__="")
    assert list(loader.load().registrations) == ["counter"]


@pytest.mark.parametrize("target", ["", ":app", "a b:app", "program:", "program:app()", "x/y:app"])
def test_a_target_that_is_none_is_refused(tmp_path: Path, target: str) -> None:
    if target == "program:":
        assert AppLoader(target, tmp_path)  # the name is `app` then
        return
    with pytest.raises(InvalidRequestError, match="must be module:name"):
        AppLoader(target, tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\n\nraise ValueError('no')", "ValueError: no (program.py:3)"),
        ("import no_such_module", "No module named 'no_such_module' (program.py:1)"),
        ("x = (\n", "SyntaxError: '(' was never closed (program.py:1)"),
        (
            "def f():\n    undefined\nf()",
            "NameError: name 'undefined' is not defined (program.py:2)",
        ),
        ("import sys\nsys.exit(3)", "SystemExit: 3 (program.py:2)"),
        ("from helper import x", "ZeroDivisionError: division by zero (helper.py:2)"),
        ("", "'app' in module 'program' is no dosql App; write `app = App()`"),
        ("app = 5", "'app' in module 'program' is no dosql App"),
        (PROGRAM.replace("app", "web"), "write program:web"),
        (
            PROGRAM.replace("@app.durable_object\n", ""),
            "write @app.durable_object above `class Counter`",
        ),
        (
            PROGRAM.replace("durable_object\n", "durable_object(name='A B')\n"),
            "cannot be the namespace of Counter",
        ),
        (PROGRAM.replace("-> int", "-> Nowhere"), "name 'Nowhere' is not defined"),
    ],
)
def test_a_program_that_cannot_run_says_why_and_where(
    program: Callable[..., AppLoader], source: str, message: str
) -> None:
    loader = program(program=source, helper="\nx = 1 / 0")
    assert message in refusal(loader)
    assert "program" not in sys.modules


def test_a_module_that_does_not_exist_is_named(program: Callable[..., AppLoader]) -> None:
    assert "there is no module 'nowhere'" in refusal(program("nowhere:app"))
    assert "there is no module 'package.nowhere'" in refusal(
        program("package.nowhere:app", package____init__="")
    )


def test_mistakes_with_the_app_are_told_with_their_line(program: Callable[..., AppLoader]) -> None:
    message = refusal(
        program(program=PROGRAM.replace("app.durable_object", "app.mount(1)\n@app.x"))
    )
    assert "(program.py:" in message


def test_a_program_that_cannot_run_ends_the_server_with_status_2(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("\nimport no_such_module\n")
    done = subprocess.run(
        [sys.executable, "-m", "dosql.cli", "serve", "--app", "broken:app", "--listen", ":0"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "dosql: broken:app cannot be loaded: ModuleNotFoundError: No module named "
        "'no_such_module' (broken.py:2) (app_invalid)\n"
    )
    assert not (tmp_path / "data").exists()


def test_a_program_is_named_by_the_environment_too(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(
        environ={
            "DOSQL_APP": "tests.support.routed_app:app",
            "DOSQL_ADMIN_TOKEN": ADMIN_TOKEN,
        }
    )
    assert any("echo, mute" in line for line in server.announced)
    assert server.request("POST", "/rpc/echo/x/add", json={"args": [1]}).status == 200


def test_a_mounted_application_that_does_not_start_keeps_the_server_from_starting(
    tmp_path: Path,
) -> None:
    (tmp_path / "program.py").write_text(
        "from dosql import App\n"
        "async def asgi(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
        "app = App()\n"
        "app.mount(asgi)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "dosql.cli", "serve", "--app=program:app", "--listen=127.0.0.1:0"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.endswith("refuses to start: no database (app_invalid)\n")


# --- the next version -------------------------------------------------------------------------


def answer(app: App) -> int:
    """What the program of the test says which version it is."""
    (registration,) = app.registrations.values()
    return int(registration.cls.answer(None))  # type: ignore[attr-defined]


class Site:
    """A loader, its reloader, and what runs."""

    def __init__(self, loader: AppLoader) -> None:
        self.app = loader.load()
        self.reloader = Reloader(loader, self.replace)

    async def replace(self, app: App) -> None:
        self.app = app


async def test_a_changed_file_is_a_new_version(program: Callable[..., AppLoader]) -> None:
    site = Site(program(program=PROGRAM))
    first = site.app
    await site.reloader.reload_if_changed()
    assert site.app is first
    program(program=PROGRAM.replace("return 1", "return 22"))
    await site.reloader.reload_if_changed()
    assert answer(site.app) == 22
    assert answer(first) == 1


async def test_all_modules_of_the_program_are_its_version(
    program: Callable[..., AppLoader],
) -> None:
    source = PROGRAM.replace("return 1", "return VALUE") + "\nfrom parts.values import VALUE\n"
    site = Site(program(program=source, parts____init__="", parts__values="VALUE = 1"))
    program(parts__values="VALUE = 333")
    await site.reloader.reload_if_changed()
    assert answer(site.app) == 333


async def test_a_broken_version_leaves_the_old_one_and_the_next_one_comes(
    program: Callable[..., AppLoader], capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(program(program=PROGRAM))
    first = site.app
    module = sys.modules["program"]
    program(program=PROGRAM + "\nfrom addition import x\n", addition="1 / 0")
    await site.reloader.reload_if_changed()
    assert site.app is first
    assert sys.modules["program"] is module
    told = capsys.readouterr().err
    assert "not reloaded: " in told
    assert "ZeroDivisionError: division by zero (addition.py:1)" in told
    await site.reloader.reload_if_changed()
    assert capsys.readouterr().err == "", "it is told once"
    program(addition="x = 1")
    await site.reloader.reload_if_changed()
    assert site.app is not first
    assert capsys.readouterr().err == "dosql: reloaded the app\n"


def test_a_reload_keeps_sockets_and_data_and_makes_new_objects(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """A connected client goes on with the new version, without connecting again."""
    directory = tmp_path / "program"
    directory.mkdir()
    file = directory / "rooms.py"
    file.write_text(ROOM.replace("VERSION", "first"))
    server = start_server(
        app="rooms:app", reload=True, prelude=f"import os; os.chdir({str(directory)!r})"
    )
    assert server.request("POST", "/rpc/room/a/visit").json() == {"result": ["first", 1]}
    url = server.url.replace("http:", "ws:") + "/objects/room/a/"
    token = {"Authorization": f"Bearer {server.admin_token}"}
    with connect(url, additional_headers=token, compression=None, proxy=None) as ws:
        ws.send("1")
        assert ws.recv() == "first 1"
        file.write_text(ROOM.replace("VERSION", "the second"))
        server.wait_for(lambda: "reloaded the app" in server.log_text, "the reload")
        ws.send("2")
        assert ws.recv() == "the second 2"
        assert server.request("POST", "/rpc/room/a/visit").json() == {"result": ["the second", 2]}
        file.write_text("broken(")
        server.wait_for(lambda: "not reloaded" in server.log_text, "the refusal")
        ws.send("3")
        assert ws.recv() == "the second 3"
