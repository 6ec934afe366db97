"""Two tenants from one sample database, and what each of them sees.

``make demo`` starts a server of its own in a temporary directory. With ``--url`` and ``--token`` it
uses a running one, where it replaces the tenants ``acme`` and ``globex``. The answers are compared
with those of Python's own ``sqlite3`` on the same file; exit code 1 if any of them differs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dosql import Client
from dosql.client import Tenant
from dosql.errors import DosqlError

CHINOOK = Path(__file__).parent / "data" / "chinook.sqlite"
START_S_MAX = 30
TOKEN = "demo-admin-token-of-a-throw-away-server"

TOP_GENRES = """
    SELECT Genre.Name AS genre, sum(InvoiceLine.Quantity) AS sold
    FROM InvoiceLine JOIN Track USING (TrackId) JOIN Genre USING (GenreId)
    GROUP BY GenreId ORDER BY sold DESC LIMIT 3
"""
COUNT_ARTISTS = "SELECT count(*) AS artists FROM Artist"
ADD_ARTIST = "INSERT INTO Artist (Name) VALUES (?)"
BEST_CUSTOMER = """
    SELECT Customer.FirstName || ' ' || Customer.LastName AS customer, round(sum(Total), 2) AS spent
    FROM Invoice JOIN Customer USING (CustomerId)
    WHERE Customer.Country = ? GROUP BY CustomerId ORDER BY spent DESC, customer LIMIT 1
"""


class UnexpectedError(Exception):
    """The server answered something else than SQLite does."""


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="a running server; without it one is started")
    parser.add_argument("--token", help="its admin token", default=os.environ.get("DOSQL_TOKEN"))
    arguments = parser.parse_args()
    try:
        if arguments.url:
            show(arguments.url, arguments.token)
        else:
            with running_server() as url:
                show(url, TOKEN)
    except (DosqlError, UnexpectedError) as error:
        print(f"\nFAILED: {error}", file=sys.stderr)
        return 1
    print("\nEverything is as expected.")
    return 0


def show(url: str, token: str | None) -> None:
    """The demonstration itself."""
    with Client(url, token=token) as client:
        print(f"A dosql server at {url}\n")
        for name in ("acme", "globex"):
            info = client.admin.tenants.import_(name, CHINOOK)
            print(f"imported {CHINOOK.name} as {info.name}: {info.size_bytes:,} bytes")
        acme, globex = client.tenant("acme"), client.tenant("globex")

        ask(acme, "the genres that sell best", TOP_GENRES)
        ask(acme, "the best customer in Germany", BEST_CUSTOMER, ["Germany"])
        for tenant in (acme, globex):
            ask(tenant, "how many artists there are", COUNT_ARTISTS)

        done = acme.run(ADD_ARTIST, ["The Acme Band"])
        print(f"\nacme adds an artist: {done.changes} row, rowid {done.last_insert_rowid}")
        look_for = "SELECT Name FROM Artist WHERE Name = 'The Acme Band'"
        for tenant, expected in ((acme, [{"Name": "The Acme Band"}]), (globex, [])):
            rows = tenant.query(look_for)
            print(f"{tenant.name} looks for it and finds: {rows}")
            expect(rows, expected)

        artists = [tenant.query_one(COUNT_ARTISTS) for tenant in (acme, globex)]
        print(f"artists of acme and globex now: {artists}")
        expect(artists, [{"artists": 276}, {"artists": 275}])


def ask(tenant: Tenant, what: str, sql: str, params: list[Any] | None = None) -> None:
    """Print what a tenant answers, and compare it with SQLite's own answer."""
    print(f"\n{tenant.name}: {what}")
    rows = tenant.query(sql, params)
    for row in rows:
        print("   ", ", ".join(f"{name} {value}" for name, value in row.items()))
    expect(rows, rows_of_sqlite(sql, params or []))


def rows_of_sqlite(sql: str, params: list[Any]) -> list[dict[str, Any]]:
    """What the standard library says."""
    with contextlib.closing(sqlite3.connect(f"file:{CHINOOK}?mode=ro", uri=True)) as database:
        cursor = database.execute(sql, params)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]


def expect(actual: object, expected: object) -> None:
    """Raises UnexpectedError if they differ."""
    if actual != expected:
        raise UnexpectedError(f"got {actual!r}, expected {expected!r}")


@contextlib.contextmanager
def running_server() -> Iterator[str]:
    """A server in a temporary directory, on a free port; its URL."""
    with tempfile.TemporaryDirectory(prefix="dosql-demo-") as folder:
        address = f"127.0.0.1:{free_port()}"
        log = Path(folder) / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    Path(sys.executable).with_name("dosql"),
                    "serve",
                    *("--listen", address, "--data-dir", str(Path(folder) / "data")),
                ],
                env={**os.environ, "DOSQL_ADMIN_TOKEN": TOKEN},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            wait_until_it_listens(address, process, log)
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(timeout=START_S_MAX)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until_it_listens(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Raises UnexpectedError if the server ends, or takes too long."""
    host, _, port = address.partition(":")
    give_up_at = time.monotonic() + START_S_MAX
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > give_up_at:
            raise UnexpectedError(f"the server did not start:\n{log.read_text()}")
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
