# Generated from dosql/client/_async by scripts/generate_sync.py; do not edit.
"""AsyncSlots, and the stream of a tenant's changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote

from dosql.client._pause import sleep
from dosql.client._sync.transport import Transport
from dosql.client.calls import Call, decode, encode, json_headers
from dosql.client.changes import EVENTS, ChangeEvent, EventReader, changes_path
from dosql.client.reconnect import Reconnect, worth_another
from dosql.errors import DosqlError, UnavailableError
from dosql.wire.changes import AcknowledgeChanges, ChangeSlot, ChangeSlots, CreateChangeSlot

_SLOTS = "/changes/slots"


def follow_changes(
    transport: Transport,
    headers: Mapping[str, str],
    *,
    after: int | None,
    tables: Iterable[str] | None,
    operations: Iterable[str] | None,
    slot: str | None,
    follow: bool,
    reconnect: Reconnect | None,
) -> Iterator[ChangeEvent]:
    """See `Tenant.changes`."""
    tables = None if tables is None else list(tables)
    operations = None if operations is None else list(operations)
    attempt = 0
    while True:
        path = changes_path(after, tables, operations, slot, follow=follow)
        call = Call("GET", path, headers={**headers, **EVENTS}, attempts_max=1)
        reader = EventReader()
        error: DosqlError = UnavailableError("The stream has ended.", code="connection_lost")
        try:
            response = transport.stream(call, long_lived=True)
            try:
                for data in transport.chunks(response):
                    for event in reader.feed(data):
                        after, attempt = reader.cursor, 0
                        yield event
                    if reader.cursor is not None:
                        after, attempt = reader.cursor, 0
            finally:
                response.close()
            if not follow:
                return
        except DosqlError as failure:
            if not worth_another(failure):
                raise
            error = failure
        delay_s = None if reconnect is None else reconnect.delay_s(attempt, error.retry_after_s)
        if delay_s is None:
            raise error
        sleep(delay_s)
        attempt += 1


class Slots:
    """Named positions in a tenant's changes. What is behind one is kept, up to a limit."""

    def __init__(self, transport: Transport, headers: Mapping[str, str]) -> None:
        self._transport = transport
        self._headers = headers

    def create(self, name: str, *, after: int | None = None) -> ChangeSlot:
        """``after``: what is known already; None: all there is.

        Raises:
            ConflictError: ``slot_exists``.
            LimitError: ``too_many_slots``.
        """
        body = encode(CreateChangeSlot(name, after))
        call = Call(
            "POST", _SLOTS, body, json_headers(self._headers), writes=True, repeatable=False
        )
        return decode(self._transport.send(call), ChangeSlot)

    def list(self) -> list[ChangeSlot]:
        """All, by name."""
        reply = self._transport.send(Call("GET", _SLOTS, headers=self._headers))
        return decode(reply, ChangeSlots).slots

    def delete(self, name: str) -> None:
        """Raises NotFoundError (``slot_not_found``)."""
        call = Call("DELETE", _path(name), headers=self._headers, writes=True, repeatable=False)
        self._transport.send(call)

    def ack(self, name: str, seq: int) -> ChangeSlot:
        """No change up to ``seq`` is needed again. A lower number than before is ignored.

        Raises:
            NotFoundError: ``slot_not_found``.
            InvalidRequestError: ``invalid_sequence``: there is no such change yet.
        """
        body = encode(AcknowledgeChanges(seq))
        call = Call("POST", f"{_path(name)}/ack", body, json_headers(self._headers), writes=True)
        return decode(self._transport.send(call), ChangeSlot)


def _path(name: str) -> str:
    return f"{_SLOTS}/{quote(name, safe='')}"
