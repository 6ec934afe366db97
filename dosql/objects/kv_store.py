"""KeyValueStore: any storable value (see `values`) under a text key, in the object's database.

A put is part of the same transaction as the SQL around it. Keys are ordered by their UTF-8 bytes,
which is the order of their characters. No statement stays open between two calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from dosql.errors import ConflictError, InvalidRequestError, LimitError
from dosql.limits import KV_KEY_BYTES_MAX, SQL_CURSOR_BYTES_MAX, VALUE_BYTES_MAX
from dosql.objects.access import Access
from dosql.objects.internal_table import InternalTable
from dosql.objects.values import decode_value, encode_value
from dosql.sqlite.database import Database
from dosql.wire.values import SqlValue

T = TypeVar("T")

_TABLE = InternalTable(
    "_dosql_kv", "(key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID"
)
_GET = "SELECT value FROM _dosql_kv WHERE key = ?"
_PUT = "INSERT INTO _dosql_kv VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
_DELETE = "DELETE FROM _dosql_kv WHERE key = ?"

_ROW_BYTES = 16
"""What SQLite adds to key and value, at most."""
_PAGE_ROWS = 200
"""Rows that a list reads at once."""
_LAST_CHARACTER = chr(0x10FFFF)


class Range(NamedTuple):
    """Which keys a list goes over. Upwards or downwards, ``start`` is the low end."""

    low: str | None
    low_included: bool
    high: str | None
    """Never included."""
    reverse: bool
    limit: int | None


class KeyValueStore:
    """The operations, all synchronous. Writes are kept when the object's step ends."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._listing: Entries | None = None

    def get(self, key: str, default: Any, kind: Any) -> Any:
        """The value under the key, converted to ``kind`` unless that is None."""
        rows = _TABLE.query(self._access.read(), _GET, (_checked(key),))
        return _decoded(key, rows[0][0], kind) if rows else default

    def get_many(self, keys: Iterable[str], kind: Any) -> dict[str, Any]:
        """The values of those keys that exist, in the order of the keys."""
        db = self._access.read()
        found: dict[str, Any] = {}
        for key in sorted({_checked(key) for key in keys}):
            if rows := _TABLE.query(db, _GET, (key,)):
                found[key] = _decoded(key, rows[0][0], kind)
        return found

    def put(self, key: str, value: object, *, confirmed: bool = True) -> None:
        """Store one value."""
        row = _encoded(key, value)
        _TABLE.insert(self._access.write(confirmed=confirmed), _PUT, row)

    def put_many(self, entries: Mapping[str, object], *, confirmed: bool = True) -> None:
        """Store all values, or none."""
        rows = [_encoded(key, value) for key, value in entries.items()]
        if rows:
            db = self._access.write(confirmed=confirmed)
            with db.savepoint():
                for row in rows:
                    _TABLE.insert(db, _PUT, row)

    def delete(self, key: str, *, confirmed: bool = True) -> bool:
        """Whether there was a value to delete."""
        _checked(key)
        db = self._access.write(confirmed=confirmed)
        return _TABLE.delete(db, _DELETE, (key,)) > 0

    def delete_many(self, keys: Iterable[str], *, confirmed: bool = True) -> int:
        """Delete all of them, or none if it fails; how many there were."""
        wanted = {_checked(key) for key in keys}
        if not wanted:
            return 0
        db = self._access.write(confirmed=confirmed)
        with db.savepoint():
            return sum(_TABLE.delete(db, _DELETE, (key,)) for key in wanted)

    def iterate(self, wanted: Range) -> Entries:
        """A walk over the entries. It ends the one before: ConflictError
        ``iterator_invalidated`` at its next step."""
        self._listing = entries = Entries(self, wanted)
        return entries

    def collect(self, wanted: Range) -> dict[str, Any]:
        """All entries at once.

        Raises:
            LimitError: ``result_too_large``: more than SQL_CURSOR_BYTES_MAX.
        """
        db = self._access.read()
        found: dict[str, Any] = {}
        size = 0
        for page in _pages(db, wanted):
            for key, data in page:
                size += len(key) + len(data)
                found[key] = _decoded(key, data, None)
            if size > SQL_CURSOR_BYTES_MAX:
                raise LimitError(
                    f"The list has more than {SQL_CURSOR_BYTES_MAX} bytes; use limit or kv.list().",
                    code="result_too_large",
                )
        return found

    def is_newest(self, entries: Entries) -> bool:
        """Whether no other walk began since."""
        return self._listing is entries

    def database(self) -> Database:
        """For a walk that goes on."""
        return self._access.read()


