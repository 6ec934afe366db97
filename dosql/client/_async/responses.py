"""Replies of objects: short ones read at once, long ones and streams as the caller reads them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2

from dosql.client.errors import failure_from_exception
from dosql.client.responses import AsyncResponse, headers_of, is_short

_BODY_BYTES_READ_AT_ONCE = 1024 * 1024


async def read_response(response: httpx2.Response, url: str) -> AsyncResponse:
    """The reply as the object made it; its bytes are as sent, not decompressed.

    Raises:
        UnavailableError: ``connection_lost`` or ``timeout``: it broke off; later also from
            whatever draws a stream.
    """
    headers = headers_of(response)
    if response.is_stream_consumed:
        return AsyncResponse(response.content, response.status_code, headers)
    pieces = _pieces(response, url)
    if not is_short(response, _BODY_BYTES_READ_AT_ONCE):
        return AsyncResponse(pieces, response.status_code, headers)
    body = b"".join([piece async for piece in pieces])
    return AsyncResponse(body, response.status_code, headers)


async def _pieces(response: httpx2.Response, url: str) -> AsyncIterator[bytes]:
    try:
        async for piece in response.aiter_raw():
            yield piece
    except httpx2.HTTPError as exc:
        raise failure_from_exception(exc, url).error from exc
    finally:
        await response.aclose()
