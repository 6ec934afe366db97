"""Changes as JSON: one object each, the same for pages, server-sent events and WebSockets."""

from __future__ import annotations

from typing import Any

import msgspec

from dosql.clock import iso_from_ms
from dosql.host.changes import ChangePage
from dosql.sqlite.change_log import Change, Op
from dosql.wire.values import SqlValue, encode_rows
from server.change_requests import ChangeRequest

encode = msgspec.json.Encoder().encode


def bodies(page: ChangePage, request: ChangeRequest) -> list[dict[str, Any]]:
    """What of a page the subscriber asked for, in order."""
    if page.reset:
        return [{"seq": page.cursor, "type": "reset", "bookmark": str(page.bookmark)}]
    return [
        _body(change, request.int_as_text) for change in page.changes if _is_wanted(change, request)
    ]


def event_of(body: dict[str, Any]) -> str:
    """The name of the server-sent event."""
    kind = body["type"]
    return kind if kind in ("schema", "reset") else "change"


def _is_wanted(change: Change, request: ChangeRequest) -> bool:
    if change.op is Op.RESET:
        return True
    if request.tables is not None and change.table.lower() not in request.tables:
        return False
    return request.operations is None or change.op.name.lower() in request.operations


def _body(change: Change, int_as_text: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"seq": change.seq, "type": change.op.name.lower()}
    if change.op is Op.RESET:
        body["reason"] = change.text
    elif change.op is Op.SCHEMA:
        body |= {"table": change.table, "sql": change.text}
    else:
        columns = change.columns
        pk = change.pk or {}
        body |= {
            "table": change.table,
            "pk": _row(tuple(pk), list(pk.values()), int_as_text),
            "old": _row(columns, change.old, int_as_text),
            "new": _row(columns, change.new, int_as_text),
        }
    body["txid"] = change.txid
    body["timestamp"] = iso_from_ms(change.at_ms)
    return body


def _row(
    columns: tuple[str, ...], values: list[SqlValue] | None, int_as_text: bool
) -> dict[str, Any] | None:
    if values is None:
        return None
    (encoded,) = encode_rows([tuple(values)], int_as_text=int_as_text)
    return dict(zip(columns, encoded, strict=True))
