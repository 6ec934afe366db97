"""Replies and broken connections as errors."""

from __future__ import annotations

import json

import httpx2
import pytest

from dosql import errors
from dosql.client import AsyncClient
from dosql.client.errors import error_from_reply, failure_from_exception, failure_from_reply

CASES = [
    (400, "invalid_json", errors.InvalidRequestError),
    (401, "invalid_token", errors.AuthenticationError),
    (403, "read_only", errors.ForbiddenError),
    (404, "tenant_not_found", errors.NotFoundError),
    (405, "method_not_allowed", errors.InvalidRequestError),
    (409, "tenant_exists", errors.ConflictError),
    (409, "constraint_unique", errors.ConstraintError),
    (413, "result_too_large", errors.LimitError),
    (415, "unsupported_media_type", errors.InvalidRequestError),
    (418, "teapot", errors.RequestError),
    (422, "query_timeout", errors.BudgetError),
    (429, "rate_limited", errors.RateLimitedError),
    (431, "headers_too_large", errors.LimitError),
    (500, "internal_error", errors.InternalError),
    (503, "object_recovering", errors.UnavailableError),
    (503, "object_overloaded", errors.OverloadedError),
    (503, "object_busy", errors.OverloadedError),
    (503, "object_corrupt", errors.CorruptError),
    (503, "outcome_unknown", errors.OutcomeUnknownError),
    (507, "quota_exceeded", errors.QuotaError),
]


def body(code: str, **more: object) -> bytes:
    return json.dumps({"error": "Why.", "code": code, "requestId": "r-1", **more}).encode()


@pytest.mark.parametrize(("status", "code", "error_class"), CASES)
def test_status_and_code_decide_the_class(
    status: int, code: str, error_class: type[errors.DosqlError]
) -> None:
    error = error_from_reply(status, {"retry-after": "7"}, body(code, retryable=True))
    assert type(error) is error_class
    assert (error.code, error.message, error.status) == (code, "Why.", status)
    assert (error.request_id, error.retryable, error.retry_after_s) == ("r-1", True, 7)


def test_an_error_of_sqlite_keeps_its_details() -> None:
    details = {"sqliteCode": "SQLITE_ERROR", "offset": 7, "index": 2}
    error = error_from_reply(400, {}, body("sql_error", **details))
    assert type(error) is errors.SqlError
    assert (error.sqlite_code, error.offset, error.index) == ("SQLITE_ERROR", 7, 2)


@pytest.mark.parametrize("page", [b"", b"<html>Bad gateway</html>", b"[]", b"null", b"\xff", b"{"])
@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        (404, errors.NotFoundError),
        (502, errors.UnavailableError),
        (504, errors.UnavailableError),
        (500, errors.InternalError),
        (302, errors.RequestError),
    ],
)
def test_a_body_that_is_not_ours_still_makes_an_error(
    page: bytes, status: int, error_class: type[errors.DosqlError]
) -> None:
    headers = {"x-request-id": "r-2", "retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}
    error = error_from_reply(status, headers, page)
    assert isinstance(error, error_class)
    assert (error.code, error.request_id) == (f"http_{status}", "r-2")
    assert error.retry_after_s is None


@pytest.mark.parametrize(
    ("status", "code", "retryable", "kind"),
    [
        (429, "rate_limited", True, "refused"),
        (503, "object_overloaded", True, "refused"),
        (503, "object_corrupt", False, "final"),
        (503, "outcome_unknown", False, "lost"),
        (500, "internal_error", False, "final"),
        (409, "constraint_unique", False, "final"),
    ],
)
def test_what_may_be_repeated(status: int, code: str, retryable: bool, kind: str) -> None:
    assert failure_from_reply(status, {}, body(code, retryable=retryable)).kind == kind


def test_a_gateway_without_an_answer_leaves_it_open() -> None:
    assert failure_from_reply(502, {}, b"Bad gateway").kind == "lost"
    assert failure_from_reply(500, {}, b"Oops").kind == "final"


@pytest.mark.parametrize(
    ("exception", "kind", "code"),
    [
        (httpx2.ConnectError("no"), "refused", "connection_failed"),
        (httpx2.ConnectTimeout("no"), "refused", "connection_failed"),
        (httpx2.PoolTimeout("no"), "refused", "connection_failed"),
        (httpx2.ReadTimeout("no"), "lost", "timeout"),
        (httpx2.WriteTimeout("no"), "lost", "timeout"),
        (httpx2.ReadError("no"), "lost", "connection_lost"),
        (httpx2.WriteError(""), "lost", "connection_lost"),
        (httpx2.RemoteProtocolError("no"), "lost", "connection_lost"),
        (httpx2.LocalProtocolError("no"), "final", "invalid_request"),
    ],
    ids=lambda case: type(case).__name__ if isinstance(case, Exception) else str(case),
)
def test_exceptions_of_the_transport(exception: Exception, kind: str, code: str) -> None:
    failure = failure_from_exception(exception, "http://127.0.0.1:1")
    assert (failure.kind, failure.error.code) == (kind, code)


@pytest.mark.parametrize("url", ["", "acme", "ftp://host", "http://", "127.0.0.1:8787"])
def test_a_wrong_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        AsyncClient(url)
    assert caught.value.code == "invalid_url"


@pytest.mark.parametrize("token", ["", "with space", "line\nbreak", "tökén"])
def test_a_wrong_token_is_refused_at_once(token: str) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        AsyncClient("http://127.0.0.1:1", token=token)
    assert caught.value.code == "invalid_token"


@pytest.mark.parametrize(
    "name", ["", "Acme", "a/b", "../x", "-a", "_a", "a" * 64, "admin", "v1", "a\r\nb", "é"]
)
def test_a_wrong_tenant_name_never_gets_into_a_header(name: str) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        AsyncClient("http://127.0.0.1:1").tenant(name)
    assert caught.value.code == "invalid_tenant_name"


async def test_a_server_that_is_not_dosql_is_recognised() -> None:
    """A page with status 200, from whatever else listens there."""
    page = httpx2.MockTransport(lambda request: httpx2.Response(200, text="<html>Hello</html>"))
    async with AsyncClient("http://127.0.0.1:1", transport=page) as client:
        with pytest.raises(errors.InternalError) as caught:
            await client.tenant("acme").query("SELECT 1")
    assert caught.value.code == "invalid_reply"
