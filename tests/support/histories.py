"""What each tenant held over time, and what it may hold after a crash."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dosql.clock import SystemRandomness
from dosql.host.catalog import CATALOG_KEY
from dosql.host.storage import recover
from dosql.log.node_log import NodeLog
from dosql.log.position import read_position
from dosql.log.records import ObjectKey
from dosql.log.redo import damaged_path, database_path, remove_wal
from tests.support.recording import LooseDisk

State = tuple[tuple[int, str, int], ...] | None
"""The rows of ``items`` as (id, value, crc of data); None: there is no such tenant."""

CREATE = "CREATE TABLE items(id INTEGER PRIMARY KEY, value TEXT UNIQUE, data BLOB)"
NO_TABLE: State = ()
"""A tenant without the table counts as an empty one: one statement lies between."""


def row(id: int, value: str, data: bytes) -> tuple[int, str, int]:
    """A row as a state shows it."""
    return (id, value, zlib.crc32(data))


@dataclass
class _Step:
    state: State
    attempted: int
    acknowledged: int | None = None
    refused: int | None = None


class History:
    """The states of one tenant, written by one caller at a time. Positions are the recorder's."""

    def __init__(self, position: Callable[[], int]) -> None:
        self._position = position
        self._steps = [_Step(None, -1, -1)]

    @property
    def state(self) -> State:
        """After the newest attempt that was not refused."""
        return next(each.state for each in reversed(self._steps) if each.refused is None)

    @property
    def now(self) -> int:
        """The position of the moment."""
        return self._position()

    def attempt(self, state: State) -> None:
        """A call that leads to ``state`` begins."""
        self._steps.append(_Step(state, self._position()))

    def acknowledge(self) -> None:
        """It was answered: from now on ``state`` is what there is."""
        self._steps[-1].acknowledged = self._position()

    def refuse(self) -> None:
        """It was answered that nothing was applied: from now on it must not be there."""
        self._steps[-1].refused = self._position()

    def observe(self, state: State) -> None:
        """It was read: from now on it is what there is."""
        self.attempt(state)
        self.acknowledge()

    def until(self, position: int) -> History:
        """What was known at an earlier position."""
        copy = History(self._position)
        copy._steps = [
            _Step(each.state, each.attempted, _before(each.acknowledged, position))
            for each in self._begun(position)
        ]
        return copy

    def _begun(self, position: int) -> list[_Step]:
        return [
            each
            for each in self._steps
            if each.attempted <= position and _before(each.refused, position) is None
        ]

    def allowed(self, position: int) -> list[State]:
        """What a crash at ``position`` may leave: from the last acknowledged to the last begun."""
        begun = self._begun(position)
        first = max(
            index
            for index, each in enumerate(begun)
            if _before(each.acknowledged, position) is not None
        )
        return [each.state for each in begun[first:]]


def _before(moment: int | None, position: int) -> int | None:
    return None if moment is None or moment > position else moment


class Histories:
    """The histories of all tenants."""

    def __init__(self, position: Callable[[], int]) -> None:
        self._position = position
        self._of: dict[str, History] = {}

    def of(self, tenant: str) -> History:
        """The tenant's history; it begins without the tenant."""
        return self._of.setdefault(tenant, History(self._position))

    def until(self, position: int, now: Callable[[], int]) -> Histories:
        """What was known at an earlier position, going on from there with other positions."""
        copy = Histories(now)
        for name, history in self._of.items():
            copy._of[name] = history.until(position)
            copy._of[name]._position = now
        return copy

    def violations(self, found: dict[str, State], position: int) -> list[str]:
        """What is wrong with the contents found after a crash at ``position``."""
        wrong: list[str] = []
        for name in self._of.keys() | found.keys():
            allowed = self.of(name).allowed(position)
            if found.get(name) not in allowed:
                wrong.append(
                    f"{name}: found {_summary(found.get(name))},"
                    f" allowed {[_summary(each) for each in allowed]}"
                )
        return wrong


def _summary(state: State) -> str:
    if state is None:
        return "no tenant"
    return f"{len(state)} rows {[id for id, _, _ in state][-8:]}"


class NotServedError(Exception):
    """An object, or all of them, would be refused after a recovery."""


def recovered_contents(root: Path) -> dict[str, State]:
    """Recover the data directory as a host does at its start, and read every tenant.

    Raises:
        NotServedError: a tenant is damaged, fails its integrity check, or cannot be read.
        CorruptError: the whole start is refused.
    """
    log = NodeLog(root / "log", disk=LooseDisk(), randomness=SystemRandomness())
    try:
        if log.is_new and any((root / "objects").glob("*/*.sqlite")):
            raise NotServedError("the log is missing though there are objects")
        recover(log, root / "objects", LooseDisk())
    finally:
        log.close()
    found: dict[str, State] = {}
    for name, key in _catalog(root):
        found[name] = _state(root, key)
    return found


def _catalog(root: Path) -> list[tuple[str, ObjectKey]]:
    connection = _open(root, CATALOG_KEY)
    if connection is None:
        return []
    try:
        rows = connection.execute("SELECT name, id, incarnation FROM objects").fetchall()
    except sqlite3.DatabaseError as error:
        if "no such table" not in str(error):  # it is before its first commit
            raise NotServedError(f"catalog: {error}") from error
        rows = []
    finally:
        connection.close()
    if any(id is None for _, id, _ in rows):
        raise NotServedError("the catalog holds no ids")
    return [(name, ObjectKey(id, incarnation)) for name, id, incarnation in rows]


def _state(root: Path, key: ObjectKey) -> State:
    connection = _open(root, key)
    if connection is None:
        return NO_TABLE
    try:
        checked = connection.execute("PRAGMA integrity_check").fetchall()
        if checked != [("ok",)]:
            raise NotServedError(f"integrity check: {checked[:3]}")
        tables = [each for (each,) in connection.execute("SELECT name FROM sqlite_schema")]
        if "items" not in tables:
            return NO_TABLE
        rows = connection.execute("SELECT id, value, data FROM items ORDER BY id")
        return tuple(row(*each) for each in rows)
    except sqlite3.DatabaseError as error:
        raise NotServedError(f"{key.filename}: {error}") from error
    finally:
        connection.close()


def _open(root: Path, key: ObjectKey) -> sqlite3.Connection | None:
    """The file as a host opens it: without what SQLite left beside it."""
    path = database_path(root / "objects", key)
    if damaged_path(path).exists():
        raise NotServedError(f"{key.filename}: {damaged_path(path).read_text()}")
    if read_position(LooseDisk(), path).txid == 0:
        return None
    if not path.exists():
        raise NotServedError(f"{key.filename} is missing")
    remove_wal(LooseDisk(), path)
    return sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
