"""Every kind of bad input against the real server: the status and code of each is a promise.

The table is also a page of the documentation. ``DOSQL_UPDATE_DOCS=1`` writes it anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.server import ServerProcess

PAGE = Path(__file__).parent.parent.parent / "docs" / "bad-input.md"
INTRODUCTION = """# Bad input

What the server answers to requests that are wrong. `tests/server/test_bad_input.py` sends every one
of them to a real server and writes this page. Each answer has the body described in
[errors.md](errors.md), and nothing of what was asked is done.

| input | request | status | code |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Bad:
    """One wrong request and its answer."""

    what: str
    status: int
    code: str
    path: str = "/query"
    body: object = None
    """Sent as JSON; bytes are sent as they are."""
    method: str = "POST"
    tenant: str | None = "bad"
    token: str = "admin"
    """``admin``, ``tenant``, ``read-only``, or none."""
    headers: tuple[tuple[str, str], ...] = ()


def sql(text: str, params: object = None) -> dict[str, object]:
    return {"sql": text} if params is None else {"sql": text, "params": params}


def raw(params: str) -> bytes:
    return b'{"sql": "SELECT ?", "params": %b}' % params.encode()


def operations(*statements: tuple[str, str]) -> dict[str, object]:
    return {"operations": [{"type": kind, "sql": text} for kind, text in statements]}


