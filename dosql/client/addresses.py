"""Objects as parts of a URL, and the calls that go there.

Pure values: nothing here touches the network.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode, urlsplit

from dosql.client.calls import Call, json_headers
from dosql.errors import InvalidRequestError
from dosql.fetch import Request
from dosql.ids import ObjectId

_NAMESPACE = re.compile(r"[a-z][a-z0-9-]{0,62}", re.ASCII)
_REPEATABLE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""What HTTP calls safe: sent again if its reply is lost."""
_CONNECTION_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Of one connection, not of the message: a forwarded request leaves them behind."""


def check_namespace(name: str) -> str:
    """The name, if it can be one; so nothing else ever gets into a path.

    Raises:
        InvalidRequestError: ``invalid_namespace``.
    """
    if not _NAMESPACE.fullmatch(name):
        raise InvalidRequestError(
            f"{name!r} is not the name of a namespace: 1 to 63 of a-z, 0-9 and -, "
            "beginning with a letter.",
            code="invalid_namespace",
        )
    return name


def check_object_name(name: str) -> str:
    """The name, if it can be in a URL; the server may refuse it for other reasons.

    Raises:
        InvalidRequestError: ``invalid_object_name``.
    """
    try:
        if name.encode():
            return name
    except UnicodeEncodeError:
        pass
    raise InvalidRequestError(
        "An object's name is text of at least one character, without lone surrogates.",
        code="invalid_object_name",
    )


def address(namespace: str, id: ObjectId) -> str:
    """``namespace/name``, or ``namespace/@id`` for an object without a name."""
    if id.name is None:
        return f"{namespace}/@{id}"
    return f"{namespace}/{_without_steps(quote(id.name, safe=''))}"


def rpc_call(address: str, method: str, body: bytes, idempotency_key: str) -> Call:
    """One RPC; however often it is sent, it runs once."""
    headers = json_headers({"Idempotency-Key": idempotency_key})
    return Call("POST", f"/rpc/{address}/{quote(method, safe='')}", body, headers, writes=True)


def fetch_call(address: str, request: Request) -> Call:
    """One request to the object's ``fetch``: path, query, method, headers and body of it.

    Raises:
        InvalidRequestError: ``invalid_header``: the client's own token goes in ``Authorization``.
    """
    if "authorization" in request.headers:
        raise InvalidRequestError(
            "Authorization carries the client's own token; give the object a header of another "
            "name.",
            code="invalid_header",
        )
    url = urlsplit(request.url)
    path = f"/objects/{address}{_without_steps(url.path)}"
    if url.query:
        path += f"?{url.query}"
    # As the object wants to send it: nothing asked for that the caller did not ask for.
    headers = {"accept": "*/*", "accept-encoding": "identity"}
    for name in request.headers:
        if name not in _CONNECTION_HEADERS:
            headers[name] = request.headers[name]
    return Call(
        request.method,
        path,
        _body_of(request),
        headers,
        writes=request.method not in _REPEATABLE_METHODS,
        repeatable=request.method in _REPEATABLE_METHODS,
        any_status=True,
    )


def list_call(namespace: str, prefix: str, limit: int, cursor: str | None) -> Call:
    """One page of the objects of a namespace."""
    query = {"prefix": prefix, "limit": str(limit)}
    if cursor is not None:
        query["cursor"] = cursor
    return Call("GET", f"/admin/objects/{namespace}?{urlencode(query)}")


def _without_steps(path: str) -> str:
    """A path in which no segment is ``.`` or ``..``: whoever normalizes the URL would follow
    them, out of the object and into the routes of the administrator."""
    return "/".join(
        segment.replace(".", "%2E") if segment in (".", "..") else segment
        for segment in path.split("/")
    )


def _body_of(request: Request) -> bytes | None:
    """A request's body is complete from the start: reading it never suspends."""
    reading = request.bytes()
    try:
        reading.send(None)
    except StopIteration as done:
        body: bytes = done.value
        return body or None
    raise AssertionError("reading a request's body suspended")
