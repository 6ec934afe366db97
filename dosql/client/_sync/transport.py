# Generated from dosql/client/_async by scripts/generate_sync.py; do not edit.
"""Sends calls, and repeats those that may be repeated, within one time limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx2

from dosql import __version__
from dosql.client._pause import sleep
from dosql.client.backoff import Backoff
from dosql.client.calls import Call, Reply, check_header_token
from dosql.client.errors import (
    Failure,
    failure_from_exception,
    failure_from_reply,
    is_error,
    may_be_error,
    outcome_unknown,
)
from dosql.clock import Clock, Randomness, SystemClock, SystemRandomness
from dosql.errors import DosqlError, InvalidRequestError

_TIMEOUT_S_MIN = 0.001
"""Of the last attempt, when the time limit is all but over."""


class Transport:
    """One server, one token, two connection pools.

    Interactive transactions hold a connection each for as long as they live; they have a pool
    of their own, so that however many there are, their statements still find a connection.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        timeout_s: float,
        retries: int,
        http_transport: httpx2.BaseTransport | None,
        clock: Clock | None = None,
        randomness: Randomness | None = None,
    ) -> None:
        self.url = _check_url(url)
        self.timeout_s = timeout_s
        self.clock: Clock = clock or SystemClock()
        self.randomness: Randomness = randomness or SystemRandomness()
        self._backoff = Backoff(retries)
        self._headers = {"User-Agent": f"dosql-python/{__version__}", "Accept": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {check_header_token(token)}"
        self._http_transport = http_transport
        self._calls = self._pool()
        self._streams: httpx2.Client | None = None

    def _pool(self) -> httpx2.Client:
        # Loading the certificate store takes 150 ms: only where TLS is spoken. Redirects are
        # never followed, so a plain URL stays plain and the token stays with its server.
        return httpx2.Client(
            headers=self._headers,
            transport=self._http_transport,
            verify=self.url.startswith("https:"),
            follow_redirects=False,
        )

    def close(self) -> None:
        """Close all connections; idempotent."""
        self._calls.close()
        if self._streams is not None:
            self._streams.close()

    def send(self, call: Call) -> Reply:
        """The successful reply to ``call``.

        Raises:
            DosqlError: the server's own error, or ConnectionFailedError, or UnavailableError
                (``timeout``, ``connection_lost``) for a reply that never came.
            OutcomeUnknownError: the same for a call that writes.
        """
        response = self._repeat(call, self._calls, None, stream=False)
        return Reply(response.status_code, response.headers, response.content)

    def stream(
        self,
        call: Call,
        *,
        content: Callable[[], Iterator[bytes]] | None = None,
        long_lived: bool = False,
    ) -> httpx2.Response:
        """The same, with the reply's body still to be read; the caller closes it.

        ``content`` makes the pieces of the request's body, anew for each attempt. The time
        limit is for each piece, not for the whole. ``long_lived`` takes a connection from the
        pool of the transactions.
        """
        if long_lived and self._streams is None:
            self._streams = self._pool()
        pool = self._streams if long_lived and self._streams is not None else self._calls
        return self._repeat(call, pool, content, stream=True)

    def handshake(self, call: Call) -> tuple[str, dict[str, str]]:
        """URL and headers of ``call`` as a request for a WebSocket."""
        return f"ws{self.url.removeprefix('http')}{call.path}", {**self._headers, **call.headers}

    def chunks(self, response: httpx2.Response) -> Iterator[bytes]:
        """The body of a streamed reply. Raises UnavailableError if it breaks off."""
        try:
            yield from response.iter_bytes()
        except httpx2.HTTPError as exc:
            raise failure_from_exception(exc, self.url).error from exc

    def _repeat(
        self,
        call: Call,
        pool: httpx2.Client,
        content: Callable[[], Iterator[bytes]] | None,
        *,
        stream: bool,
    ) -> httpx2.Response:
        deadline = self.clock.monotonic() + max(self.timeout_s, call.timeout_s_min)
        attempt = 0
        lost = False
        while True:
            request = pool.build_request(
                call.method,
                self.url + call.path,
                content=call.content if content is None else content(),
                headers=call.headers,
                timeout=self._timeout(deadline),
            )
            outcome = self._attempt(pool, request, call, stream=stream)
            if isinstance(outcome, httpx2.Response):
                return outcome
            lost = lost or outcome.kind == "lost"
            delay_s = self._delay_s(call, outcome, attempt, deadline)
            if delay_s is None:
                raise _final_error(call, outcome, lost=lost)
            sleep(delay_s)
            attempt += 1

    def _timeout(self, deadline: float) -> httpx2.Timeout:
        left_s = max(deadline - self.clock.monotonic(), _TIMEOUT_S_MIN)
        return httpx2.Timeout(left_s, connect=min(left_s, self.timeout_s))

    def _attempt(
        self, pool: httpx2.Client, request: httpx2.Request, call: Call, *, stream: bool
    ) -> httpx2.Response | Failure:
        try:
            response = pool.send(request, stream=stream)
            if response.is_success or (call.any_status and not may_be_error(response)):
                return response
            body = response.read()
            if call.any_status and not is_error(response, body):
                return response
            response.close()
        except (httpx2.HTTPError, httpx2.StreamError) as exc:
            return failure_from_exception(exc, self.url)
        return failure_from_reply(response.status_code, response.headers, body)

    def _delay_s(self, call: Call, failure: Failure, attempt: int, deadline: float) -> float | None:
        if failure.kind == "final" or (failure.kind == "lost" and not call.repeatable):
            return None
        if call.attempts_max is not None and attempt + 1 >= call.attempts_max:
            return None
        remaining_s = deadline - self.clock.monotonic()
        return self._backoff.delay_s(attempt, failure.error.retry_after_s, remaining_s)


def _final_error(call: Call, failure: Failure, *, lost: bool) -> DosqlError:
    if call.writes and lost and failure.kind != "final":
        return outcome_unknown(failure.error, call.idempotency_key)
    return failure.error


def _check_url(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError) as exc:
        raise InvalidRequestError(f"Not a URL: {exc}", code="invalid_url") from exc
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidRequestError(
            f"{url!r} is not the URL of a server, such as http://127.0.0.1:8787.",
            code="invalid_url",
        )
    return str(parsed).rstrip("/")
