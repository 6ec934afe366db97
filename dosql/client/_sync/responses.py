# Generated from dosql/client/_async by scripts/generate_sync.py; do not edit.
"""Replies of objects: short ones read at once, long ones and streams as the caller reads them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2

from dosql.client.errors import failure_from_exception
from dosql.client.responses import SyncResponse, headers_of, is_short

_BODY_BYTES_READ_AT_ONCE = 1024 * 1024


def read_response(response: httpx2.Response, url: str) -> SyncResponse:
    """The reply as the object made it; its bytes are as sent, not decompressed.

    Raises:
        UnavailableError: ``connection_lost`` or ``timeout``: it broke off; later also from
            whatever draws a stream.
    """
    headers = headers_of(response)
    if response.is_stream_consumed:
        return SyncResponse(response.content, response.status_code, headers)
    pieces = _pieces(response, url)
    if not is_short(response, _BODY_BYTES_READ_AT_ONCE):
        return SyncResponse(pieces, response.status_code, headers)
    body = b"".join([piece for piece in pieces])
    return SyncResponse(body, response.status_code, headers)


def _pieces(response: httpx2.Response, url: str) -> Iterator[bytes]:
    try:
        yield from response.iter_raw()
    except httpx2.HTTPError as exc:
        raise failure_from_exception(exc, url).error from exc
    finally:
        response.close()
