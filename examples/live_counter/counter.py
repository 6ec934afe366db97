"""Counter: a durable object that many watch and anybody changes.

- Every operation is one row of its history and one event; the row is on disk before the event
  leaves, and events come in the order of ``metadata.operationCount``.
- Sockets hibernate with the object. Whose they are stands in their attachment; pings are answered
  without waking it.
- A client that was away connects with ``?after=<last operationCount>`` and gets what it missed; if
  that is no longer kept, one ``{"type": "snapshot", "metadata": ...}`` instead.
- An operation with an idempotency key happens once, however often it is sent.
- A counter that nobody changed is not stored.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

import msgspec

from dosql import (
    DosqlError,
    DurableObject,
    InvalidRequestError,
    NotFoundError,
    ObjectState,
    Request,
    Response,
    WebSocket,
    WebSocketPair,
    WebSocketRequestResponsePair,
)
from examples.live_counter.events import (
    HISTORY_MAX,
    PING,
    PONG,
    CounterMetadata,
    CounterUpdateEvent,
    Operation,
    WebSocketSessionData,
    check_value,
    frame,
)

SCHEMA = """
    CREATE TABLE IF NOT EXISTS counter (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        value INTEGER NOT NULL,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL,
        operation_count INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS operations (
        sequence INTEGER PRIMARY KEY,
        type TEXT NOT NULL,
        value INTEGER NOT NULL,
        previous_value INTEGER NOT NULL,
        at TEXT NOT NULL,
        idempotency_key TEXT UNIQUE
    ) STRICT;
"""
NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"
HISTORY_END = 2**63 - 1
COLUMNS = "sequence, type, value, previous_value, at"


class Counter(DurableObject):
    """One counter; its name is the object's name."""

    def __init__(self, ctx: ObjectState, env: Any) -> None:
        super().__init__(ctx, env)
        ctx.set_websocket_auto_response(WebSocketRequestResponsePair(PING, PONG, template=True))
        self.sessions: dict[WebSocket, WebSocketSessionData] = {}
        for ws in ctx.get_websockets():  # those that were open while the object was not in memory
            self.sessions[ws] = msgspec.convert(ws.deserialize_attachment(), WebSocketSessionData)

    # --- operations: RPC ----------------------------------------------------------------------

    def increment(self, amount: int = 1, key: str | None = None) -> CounterUpdateEvent:
        """Add. ``key``: an idempotency key."""
        return self._apply("increment", self.get_value() + amount, key)

    def decrement(self, amount: int = 1, key: str | None = None) -> CounterUpdateEvent:
        """Subtract."""
        return self._apply("decrement", self.get_value() - amount, key)

    def set_value(self, value: int, key: str | None = None) -> CounterUpdateEvent:
        """Set."""
        return self._apply("setValue", value, key)

    def reset(self, key: str | None = None) -> CounterUpdateEvent:
        """Back to 0."""
        return self._apply("reset", 0, key)

    def get_value(self) -> int:
        """The value; 0 if nothing was ever done."""
        row = self._row()
        return 0 if row is None else row["value"]

    def get_metadata(self) -> CounterMetadata:
        """Raises NotFoundError: nothing was ever done with this counter."""
        row = self._row()
        if row is None:
            raise NotFoundError("There is no such counter yet.")
        return self._metadata(row)

    def get_history(self, limit: int = 50, before: int | None = None) -> list[dict[str, Any]]:
        """The newest operations, or those before a sequence; newest first."""
        if self._row() is None:
            return []
        rows = self.ctx.storage.sql.exec(
            f"SELECT {COLUMNS} FROM operations WHERE sequence < ? ORDER BY sequence DESC LIMIT ?",
            *(before or HISTORY_END, max(1, min(limit, HISTORY_MAX))),
        )
        return [
            {
                "sequence": row["sequence"],
                "type": row["type"],
                "value": row["value"],
                "previousValue": row["previous_value"],
                "timestamp": row["at"],
            }
            for row in rows
        ]

    def _apply(self, operation: Operation, value: int, key: str | None) -> CounterUpdateEvent:
        """Store the operation and tell everybody; all of it is one step of the object."""
        sql = self.ctx.storage.sql
        if key is not None and (done := self._done_with(key)) is not None:
            return done
        check_value(value)
        sql.exec(SCHEMA)
        previous = self.get_value()
        row = sql.exec(
            f"INSERT INTO counter VALUES (1, ?, {NOW}, {NOW}, 1) ON CONFLICT(id) DO UPDATE SET "
            "value = excluded.value, updated_at = excluded.updated_at, "
            "operation_count = operation_count + 1 RETURNING *",
            value,
        ).one()
        sequence = row["operation_count"]
        sql.exec(
            "INSERT INTO operations VALUES (?, ?, ?, ?, ?, ?)",
            *(sequence, operation, value, previous, row["updated_at"], key),
        )
        sql.exec("DELETE FROM operations WHERE sequence <= ?", sequence - HISTORY_MAX)
        event = CounterUpdateEvent(
            operation, value, previous, self._metadata(row), row["updated_at"]
        )
        self.broadcast_update(event)
        return event

    def _done_with(self, key: str) -> CounterUpdateEvent | None:
        """The event of an operation that came with this key before."""
        counter = self._row()
        if counter is None:
            return None
        for row in self.ctx.storage.sql.exec(
            f"SELECT {COLUMNS} FROM operations WHERE idempotency_key = ?", key
        ):
            return self._event(counter, row)
        return None

    # --- sockets ------------------------------------------------------------------------------

    async def fetch(self, request: Request) -> Response:
        """Subscribe."""
        if not request.is_websocket_upgrade:
            headers = {"Upgrade": "websocket"}
            return Response("Expected Upgrade: websocket", status=426, headers=headers)
        after = request.query.get("after")
        if after is not None and not (after.isascii() and after.isdigit() and len(after) < 16):
            raise InvalidRequestError("after must be the last operationCount that was seen.")
        client, server = WebSocketPair()
        self.ctx.accept_websocket(server)
        session = WebSocketSessionData(str(uuid.uuid4()), self._now())
        server.serialize_attachment(msgspec.to_builtins(session))
        self.sessions[server] = session
        if after is not None:
            self._catch_up(server, int(after))
        return Response(None, status=101, web_socket=client)

    async def websocket_message(self, ws: WebSocket, message: str | bytes) -> None:
        """Pings in other spellings than the automatic one's; everything else is refused."""
        try:
            data = json.loads(message) if isinstance(message, str) else None
        except (ValueError, RecursionError):
            data = None
        if isinstance(data, dict) and data.get("type") == "ping":
            ws.send(frame({"type": "pong", "timestamp": self._now()}))
        else:
            ws.send(frame({"type": "error", "message": 'The only message is {"type": "ping"}.'}))

    async def websocket_close(self, ws: WebSocket, code: int, reason: str, was_clean: bool) -> None:
        self.sessions.pop(ws, None)

    async def websocket_error(self, ws: WebSocket, error: Exception) -> None:
        self.sessions.pop(ws, None)

    def broadcast_update(self, event: CounterUpdateEvent) -> None:
        """Tell everybody; a session that takes no more is removed."""
        text = frame(event)
        for ws in list(self.sessions):
            try:
                ws.send(text)
            except DosqlError:
                del self.sessions[ws]

    def _catch_up(self, ws: WebSocket, after: int) -> None:
        """Send the operations behind ``after``, or where the counter stands if some are gone."""
        counter = self._row()
        if counter is None or counter["operation_count"] <= after:
            return
        rows = self.ctx.storage.sql.exec(
            f"SELECT {COLUMNS} FROM operations WHERE sequence > ? ORDER BY sequence", after
        ).to_list()
        if not rows or rows[0]["sequence"] != after + 1:
            ws.send(frame({"type": "snapshot", "metadata": self._metadata(counter)}))
            return
        for row in rows:
            ws.send(frame(self._event(counter, row)))

    # --- rows ---------------------------------------------------------------------------------

    def _row(self) -> dict[str, Any] | None:
        sql = self.ctx.storage.sql
        if not sql.exec("SELECT 1 FROM sqlite_schema WHERE name = 'counter'").to_list():
            return None
        return next(sql.exec("SELECT * FROM counter"), None)

    def _metadata(self, row: dict[str, Any]) -> CounterMetadata:
        return CounterMetadata(
            row["id"],
            self.ctx.id.name or "",
            row["value"],
            row["created_at"],
            row["updated_at"],
            row["operation_count"],
        )

    def _event(self, counter: dict[str, Any], row: dict[str, Any]) -> CounterUpdateEvent:
        """An operation of the past, with the counter as it was right after it."""
        then = {
            **counter,
            "value": row["value"],
            "updated_at": row["at"],
            "operation_count": row["sequence"],
        }
        return CounterUpdateEvent(
            row["type"], row["value"], row["previous_value"], self._metadata(then), row["at"]
        )

    def _now(self) -> str:
        text: str = self.ctx.storage.sql.exec(f"SELECT {NOW} AS now").one()["now"]
        return text
