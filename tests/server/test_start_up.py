"""How the server starts, refuses to start, and stops."""

from __future__ import annotations

import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dosql.errors import InvalidRequestError
from server.listen import Address
from server.settings import Settings, load_settings, unknown_variables
from tests.support.server import Reply, ServerProcess

ROOT = Path(__file__).parent.parent.parent


def refusal(environ: dict[str, str] | None = None, **settings: object) -> tuple[int, str]:
    """Exit status and stderr of a server that does not start."""
    program = f"from server.run import serve; serve({settings!r})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **(environ or {})},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", ":0"])
def test_it_refuses_to_be_reached_by_others_without_a_configured_token(
    tmp_path: Path, listen: str
) -> None:
    status, text = refusal(listen=listen, data_dir=str(tmp_path / "data"))
    assert status == 1
    assert "admin_token_required" in text
    assert not (tmp_path / "data").exists()


def test_with_a_token_it_listens_on_every_address(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(listen="0.0.0.0:0")
    assert server.request("GET", "/live").status == 200


def test_the_admin_token_is_printed_once_and_kept_for_its_owner_only(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(environ={})
    path = server.data_dir / "admin-token"
    token = path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700
    assert len(token) >= 43
    printed = "\n".join(server.announced)
    assert token in printed
    assert server.url in printed
    assert str(server.data_dir.resolve()) in printed
    assert any("curl" in line for line in server.announced)
    assert server.request("GET", "/admin/tenants", token=token).status == 200
    server.restart()
    assert path.read_text().strip() == token
    assert token not in "\n".join(server.announced)
    assert server.request("GET", "/admin/tenants", token=token).status == 200
    assert token not in server.log_text


def test_the_printed_curl_line_works(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server(environ={})
    assert server.process.stdout is not None
    command = server.announced[-1].strip().removesuffix("\\")
    command += server.process.stdout.readline().decode()
    done = subprocess.run(["sh", "-c", command + " -s"], capture_output=True, timeout=30)
    assert done.stdout == b'{"rows":[{"one":1}]}'


def test_a_configured_token_is_neither_kept_nor_printed(server: ServerProcess) -> None:
    assert not (server.data_dir / "admin-token").exists()
    assert server.admin_token not in "\n".join(server.announced)


def test_a_taken_address_is_said_in_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        status, text = refusal(listen=listen, data_dir=str(tmp_path / "data"))
    assert status == 1
    assert "address_in_use" in text


def test_a_locked_data_directory_is_said_in_one_sentence(server: ServerProcess) -> None:
    status, text = refusal(
        {"DOSQL_ADMIN_TOKEN": "x"}, listen="127.0.0.1:0", data_dir=str(server.data_dir)
    )
    assert status == 1
    assert "data_dir_locked" in text


BAD_SETTINGS: list[tuple[dict[str, object], str]] = [
    ({"listen": "nonsense"}, "listen"),
    ({"listen": "127.0.0.1:99999"}, "listen"),
    ({"max_open": 0}, "max_open"),
    ({"max_open": "many"}, "max_open"),
    ({"idle_seconds": -1}, "idle_seconds"),
    ({"tenant_creation": "sometimes"}, "tenant_creation"),
    ({"default_tenant": "Not A Name"}, "default_tenant"),
    ({"log_level": "loud"}, "log_level"),
    ({"inline_ms": 9_000}, "inline_ms"),
    ({"cors_origins": "*"}, "cors_origins"),
    ({"durability": "disk"}, "durability"),
    ({"durability": "bucket", "bucket": "none"}, "durability"),
    ({"bucket": "ftp://x/y"}, "bucket"),
    ({"s3_endpoint": "http://127.0.0.1:9000"}, "s3_endpoint"),
    ({"reload": True}, "reload"),
    ({"no_such": 1}, "no_such"),
]


@pytest.mark.parametrize(("given", "named"), BAD_SETTINGS)
def test_a_wrong_setting_is_named(given: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named) as caught:
        Address.parse(load_settings(given, {}).listen)
    assert caught.value.code == "invalid_settings"


def test_wrong_settings_end_the_process_with_status_2(tmp_path: Path) -> None:
    status, text = refusal(max_open=0, data_dir=str(tmp_path))
    assert status == 2
    assert "max_open" in text


def test_flags_win_over_the_environment_and_it_over_the_defaults() -> None:
    environ = {"DOSQL_MAX_OPEN": "7", "DOSQL_IDLE_SECONDS": "1.5", "DOSQL_DATA_DIR": ""}
    settings = load_settings({"max_open": "9", "listen": None}, environ)
    assert settings.max_open == 9
    assert settings.idle_seconds == 1.5
    assert settings.data_dir == Settings().data_dir
    assert settings.listen == "127.0.0.1:8787"


def test_lists_are_separated_by_commas() -> None:
    environ = {"DOSQL_CORS_ORIGINS": "https://a.example, https://b.example"}
    assert load_settings({}, environ).cors_origins == ("https://a.example", "https://b.example")


def test_a_misspelt_variable_is_reported() -> None:
    environ = {"DOSQL_DATADIR": "x", "DOSQL_DATA_DIR": "y", "DOSQL_URL": "z", "PATH": ""}
    assert unknown_variables(environ) == ["DOSQL_DATADIR"]


ADDRESSES = [
    ("127.0.0.1:8787", True),
    ("127.9.9.9:1", True),
    ("localhost:0", True),
    ("[::1]:8787", True),
    ("0.0.0.0:8787", False),
    (":8787", False),
    ("[::]:8787", False),
    ("192.168.1.5:80", False),
    ("example.com:80", False),
    ("127.0.0.1.evil.test:80", False),
]


@pytest.mark.parametrize(("text", "loopback"), ADDRESSES)
def test_only_loopback_addresses_count_as_private(text: str, loopback: bool) -> None:
    assert Address.parse(text).is_loopback is loopback


# --- the end ----------------------------------------------------------------------------------

SLOW = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000000)"
    " SELECT count(*) AS n FROM n"
)


def test_sigterm_lets_requests_under_way_finish(server: ServerProcess) -> None:
    tenant = server.new_tenant()
    replies: list[Reply] = []
    slow = threading.Thread(target=lambda: replies.append(server.sql(tenant, "query", SLOW)))
    slow.start()
    server.wait_for(
        lambda: server.metric("dosql_requests_in_progress") >= 2, "the statement to run"
    )
    server.process.send_signal(signal.SIGTERM)
    slow.join()
    assert replies[0].json() == {"rows": [{"n": 4_000_000}]}
    assert server.process.wait(timeout=30) == 0
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])))


def test_an_idle_keep_alive_connection_does_not_hold_up_the_end(server: ServerProcess) -> None:
    assert server.request("GET", "/live").status == 200
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=8) == 0


def test_what_was_written_before_the_end_is_there_after_it(server: ServerProcess) -> None:
    server.sql("acme", "run", "CREATE TABLE t(a)")
    server.sql("acme", "run", "INSERT INTO t VALUES (1)")
    assert server.stop() == 0
    server.restart()
    assert server.sql("acme", "query", "SELECT a FROM t").json() == {"rows": [{"a": 1}]}
