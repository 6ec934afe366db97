"""The search for secrets that ends every server of the suite: it finds what it must."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from dosql.replica.ltx.encoder import encode
from dosql.replica.ltx.header import Header
from server.admin_token import FILE_NAME
from tests.support import canaries
from tests.support.canaries import Canaries
from tests.support.server import ServerProcess

SECRET = "dss_" + "Canary7" * 6 + "x"
LOGS_THE_TOKEN = """
import logging
import server.gate as module
bearer = module.bearer
def talkative(headers):
    logging.getLogger("dosql.gate").warning("asked with %s", bearer(headers).decode())
    return bearer(headers)
module.bearer = talkative
"""
KEEPS_THE_TOKEN = """
from dosql.host.sessions import Sessions
begin = Sessions.begin
def plain(self, db, tenant, user, token):
    db.internal_run("CREATE TABLE IF NOT EXISTS _dosql_plain (token TEXT)")
    db.internal_run("INSERT INTO _dosql_plain VALUES (?)", (token,))
    return begin(self, db, tenant, user, token)
Sessions.begin = plain
"""
KEEPS_THE_PASSWORD = """
import server.auth as module
create_user = module.create_user
def plain(db, name, email, hashed, now):
    return create_user(db, name, email, hashed + "/" + PASSWORD, now)
module.create_user = plain
PASSWORD = "a password of nobody else"
"""
ACCOUNT = {"email": "a@example.com", "name": "A", "password": "a password of nobody else"}


@pytest.mark.parametrize("end", ["stop", "restart"])
def test_a_server_that_logs_a_token_fails_its_test(end: str, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data", prelude=LOGS_THE_TOKEN)
    server.request("GET", "/admin/tenants")
    with pytest.raises(AssertionError, match=r"data\.log: admin-") as caught:
        getattr(server, end)()
    assert server.admin_token not in str(caught.value)


@pytest.mark.parametrize("end", ["stop", "kill"])
@pytest.mark.parametrize("prelude", [KEEPS_THE_TOKEN, KEEPS_THE_PASSWORD])
def test_a_server_that_stores_a_secret_of_a_user_fails_its_test(
    prelude: str, end: str, tmp_path: Path
) -> None:
    server = ServerProcess(tmp_path / "data", prelude=prelude, bucket=(tmp_path / "b").as_uri())
    tenant = server.new_tenant()
    reply = server.request("POST", "/auth/signup", json=ACCOUNT, token=None, tenant=tenant)
    assert reply.status == 201, reply.body
    with pytest.raises(AssertionError, match="secrets of"):
        getattr(server, end)()


def test_a_server_that_keeps_its_secrets_ends_well(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(environ={})  # it makes its admin token, and keeps it in a file
    kept = (server.data_dir / FILE_NAME).read_text().strip()
    assert server.request("GET", "/admin/tenants", token=kept).status == 200
    server.stop()


def secret_page() -> bytes:
    return SECRET.encode().ljust(4096, b"\0")


def a_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE accounts (token TEXT)")
    connection.execute("INSERT INTO accounts VALUES (?)", [SECRET])
    connection.commit()
    connection.close()


def a_file_of_the_bucket(path: Path) -> None:
    header = Header(
        page_size=4096, commit=1, min_txid=1, max_txid=1, timestamp_ms=1, pre_apply_checksum=0
    )
    data = encode(header, {1: secret_page()})
    assert SECRET.encode() not in data, "it is compressed there"
    path.with_suffix(".ltx").write_bytes(data)


def a_segment_with_holes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(16 * 1024 * 1024)
        file.seek(9 * 1024 * 1024)
        file.write(secret_page())


@pytest.mark.parametrize("make", [a_database, a_file_of_the_bucket, a_segment_with_holes])
def test_a_token_is_found_wherever_it_is_stored(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = tmp_path / "data" / "deeper"
    folder.mkdir(parents=True)
    log = tmp_path / "data.log"
    log.write_text("nothing")
    assert Canaries().search(log, [tmp_path / "data"]) == []
    make(folder / "file")
    assert len(Canaries().search(log, [tmp_path / "data"])) == 1


def test_a_secret_without_its_prefix_is_found_too(tmp_path: Path) -> None:
    known = Canaries()
    known.register(SECRET)
    log = tmp_path / "data.log"
    log.write_text(f"the random part is {SECRET[-32:]}")
    assert len(known.search(log, [])) == 1


def test_the_file_that_keeps_the_admin_token_may_have_it(tmp_path: Path) -> None:
    known = Canaries()
    known.register(SECRET)
    (tmp_path / "log").write_text("nothing")
    (tmp_path / FILE_NAME).write_text(SECRET)
    assert known.search(tmp_path / "log", [tmp_path]) == []
    (tmp_path / "other").write_text(SECRET)
    assert known.search(tmp_path / "log", [tmp_path]) != []


def test_what_was_not_searched_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = canaries.Figures()
    monkeypatch.setattr(canaries, "FIGURES", figures)
    monkeypatch.setattr(canaries, "SEARCH_BYTES_MAX", 10_000)
    (tmp_path / "log").write_text("nothing")
    for number in range(5):
        (tmp_path / f"file{number}").write_bytes(b"x" * 6_000)
    Canaries().search(tmp_path / "log", [tmp_path])
    assert (figures.files, figures.skipped) == (3, 4)
