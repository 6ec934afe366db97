"""What a subscriber to changes is given, and how it comes over the wire. Pure values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlencode

import msgspec

from dosql.client.rows import Row
from dosql.errors import InternalError
from dosql.wire.values import decode_value, encode_rows


@dataclass(frozen=True, slots=True)
class Change:
    """One row as it was and as it is."""

    seq: int
    """Consecutive within a tenant, in the order of the commits."""
    type: Literal["insert", "update", "delete"]
    table: str
    pk: Row
    """The primary key; ``{"rowid": n}`` in a table without one."""
    old: Row | None
    """The whole row before; None for an insert."""
    new: Row | None
    """The whole row after; None for a delete."""
    txid: int
    """The batch of its commit: the same for all changes of a transaction."""
    timestamp: str
    """Of its commit, RFC 3339 in UTC."""


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """A statement changed the schema; the changes behind it have the new columns."""

    seq: int
    table: str
    """The table, or the view, that it is about."""
    sql: str
    txid: int
    timestamp: str


@dataclass(frozen=True, slots=True)
class Reset:
    """Changes are missing before this point: copy the tables again, then go on."""

    seq: int
    """What follows is behind this number."""
    bookmark: str | None
    """A copy as of this moment, or any later one, will do."""
    reason: str | None = None


ChangeEvent = Change | SchemaChange | Reset

EVENTS = {"Accept": "text/event-stream"}


def changes_path(
    after: int | None,
    tables: Iterable[str] | None,
    operations: Iterable[str] | None,
    slot: str | None,
    *,
    follow: bool,
) -> str:
    """Path and query of the request."""
    query: dict[str, str] = {}
    if after is not None:
        query["after"] = str(after)
    if tables is not None:
        query["tables"] = ",".join(tables)
    if operations is not None:
        query["operations"] = ",".join(operations)
    if slot is not None:
        query["slot"] = slot
    if not follow:
        query["follow"] = "false"
    return f"/changes?{urlencode(query)}" if query else "/changes"


class EventReader:
    """Cuts a stream of server-sent events into its events."""

    def __init__(self) -> None:
        self.cursor: int | None = None
        """Id of the last event that was drawn."""
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[ChangeEvent]:
        """The events that are complete now; `cursor` moves with them.

        Raises:
            InternalError: ``invalid_reply``.
        """
        *blocks, self._buffer = (self._buffer + data).split(b"\n\n")
        for block in blocks:
            fields = dict(_field(line) for line in block.split(b"\n"))
            event = event_from_json(fields[b"data"]) if b"data" in fields else None
            if b"id" in fields:
                self.cursor = int(fields[b"id"])
            if event is not None:
                yield event


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name, value.removeprefix(b" ")


def event_from_json(data: bytes) -> ChangeEvent:
    """Raises InternalError: ``invalid_reply``."""
    try:
        body: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
        kind = body.pop("type")
        if kind == "reset":
            return Reset(body["seq"], body.get("bookmark"), body.get("reason"))
        if kind == "schema":
            return SchemaChange(**body)
        for name in ("pk", "old", "new"):
            body[name] = _row(body[name])
        return Change(type=kind, **body)
    except (msgspec.DecodeError, KeyError, TypeError, ValueError) as exc:
        raise InternalError(
            "The server's reply is not one of dosql; is the URL right?", code="invalid_reply"
        ) from exc


def event_to_json(event: ChangeEvent) -> bytes:
    """An event as it came over the wire."""
    body = {name: getattr(event, name) for name in event.__dataclass_fields__}
    if isinstance(event, Change):
        for name in ("pk", "old", "new"):
            if body[name] is not None:
                (values,) = encode_rows([tuple(body[name].values())])
                body[name] = dict(zip(body[name], values, strict=True))
    else:
        kind = "schema" if isinstance(event, SchemaChange) else "reset"
        body = {"seq": event.seq, "type": kind, **body}
    return msgspec.json.encode(
        {name: value for name, value in body.items() if _is_told(name, value)}
    )


def _is_told(name: str, value: object) -> bool:
    return value is not None or name in ("old", "new")


def _row(row: Mapping[str, Any] | None) -> Row | None:
    return None if row is None else {name: decode_value(value) for name, value in row.items()}