class Entries(Iterator[tuple[str, Any]]):
    """Entries one by one, as they are when their turn comes: a walk may delete what it passes."""

    def __init__(self, store: KeyValueStore, wanted: Range) -> None:
        self._store = store
        self._rest = wanted
        self._page: list[tuple[str, bytes]] = []
        self._page_rows = 1
        self._state: object = None
        store.database()  # refuse now what would be refused at the first step

    def __next__(self) -> tuple[str, Any]:
        if not self._store.is_newest(self):
            raise ConflictError(
                "A newer list() has ended this one; make a list of it before you begin another.",
                code="iterator_invalidated",
            )
        db = self._store.database()
        state = db.state
        if not self._page or state != self._state:
            # Reading ahead is in vain for who writes at every step.
            self._page_rows = 1 if self._page else min(2 * self._page_rows, _PAGE_ROWS)
            self._page = _page(db, self._rest, self._page_rows)
            self._page.reverse()  # to be popped from its end
            self._state = state
            if not self._page:
                self._rest = self._rest._replace(limit=0)
                raise StopIteration
        key, data = self._page.pop()
        self._rest = _behind(self._rest, key, 1)
        return key, _decoded(key, data, None)


def key_range(
    start: str | None = None,
    start_after: str | None = None,
    end: str | None = None,
    prefix: str | None = None,
    reverse: bool = False,
    limit: int | None = None,
) -> Range:
    """The options of a list, checked and put together.

    Raises:
        InvalidRequestError: ``invalid_list_options``.
    """
    for name, value in (
        ("start", start),
        ("start_after", start_after),
        ("end", end),
        ("prefix", prefix),
    ):
        if value is not None and not isinstance(value, str):
            raise _bad_options(f"{name} must be a str")
    if start is not None and start_after is not None:
        raise _bad_options("start and start_after exclude each other")
    if limit is not None and (type(limit) is not int or limit <= 0):
        raise _bad_options("limit must be an int above 0")
    low, included = (start_after, False) if start is None else (start, True)
    if prefix:
        if low is None or low < prefix:
            low, included = prefix, True
        behind = _behind_prefix(prefix)
        if behind is not None and (end is None or behind < end):
            end = behind
    return Range(low, included, end, bool(reverse), limit)


def _pages(db: Database, wanted: Range) -> Iterator[list[tuple[str, bytes]]]:
    """The rows in the range, some at a time."""
    while rows := _page(db, wanted, _PAGE_ROWS):
        yield rows
        if len(rows) < _PAGE_ROWS:
            return
        wanted = _behind(wanted, rows[-1][0], len(rows))


def _page(db: Database, wanted: Range, count: int) -> list[tuple[str, bytes]]:
    """The first rows in the range, at most ``count``."""
    where: list[str] = []
    params: list[SqlValue] = []
    if wanted.low is not None:
        where.append("key >= ?" if wanted.low_included else "key > ?")
        params.append(wanted.low)
    if wanted.high is not None:
        where.append("key < ?")
        params.append(wanted.high)
    sql = (
        f"SELECT key, value FROM _dosql_kv {'WHERE ' * bool(where)}{' AND '.join(where)}"
        f" ORDER BY key {'DESC' if wanted.reverse else 'ASC'} LIMIT ?"
    )
    params.append(count if wanted.limit is None else min(wanted.limit, count))
    rows: list[Any] = _TABLE.query(db, sql, params)
    return rows


def _behind(wanted: Range, key: str, count: int) -> Range:
    """What is left of a range when ``count`` entries, the last of them ``key``, are done."""
    limit = None if wanted.limit is None else wanted.limit - count
    if wanted.reverse:
        return wanted._replace(high=key, limit=limit)
    return wanted._replace(low=key, low_included=False, limit=limit)


def _behind_prefix(prefix: str) -> str | None:
    """The first text behind all that begin with the prefix; None if there is none."""
    prefix = prefix.rstrip(_LAST_CHARACTER)
    if not prefix:
        return None
    last = ord(prefix[-1]) + 1
    return prefix[:-1] + chr(0xE000 if last == 0xD800 else last)  # surrogates are not text


def _checked(key: object) -> str:
    if type(key) is not str:
        raise InvalidRequestError(
            f"A key must be a str, not {type(key).__name__}.", code="invalid_key"
        )
    try:
        size = len(key) if key.isascii() else len(key.encode())
    except UnicodeEncodeError:
        raise InvalidRequestError(
            "A key holds a lone surrogate, which is not text.", code="invalid_key"
        ) from None
    if not 0 < size <= KV_KEY_BYTES_MAX:
        raise InvalidRequestError(
            f"A key must have 1 to {KV_KEY_BYTES_MAX} bytes of UTF-8; this one has {size}.",
            code="invalid_key",
        )
    return key


def _encoded(key: str, value: object) -> tuple[str, bytes]:
    _checked(key)
    try:
        data = encode_value(value, records=True)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"Key {key!r}: {error.message}", code=error.code) from None
    if len(data) + len(key.encode()) + _ROW_BYTES > VALUE_BYTES_MAX:
        raise LimitError(
            f"The value for key {key!r} has {len(data)} bytes; with its key it may have "
            f"{VALUE_BYTES_MAX - _ROW_BYTES}.",
            code="value_too_large",
        )
    return key, data


def _decoded(key: str, data: Any, kind: Any) -> Any:
    value = decode_value(data)
    if kind is None:
        return value
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, TypeError) as error:
        raise InvalidRequestError(
            f"The value under key {key!r} is not of the type asked for: {error}.",
            code="type_mismatch",
        ) from error


def _bad_options(what: str) -> InvalidRequestError:
    return InvalidRequestError(f"list(): {what}.", code="invalid_list_options")
