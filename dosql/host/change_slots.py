"""Slots: named positions in the changes of a database, kept in the database itself.

A slot holds back the forgetting of changes that its consumer has not acknowledged, up to a limit.
"""

from __future__ import annotations

import re

from dosql.clock import iso_from_ms
from dosql.errors import ConflictError, InvalidRequestError, LimitError, NotFoundError
from dosql.limits import CHANGE_SLOT_NAME_PATTERN, CHANGE_SLOTS_MAX
from dosql.sqlite.change_log import ChangeLog
from dosql.sqlite.database import Database, Row
from dosql.wire.changes import ChangeSlot, ChangeSlots

_NAME = re.compile(CHANGE_SLOT_NAME_PATTERN, re.ASCII)
_SELECT = "SELECT name, acked, created_at_ms, acked_at_ms FROM _dosql_changes_slots"


def list_slots(db: Database, log: ChangeLog) -> ChangeSlots:
    """All slots by name."""
    return ChangeSlots(
        [_slot(row, log) for row in db.internal_query(f"{_SELECT} ORDER BY name")], log.last
    )


def get_slot(db: Database, log: ChangeLog, name: str) -> ChangeSlot:
    """Raises NotFoundError: ``slot_not_found``."""
    rows = db.internal_query(f"{_SELECT} WHERE name = ?", (name,))
    if not rows:
        raise NotFoundError("There is no slot of this name.", code="slot_not_found")
    return _slot(rows[0], log)


def create_slot(
    db: Database, log: ChangeLog, name: str, after: int | None, now_ms: int
) -> ChangeSlot:
    """``after``: the number up to which the consumer needs nothing; None: the newest.

    Raises:
        InvalidRequestError: ``invalid_slot_name``; ``invalid_sequence``: there is no such change.
        ConflictError: ``slot_exists``.
        LimitError: ``too_many_slots``.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(
            "A slot's name has 1 to 63 of a-z, 0-9, _ and -, and does not start with _ or -.",
            code="invalid_slot_name",
        )
    names = {row[0] for row in db.internal_query("SELECT name FROM _dosql_changes_slots")}
    if name in names:
        raise ConflictError("There is a slot of this name.", code="slot_exists")
    if len(names) >= CHANGE_SLOTS_MAX:
        raise LimitError(f"A database has at most {CHANGE_SLOTS_MAX} slots.", code="too_many_slots")
    acked = log.last if after is None else _checked(after, log)
    db.internal_run(
        "INSERT INTO _dosql_changes_slots VALUES (?, ?, ?, NULL)", (name, acked, now_ms)
    )
    log.reload()
    return get_slot(db, log, name)


def delete_slot(db: Database, log: ChangeLog, name: str) -> None:
    """Raises NotFoundError: ``slot_not_found``."""
    if not db.internal_run("DELETE FROM _dosql_changes_slots WHERE name = ?", (name,)):
        raise NotFoundError("There is no slot of this name.", code="slot_not_found")
    log.reload()


def acknowledge(db: Database, log: ChangeLog, name: str, seq: int, now_ms: int) -> ChangeSlot:
    """The consumer needs no change up to ``seq`` again. A lower number than before is ignored.

    Raises:
        NotFoundError: ``slot_not_found``.
        InvalidRequestError: ``invalid_sequence``: there is no such change yet.
    """
    slot = get_slot(db, log, name)
    if _checked(seq, log) > slot.acked or slot.acked > log.last:
        db.internal_run(
            "UPDATE _dosql_changes_slots SET acked = ?, acked_at_ms = ? WHERE name = ?",
            (seq, now_ms, name),
        )
        log.reload()
        slot = get_slot(db, log, name)
    return slot


def _checked(seq: int, log: ChangeLog) -> int:
    if not 0 <= seq <= log.last:
        raise InvalidRequestError(
            f"There is no change {seq}; the newest is {log.last}.", code="invalid_sequence"
        )
    return seq


def _slot(row: Row, log: ChangeLog) -> ChangeSlot:
    name, acked, created_at_ms, acked_at_ms = row
    assert isinstance(acked, int) and isinstance(created_at_ms, int)
    return ChangeSlot(
        str(name),
        acked,
        max(0, log.last - acked),
        acked < log.floor or acked > log.last,
        iso_from_ms(created_at_ms),
        iso_from_ms(acked_at_ms) if isinstance(acked_at_ms, int) else None,
    )
