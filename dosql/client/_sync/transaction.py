# Generated from dosql/client/_async by scripts/generate_sync.py; do not edit.
"""Transaction: statements between which the caller may think.

The server's side of it lives exactly as long as one streamed reply: whoever stops reading that
stream, by closing it or by dying, has the transaction rolled back at once, so that a lost
client never keeps others waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

import httpx2

from dosql.client import results
from dosql.client._sync.reads import Reads
from dosql.client._sync.transport import Transport
from dosql.client.calls import (
    Call,
    Reply,
    StatementType,
    decode,
    encode,
    idempotency_key_or_new,
    json_headers,
    sql_request,
)
from dosql.client.errors import failure_from_exception
from dosql.client.rows import RunResult
from dosql.errors import ConflictError, DosqlError, InternalError, UnavailableError
from dosql.wire.statements import TransactionOpened
from dosql.wire.values import Params


class Transaction(Reads):
    """An interactive transaction of one tenant: commits or rolls back exactly once.

    Made by `Tenant.transaction` and opened by ``with``, or by `open`. A statement that
    SQLite refuses leaves it open, so the caller may catch the error and go on. It is over when
    the server says so (``transaction_not_found``, ``transaction_aborted``).
    """

    def __init__(
        self,
        transport: Transport,
        headers: Mapping[str, str],
        note_reply: Callable[[Reply], None],
    ) -> None:
        self._transport = transport
        self._headers = headers
        self._note_reply = note_reply
        self._opened: TransactionOpened | None = None
        self._response: httpx2.Response | None = None
        self._chunks: Iterator[bytes] | None = None
        self._reply_lost = False

    @property
    def is_open(self) -> bool:
        """Neither committed, nor rolled back, nor known to be gone."""
        return self._opened is not None

    @property
    def idle_seconds(self) -> float:
        """How long the server waits for the next statement before it rolls back."""
        return self._require_open().idle_seconds

    @property
    def expires_at(self) -> str:
        """When the server rolls back in any case, RFC 3339."""
        return self._require_open().expires_at

    def open(self) -> None:
        """Begin; waits for its turn at the object.

        Raises:
            ConflictError: ``transaction_open``: it is open already.
        """
        if self._opened is not None:
            raise ConflictError("The transaction is open already.", code="transaction_open")
        headers = {
            **self._headers,
            "Accept": "application/x-ndjson",
            "Accept-Encoding": "identity",
        }
        self._reply_lost = False
        self._response = self._transport.stream(
            Call("POST", "/transactions", headers=headers), long_lived=True
        )
        try:
            self._opened = self._read_opened(self._response)
        finally:
            if self._opened is None:
                self._close()

    def _read_opened(self, response: httpx2.Response) -> TransactionOpened:
        chunks = self._chunks = response.iter_raw()
        line = b""
        try:
            while b"\n" not in line:
                chunk = next(chunks, b"")
                if not chunk:
                    break
                line += chunk
        except httpx2.HTTPError as exc:
            raise failure_from_exception(exc, self._transport.url).error from exc
        return decode(Reply(response.status_code, response.headers, line), TransactionOpened)

    def run(self, sql: str, params: Params | None = None) -> RunResult:
        """Run a statement that writes; others see it, and it is durable, after `commit`."""
        return results.run_result(self._send_statement("run", sql, params))

    def commit(self, *, idempotency_key: str | None = None) -> None:
        """Make it all durable.

        Raises:
            ConflictError: ``transaction_aborted``: it was rolled back, or had to be now,
                because the reply to one of its statements had been lost.
            NotFoundError: ``transaction_not_found``: the server had given it up.
            OutcomeUnknownError: the reply was lost.
        """
        opened = self._require_open()
        if self._reply_lost:
            self.rollback()
            raise ConflictError(
                "Rolled back: the reply to a statement of the transaction had been lost.",
                code="transaction_aborted",
            )
        key = idempotency_key_or_new(idempotency_key, self._transport.randomness)
        call = Call(
            "POST",
            f"/transactions/{opened.id}/commit",
            headers={**self._headers, "Idempotency-Key": key},
            writes=True,
        )
        try:
            self._note_reply(self._transport.send(call))
        finally:
            self._close()

    def rollback(self) -> None:
        """Undo it all; idempotent. Never fails: the server rolls back when the stream closes."""
        if self._opened is None:
            return
        call = Call(
            "DELETE", f"/transactions/{self._opened.id}", headers=self._headers, attempts_max=1
        )
        try:
            with suppress(DosqlError):
                self._transport.send(call)
        finally:
            self._close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None:
            self.rollback()
        elif self._opened is not None:
            self.commit()

    def _send_statement(
        self,
        statement_type: StatementType,
        sql: str,
        params: Params | None,
        *,
        arrays: bool = False,
    ) -> Reply:
        opened = self._require_open()
        call = Call(
            "POST",
            f"/transactions/{opened.id}/{statement_type}" + ("?rows=array" if arrays else ""),
            encode(sql_request(sql, params)),
            json_headers(self._headers),
            attempts_max=1,  # a statement that ran twice would be seen twice
        )
        try:
            reply = self._transport.send(call)
        except DosqlError as exc:
            self._after_failure(exc)
            raise
        except BaseException:
            self._reply_lost = True  # cancelled or interrupted under way
            raise
        self._note_reply(reply)
        return reply

    def _after_failure(self, error: DosqlError) -> None:
        if error.code in ("transaction_not_found", "transaction_aborted"):
            self._close()
        elif isinstance(error, (UnavailableError, InternalError)):
            self._reply_lost = True

    def _require_open(self) -> TransactionOpened:
        if self._opened is None:
            raise ConflictError("The transaction is not open.", code="transaction_closed")
        return self._opened

    def _close(self) -> None:
        self._opened = None
        chunks, self._chunks = self._chunks, None
        response, self._response = self._response, None
        if isinstance(chunks, Generator):  # not left to the garbage collector
            chunks.close()
        if response is not None:
            response.close()
