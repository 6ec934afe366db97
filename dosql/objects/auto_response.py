"""Auto-response: one text answered by the transport side, so that a ping wakes no object."""

from __future__ import annotations

from dosql.clock import iso_from_ms
from dosql.errors import InvalidRequestError, LimitError
from dosql.limits import AUTO_RESPONSE_BYTES_MAX

TIMESTAMP = "{timestamp}"


class WebSocketRequestResponsePair:
    """Whoever sends exactly ``request`` is answered ``response``.

    With ``template=True`` each ``{timestamp}`` in the response becomes the time of the answer,
    RFC 3339 in UTC with milliseconds; without it the response is sent as it stands.

    Raises:
        InvalidRequestError: ``invalid_auto_response``: a side is no text.
        LimitError: ``auto_response_too_large``: a side is longer than 2,048 bytes of UTF-8.
    """

    __slots__ = ("request", "response", "template")

    def __init__(self, request: str, response: str, *, template: bool = False) -> None:
        _check("request", request)
        _check("response", response)
        self.request = request
        self.response = response
        self.template = template and TIMESTAMP in response

    def answer(self, now_ms: int) -> str:
        """What is sent at that moment."""
        if self.template:
            return self.response.replace(TIMESTAMP, iso_from_ms(now_ms))
        return self.response

    def __repr__(self) -> str:
        return f"WebSocketRequestResponsePair({self.request!r}, {self.response!r})"


def _check(side: str, text: object) -> None:
    if not isinstance(text, str):
        raise InvalidRequestError(
            f"The {side} of an auto-response must be text, not {type(text).__name__}.",
            code="invalid_auto_response",
        )
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidRequestError(
            f"The {side} of an auto-response is not valid Unicode.", code="invalid_auto_response"
        ) from None
    if size > AUTO_RESPONSE_BYTES_MAX:
        raise LimitError(
            f"The {side} of an auto-response is {size:,} bytes long; "
            f"{AUTO_RESPONSE_BYTES_MAX:,} are allowed.",
            code="auto_response_too_large",
        )
