"""AlarmIndex: when which object wants to be woken. A view of the catalog, over all namespaces.

A time in it is never later than the object's earliest alarm, so that no alarm is missed; it may
be earlier, after a crash or a rollback, and whoever wakes the object then corrects it.
"""

from __future__ import annotations

from typing import NamedTuple

from dosql.host.catalog import CatalogTables
from dosql.log.records import ObjectKey
from dosql.wire.values import SqlValue

_DUE = "SELECT alarm_at_ms, namespace, id, incarnation, name FROM objects"


class DueAlarm(NamedTuple):
    """One object that has an alarm, or several; ``at_ms`` is not later than the earliest."""

    at_ms: int
    namespace: str
    key: ObjectKey
    name: str | None


class AlarmIndex(CatalogTables):
    """When which object wants to be woken, over all namespaces."""

    def earliest(self, after_ms: int = -1) -> int | None:
        """The earliest time in the index that is later than ``after_ms``; None: there is none."""
        rows = self._read(
            "SELECT alarm_at_ms FROM objects WHERE alarm_at_ms > ? ORDER BY alarm_at_ms LIMIT 1",
            (after_ms,),
        )
        if not rows:
            return None
        at_ms = rows[0][0]
        assert isinstance(at_ms, int)
        return at_ms

    def due(self, now_ms: int, limit: int, after: DueAlarm | None = None) -> list[DueAlarm]:
        """Up to ``limit`` objects whose time has come, the longest overdue first; ``after`` is
        the last one of the page before."""
        where, order = "alarm_at_ms <= ?", "ORDER BY alarm_at_ms, namespace, id LIMIT ?"
        if after is None:
            rows = self._read(f"{_DUE} WHERE {where} {order}", (now_ms, limit))
        else:
            rows = self._read(
                f"{_DUE} WHERE {where} AND (alarm_at_ms, namespace, id) > (?, ?, ?) {order}",
                (now_ms, after.at_ms, after.namespace, after.key.id, limit),
            )
        return [_due(row) for row in rows]


def _due(row: tuple[SqlValue, ...]) -> DueAlarm:
    at_ms, namespace, id, incarnation, name = row
    assert isinstance(at_ms, int) and isinstance(namespace, str)
    assert isinstance(id, bytes) and isinstance(incarnation, int)
    assert name is None or isinstance(name, str)
    return DueAlarm(at_ms, namespace, ObjectKey(id, incarnation), name)