CASES = [
    # the body
    Bad("no body", 400, "invalid_json", body=b""),
    Bad("not JSON", 400, "invalid_json", body=b"SELECT 1"),
    Bad("JSON that ends early", 400, "invalid_json", body=b'{"sql": "SELECT 1"'),
    Bad("two JSON values", 400, "invalid_json", body=b'{"sql": "SELECT 1"} {}'),
    Bad("a byte order mark", 400, "invalid_json", body=b'\xef\xbb\xbf{"sql": "SELECT 1"}'),
    Bad("UTF-16", 400, "invalid_json", body='{"sql": "SELECT 1"}'.encode("utf-16")),
    Bad("bytes that are not UTF-8", 400, "invalid_json", body=b'{"sql": "\xff"}'),
    Bad("NaN", 400, "invalid_json", body=raw("[NaN]")),
    Bad("Infinity", 400, "invalid_json", body=raw("[Infinity]")),
    Bad("100,000 nested lists", 400, "invalid_json", body=raw("[" * 100_000 + "]" * 100_000)),
    Bad("a list instead of an object", 400, "invalid_request", body=[1]),
    Bad("null", 400, "invalid_request", body=b"null"),
    Bad("no `sql`", 400, "invalid_request", body={}),
    Bad("`sql` is a number", 400, "invalid_request", body={"sql": 1}),
    Bad("`sql` is null", 400, "invalid_request", body={"sql": None}),
    Bad("an unknown field", 400, "invalid_request", body={"sql": "SELECT 1", "parms": []}),
    Bad("`params` is text", 400, "invalid_request", body=sql("SELECT ?", "x")),
    Bad("`params` is a number", 400, "invalid_request", body=sql("SELECT ?", 1)),
    Bad("a body of 3 MB", 413, "body_too_large", body=b" " * 3_000_000),
    # parameters
    Bad("a parameter is a list", 400, "invalid_parameter", body=sql("SELECT ?", [[1]])),
    Bad("a parameter is an object", 400, "invalid_parameter", body=sql("SELECT ?", [{"a": 1}])),
    Bad("a blob that is not base64", 400, "invalid_parameter", body=raw('[{"$blob": "?"}]')),
    Bad("a blob beside another key", 400, "invalid_parameter", body=raw('[{"$blob":"","x":1}]')),
    Bad("a lone surrogate", 400, "invalid_json", body=raw('["\\ud800"]')),
    Bad("a lone surrogate as SQL", 400, "invalid_json", body=b'{"sql": "\\ud800"}'),
    Bad("a number beyond every float", 400, "invalid_request", body=raw("[1e999]")),
    Bad("an integer of 65 bits", 400, "invalid_parameter", body=raw("[18446744073709551616]")),
    Bad("too few parameters", 400, "invalid_parameter", body=sql("SELECT ?, ?", [1])),
    Bad("too many parameters", 400, "invalid_parameter", body=sql("SELECT ?", [1, 2])),
    Bad("a named parameter is missing", 400, "invalid_parameter", body=sql("SELECT :a", {"b": 1})),
    # statements
    Bad("an empty statement", 400, "sql_empty", body=sql("")),
    Bad("only a comment", 400, "sql_empty", body=sql("-- nothing")),
    Bad("a syntax error", 400, "sql_error", body=sql("SELEC 1")),
    Bad("an unknown table", 400, "sql_error", body=sql("SELECT * FROM nowhere")),
    Bad("an unknown column", 400, "sql_error", body=sql("SELECT nothing")),
    Bad("an unknown function", 400, "sql_error", body=sql("SELECT f(1)")),
    Bad("two statements", 400, "sql_multiple_statements", body=sql("SELECT 1; SELECT 2")),
    Bad("NUL in the statement", 400, "invalid_encoding", body=sql("SELECT 1 \0 AS a")),
    Bad("a write in `/query`", 400, "statement_returns_no_rows", body=sql("DELETE FROM t")),
    Bad("a read in `/run`", 400, "statement_is_read_only", "/run", sql("SELECT 1")),
    Bad("the same key twice", 409, "constraint_unique", "/run", sql("INSERT INTO t VALUES (1)")),
    Bad("a missing value", 409, "constraint_not_null", "/run", sql("INSERT INTO t VALUES (NULL)")),
    Bad("`BEGIN`", 403, "transaction_forbidden", "/run", sql("BEGIN")),
    Bad("`SAVEPOINT`", 403, "transaction_forbidden", "/run", sql("SAVEPOINT s")),
    Bad("`ATTACH`", 403, "sql_forbidden", "/run", sql("ATTACH '/etc/passwd' AS p")),
    Bad("`VACUUM`", 403, "sql_forbidden", "/run", sql("VACUUM")),
    Bad("`VACUUM INTO`", 403, "sql_forbidden", "/run", sql("VACUUM INTO '/tmp/x'")),
    Bad("a forbidden PRAGMA", 403, "sql_forbidden", body=sql("PRAGMA journal_mode = DELETE")),
    Bad("a temporary table", 403, "sql_forbidden", "/run", sql("CREATE TEMP TABLE x(a)")),
    Bad("an extension", 403, "sql_forbidden", body=sql("SELECT load_extension('x')")),
    Bad("the server's table", 403, "sql_forbidden", body=sql("SELECT * FROM _dosql_migrations")),
    Bad("100 KB of SQL", 413, "statement_too_large", body=sql("SELECT '" + "x" * 100_000 + "'")),
    Bad("a value of 3 MB", 413, "value_too_large", body=sql("SELECT zeroblob(3000000)")),
    Bad(
        "10,001 rows",
        413,
        "result_too_large",
        body=sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 10001)"
            " SELECT i FROM n"
        ),
    ),
    Bad(
        "a statement without end",
        422,
        "query_timeout",
        body=sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
        ),
    ),
    # transactions
    Bad("no `operations`", 400, "invalid_request", "/transaction", {}),
    Bad("an unknown type", 400, "invalid_request", "/transaction", operations(("exec", "x"))),
    Bad(
        "1,001 operations",
        413,
        "too_many_operations",
        "/transaction",
        operations(*[("query", "SELECT 1")] * 1_001),
    ),
    Bad(
        "`COMMIT` inside",
        403,
        "transaction_forbidden",
        "/transaction",
        operations(("query", "SELECT 1"), ("run", "COMMIT")),
    ),
    Bad(
        "an unknown transaction",
        404,
        "transaction_not_found",
        "/transactions/nobody/query",
        sql("SELECT 1"),
    ),
    # headers and URL
    Bad("a form", 400, "invalid_json", body=b"sql=1",
        headers=(("Content-Type", "application/x-www-form-urlencoded"),)),
    Bad("XML", 415, "unsupported_media_type", body=b"<sql/>",
        headers=(("Content-Type", "application/xml"),)),
    Bad("a compressed body", 415, "unsupported_media_type", body=b"x",
        headers=(("Content-Encoding", "gzip"),)),
    Bad("a key with a space", 400, "invalid_idempotency_key", body=sql("SELECT 1"),
        headers=(("Idempotency-Key", "a b"),)),
    Bad("a key of 256 characters", 400, "invalid_idempotency_key", body=sql("SELECT 1"),
        headers=(("Idempotency-Key", "x" * 256),)),
    Bad("an unknown URL parameter", 400, "invalid_request", "/query?page=2", sql("SELECT 1")),
    Bad("a point in time that is none", 400, "invalid_time", "/query?at=now", sql("SELECT 1")),
    Bad("an unknown format", 400, "invalid_request", "/query?rows=csv", sql("SELECT 1")),
    Bad("another method", 405, "method_not_allowed", method="GET"),
    Bad("an unknown route", 404, "not_found", "/nope", {}),
    Bad("an unknown route of a tenant", 404, "not_found", "/t/bad/nope", {}),
    Bad("an admin route below a tenant", 404, "not_found", "/t/bad/admin/tenants", {}),
    # tenant
    Bad("no tenant", 400, "tenant_required", body=sql("SELECT 1"), tenant=None),
    Bad("an empty name", 400, "invalid_tenant_name", body=sql("SELECT 1"), tenant=""),
    Bad("an upper case name", 400, "invalid_tenant_name", body=sql("SELECT 1"), tenant="Bad"),
    Bad("a path as name", 400, "invalid_tenant_name", body=sql("SELECT 1"), tenant="../../etc"),
    Bad("a name of 64 characters", 400, "invalid_tenant_name", body=sql("SELECT 1"),
        tenant="x" * 64),
    Bad("a reserved name", 400, "invalid_tenant_name", body=sql("SELECT 1"), tenant="admin"),
    Bad("a name in the path that is none", 400, "invalid_tenant_name", "/t/B%C3%A4d/query",
        sql("SELECT 1"), tenant=None),
    Bad("path and header disagree", 400, "tenant_conflict", "/t/other/query", sql("SELECT 1")),
    # token
    Bad("no token", 401, "missing_token", body=sql("SELECT 1"), token=""),
    Bad("another scheme", 401, "missing_token", body=sql("SELECT 1"), token="",
        headers=(("Authorization", "Basic YTpi"),)),
    Bad("a wrong token", 401, "invalid_token", body=sql("SELECT 1"), token="",
        headers=(("Authorization", "Bearer dsk_0123456789abcdef_x"),)),
    Bad("another tenant's token", 404, "tenant_not_found", body=sql("SELECT 1"), tenant="other",
        token="tenant"),
    Bad("a write with a read-only token", 403, "read_only", "/run", sql("DELETE FROM t"),
        token="read-only"),
    Bad("a tenant's token on an admin route", 403, "forbidden", "/admin/tenants", {"name": "x"},
        token="tenant"),
    # administration
    Bad("a tenant that exists", 409, "tenant_exists", "/admin/tenants", {"name": "bad"}),
    Bad("a tenant with a bad name", 400, "invalid_tenant_name", "/admin/tenants", {"name": "A"}),
    Bad("a tenant without a name", 400, "invalid_request", "/admin/tenants", {}),
    Bad("a missing tenant", 404, "tenant_not_found", "/admin/tenants/nobody", method="GET"),
    Bad("a page of 0 tenants", 400, "invalid_request", "/admin/tenants?limit=0", method="GET"),
    Bad("a page of 12abc tenants", 400, "invalid_request", "/admin/tenants?limit=12abc",
        method="GET"),
    Bad("a token for nobody", 404, "tenant_not_found", "/admin/tokens", {"tenant": "nobody"}),
    Bad("a token with unknown rights", 400, "invalid_request", "/admin/tokens",
        {"tenant": "bad", "access": "all"}),
    Bad("a token that has expired", 400, "invalid_request", "/admin/tokens",
        {"tenant": "bad", "expiresIn": -1}),
    Bad("a missing token", 404, "token_not_found", "/admin/tokens/nobody", method="GET"),
    Bad("an import that is no database", 400, "invalid_database", "/admin/tenants/bad/import",
        b"PK\x03\x04", method="PUT"),
    Bad("an export of nobody", 404, "tenant_not_found", "/admin/tenants/nobody/export",
        method="GET"),
]  # fmt: skip


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose tenant ``bad`` has a table with a row."""
    server = ServerProcess(tmp_path_factory.mktemp("bad") / "data", statement_ms=300)
    server.sql("bad", "run", "CREATE TABLE t(a INTEGER NOT NULL UNIQUE)")
    server.sql("bad", "run", "INSERT INTO t VALUES (1)")
    server.request("POST", "/admin/tenants", json={"name": "other"})
    yield server
    server.kill()


@pytest.fixture(scope="module")
def tokens(target: ServerProcess) -> dict[str, str | None]:
    return {
        "": None,
        "admin": target.admin_token,
        "tenant": target.new_token("bad"),
        "read-only": target.new_token("bad", "read-only"),
    }


@pytest.mark.parametrize("case", CASES, ids=[case.what for case in CASES])
def test_bad_input_is_refused_with_its_status_and_code(
    target: ServerProcess, tokens: dict[str, str | None], case: Bad
) -> None:
    content = case.body if isinstance(case.body, bytes) else None
    reply = target.request(
        case.method,
        case.path,
        json=None if content is not None else case.body,
        content=content,
        tenant=case.tenant,
        token=tokens[case.token],
        headers=dict(case.headers),
    )
    assert (reply.status, reply.code) == (case.status, case.code), reply.body
    body = reply.json()
    assert body["requestId"] == reply.headers["x-request-id"]
    for secret in (str(target.data_dir), "Traceback", "apsw", "msgspec", "litestar", "$."):
        assert secret not in body["error"]


def test_nothing_of_all_that_was_done(target: ServerProcess) -> None:
    """Runs after the cases, in the same file: the row is still the only one."""
    reply = target.sql("bad", "query", "SELECT a FROM t")
    assert reply.json() == {"rows": [{"a": 1}]}
    names = [each["name"] for each in target.request("GET", "/admin/tenants").json()["tenants"]]
    assert names == ["bad", "other"]
    assert not target.log_lines("request_failed")


def page() -> str:
    """The table as markdown."""
    lines = []
    for case in CASES:
        request = f"{case.method} {case.path}"
        if case.body is not None and not isinstance(case.body, bytes):
            body = json.dumps(case.body)
            request += " " + (body if len(body) <= 70 else body[:66] + " ...")
        shown = request.replace("|", "\\|")
        lines.append(f"| {case.what} | `{shown}` | {case.status} | `{case.code}` |")
    return INTRODUCTION + "\n".join(lines) + "\n"


def test_the_page_of_bad_input_is_up_to_date() -> None:
    text = page()
    print(text)
    if os.environ.get("DOSQL_UPDATE_DOCS") == "1":
        PAGE.write_text(text, encoding="utf-8")
    assert len(CASES) >= 40
    assert PAGE.read_text(encoding="utf-8") == text
