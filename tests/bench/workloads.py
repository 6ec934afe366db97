"""What is sent: the statements, and the requests made of them."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tests.bench.load import render
from tests.bench.processes import TOKEN, ServerProcess

TENANTS = 100
SMALL_ROWS = 1_000
BULK_ROWS = 1_000
WIDE_ROWS = 10_000
_COLUMNS = 10

CREATE = "CREATE TABLE IF NOT EXISTS items(id INTEGER PRIMARY KEY, value TEXT)"
READ = "SELECT id, value FROM items WHERE id = ?"
INSERT = "INSERT INTO items(value) VALUES (?)"
SELECT_WIDE = "SELECT * FROM wide"


def fill(rows: int) -> str:
    """A statement that inserts small rows."""
    return f"""WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO items(value) SELECT 'value ' || i FROM n"""


def create_wide() -> str:
    """A table of 10 columns, half of them text."""
    columns = ", ".join(f"c{n} {'TEXT' if n % 2 else 'INTEGER'}" for n in range(_COLUMNS))
    return f"CREATE TABLE wide({columns})"


def fill_wide() -> str:
    """A statement that inserts `WIDE_ROWS` rows into it."""
    values = ", ".join(f"'text ' || i || ' {n}'" if n % 2 else f"i * {n}" for n in range(_COLUMNS))
    rows = f"SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {WIDE_ROWS}"
    return f"WITH RECURSIVE n(i) AS ({rows}) INSERT INTO wide SELECT {values} FROM n"


@dataclass(frozen=True, slots=True)
class Workload:
    """One line of the table."""

    name: str
    connections: int
    requests: list[bytes]
    writes: bool = False
    bare: bool = False
    """Whether uvicorn with a constant answer is measured with the same requests."""
    loop: str | None = None
    """Which loop of `peers.Loops` does the same."""
    loop_synced: str | None = None
    """The same with a sync per commit."""


def tenant_name(number: int) -> str:
    """Of tenant ``number``."""
    return f"bench-{number}"


def prepare(server: ServerProcess) -> None:
    """Make all tables and rows that the workloads use."""
    for number in range(TENANTS):
        server.call("POST", "/run", {"sql": CREATE}, tenant_name(number))
        server.call("POST", f"/rpc/journal/bench-{number}/add", {"args": ["hello"]})
    for sql in (fill(SMALL_ROWS), create_wide(), fill_wide()):
        server.call("POST", "/run", {"sql": sql}, tenant_name(0))


def workloads() -> list[Workload]:
    """All of them, in the order of the table."""
    reads = [_sql("/query", READ, [number]) for number in range(1, SMALL_ROWS + 1)]
    one = [_sql("/run", INSERT, ["hello"])]
    many = [_sql("/run", INSERT, ["hello"], tenant_name(n)) for n in range(TENANTS)]
    operations = [
        {"type": "run", "sql": INSERT, "params": [f"value {n}"]} for n in range(BULK_ROWS)
    ]
    bulk = [_post("/transaction", {"operations": operations})]
    wide = [_sql("/query", SELECT_WIDE, [])]
    read_call = [_post("/rpc/journal/bench-0/value", {"args": [1]})]

    def add_call(number: int) -> bytes:
        return _post(f"/rpc/journal/bench-{number}/add", {"args": ["hello"]})

    inserts = [
        Workload(
            "insert",
            connections,
            one,
            writes=True,
            bare=connections in (1, 64),
            loop="insert",
            loop_synced="insert",
        )
        for connections in (1, 4, 16, 64, 256)
    ]
    return [
        Workload("point read", 1, reads, bare=True, loop="read"),
        Workload("point read", 64, reads, bare=True, loop="read"),
        *inserts,
        Workload(
            f"insert, {TENANTS} tenants",
            64,
            many,
            writes=True,
            loop="insert-many",
            loop_synced="insert-many",
        ),
        Workload("rpc that reads", 64, read_call, bare=True, loop="read"),
        Workload("rpc that inserts", 1, [add_call(0)], writes=True, bare=True, loop="insert"),
        Workload("rpc that inserts", 64, [add_call(0)], writes=True, bare=True, loop="insert"),
        Workload(
            f"rpc that inserts, {TENANTS} objects",
            64,
            [add_call(number) for number in range(TENANTS)],
            writes=True,
            loop="insert-many",
        ),
        Workload("1,000 inserts, /transaction", 1, bulk, writes=True, loop_synced="bulk"),
        Workload("10,000 x 10 result", 1, wide, loop="result"),
    ]


def _sql(path: str, sql: str, params: list[object], tenant: str = tenant_name(0)) -> bytes:
    return _post(path, {"sql": sql, "params": params}, tenant)


def _post(path: str, body: object, tenant: str = tenant_name(0)) -> bytes:
    headers = {
        "Authorization": f"Bearer {TOKEN}",
        "Content-Type": "application/json",
        "X-Tenant-ID": tenant,
    }
    return render(path, json.dumps(body, separators=(",", ":")).encode(), headers)
