"""What travels over HTTP: the bodies of requests and replies, and how SQLite values look in JSON.

Server and client share these structs. Values, both ways:

=============================  =====================================================
SQLite                         JSON
=============================  =====================================================
NULL                           ``null``
INTEGER                        an exact integer (``?int=string``: text beyond ±2**53)
REAL                           a number; ±infinity is ``{"$float": "Infinity"}`` (replies only)
TEXT                           a string; text that is not UTF-8 comes out as a blob
BLOB                           ``{"$blob": "<base64>"}``
=============================  =====================================================
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from dosql.errors import InvalidRequestError

SqlValue = None | int | float | str | bytes
"""What SQLite stores. ``bool`` is accepted as a parameter and stored as 0 or 1."""
Params = Sequence[SqlValue] | Mapping[str, SqlValue]
"""Positional (``?``) or named (``:name``, ``@name``, ``$name``; the key without the sign)."""

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1
_JS_SAFE = 2**53


class Body(msgspec.Struct, rename="camel", omit_defaults=True):
    """Base of all bodies: camelCase on the wire."""


class SqlRequest(Body, forbid_unknown_fields=True):
    """Body of ``/query``, ``/queryOne`` and ``/run``."""

    sql: str
    params: list[Any] | dict[str, Any] | None = None


class Operation(Body, forbid_unknown_fields=True):
    """One step of a transaction."""

    type: Literal["query", "queryOne", "run"]
    sql: str
    params: list[Any] | dict[str, Any] | None = None


class TransactionRequest(Body, forbid_unknown_fields=True):
    """Body of ``/transaction``: all operations, or none."""

    operations: list[Operation]


class RunReply(Body, omit_defaults=False):
    """What ``run`` did."""

    changes: int
    last_insert_rowid: int


class TransactionOpened(Body):
    """Reply of ``POST /transactions``; then statements go to ``/transactions/{id}/...``."""

    id: str
    expires_at: str
    idle_seconds: float


class ErrorReply(Body):
    """Body of every reply that is not a success."""

    error: str
    code: str
    request_id: str
    retryable: bool = False
    index: int | None = None
    sqlite_code: str | None = None
    offset: int | None = None


class CreateTenant(Body, forbid_unknown_fields=True):
    """Body of ``POST /admin/tenants``."""

    name: str


class TenantInfo(Body, omit_defaults=False):
    """What is known of one tenant. Times are RFC 3339 in UTC."""

    name: str
    id: str
    created_at: str
    last_used_at: str
    size_bytes: int
    txid: int
    state: Literal["awake", "hibernated"]
    replicated_txid: int | msgspec.UnsetType = msgspec.UNSET
    """With a bucket: the newest state that is in it."""
    replica_url: str | msgspec.UnsetType = msgspec.UNSET
    """With a bucket: what ``litestream restore`` takes."""


class TenantPage(Body, omit_defaults=False):
    """One page of tenants in name order; ``cursor`` leads to the next, null at the end."""

    tenants: list[TenantInfo]
    cursor: str | None


class ObjectInfo(Body, omit_defaults=False):
    """What is known of one named object of a class. Times are RFC 3339 in UTC."""

    name: str
    id: str
    created_at: str
    last_used_at: str
    size_bytes: int
    state: Literal["awake", "hibernated"]
    sockets: int


class ObjectPage(Body, omit_defaults=False):
    """One page of objects in name order; ``cursor`` leads to the next, null at the end."""

    objects: list[ObjectInfo]
    cursor: str | None


class CreateToken(Body, forbid_unknown_fields=True):
    """Body of ``POST /admin/tokens``. ``expires_in`` in seconds; none: never."""

    tenant: str
    access: Literal["read-write", "read-only"] = "read-write"
    expires_in: int | None = None


class TokenCreated(Body, omit_defaults=False):
    """The only time the token itself is told."""

    id: str
    token: str
    expires_at: str | None


class TokenInfo(Body, omit_defaults=False):
    """What is known of a token; never the token."""

    id: str
    tenant: str
    access: Literal["read-write", "read-only"]
    created_at: str
    expires_at: str | None
    expired: bool


class MigrationState(Body, omit_defaults=False):
    """Where one tenant stands."""

    tenant: str
    version: int
    pending: list[str]
    error: str | None = None


class MigrationReport(Body, omit_defaults=False):
    """Reply of ``GET /admin/migrations`` and of a run."""

    available: list[str]
    tenants: list[MigrationState]


class RunMigrations(Body, forbid_unknown_fields=True):
    """Body of ``POST /admin/migrations``. No tenant: all of them."""

    tenant: str | None = None
    dry_run: bool = False


class CreateChangeSlot(Body, forbid_unknown_fields=True):
    """Body of ``POST /changes/slots``. Without ``after``: what comes from now on."""

    name: str
    after: int | None = None


class AcknowledgeChanges(Body, forbid_unknown_fields=True):
    """Body of ``POST /changes/slots/{name}/ack``: nothing up to ``seq`` is needed again."""

    seq: int


class ChangeSlot(Body, omit_defaults=False):
    """A named position in the changes of a tenant. Times are RFC 3339 in UTC."""

    name: str
    acked: int
    behind: int
    """How many changes there are behind ``acked``."""
    lost: bool
    """Some of them are not kept any more: its consumer will be told to begin anew."""
    created_at: str
    acked_at: str | None


class ChangeSlots(Body, omit_defaults=False):
    """All slots by name; ``seq`` is the number of the newest change."""

    slots: list[ChangeSlot]
    seq: int


class RestoreRequest(Body, forbid_unknown_fields=True):
    """Body of ``POST /admin/tenants/{name}/restore``. ``at``: RFC 3339, or a bookmark. ``to``: a
    tenant to make; none: the tenant itself goes back. ``dry_run``: build the state and check it,
    and change nothing."""

    at: str
    to: str | None = None
    dry_run: bool = False


class RestoreReply(Body, omit_defaults=False):
    """What was restored. Times are RFC 3339 in UTC."""

    tenant: str
    """Which now holds the state."""
    bookmark: str
    """Of the state, in the tenant that it was taken from. It may be older than what was asked
    for: the newest that is kept and is not younger."""
    undo_bookmark: str | None
    """Restoring this one takes the restore back; null unless it was made in place."""
    at: str
    """When the state was committed."""
    size_bytes: int
    """Of the restored database."""
    files: int
    """Read from the bucket."""
    bytes_read: int
    """In those files."""
    dry_run: bool
    """Nothing was changed."""


class SnapshotInfo(Body, omit_defaults=False):
    """One whole database in the bucket. Times are RFC 3339 in UTC."""

    bookmark: str
    txid: int
    size_bytes: int
    """Of the file in the bucket, which is compressed."""
    created_at: str
    """When its newest commit was made."""


class SnapshotList(Body, omit_defaults=False):
    """Snapshots of one tenant, the oldest first."""

    snapshots: list[SnapshotInfo]


class VerifyRequest(Body, forbid_unknown_fields=True):
    """Body of ``POST /admin/tenants/{name}/snapshots/verify``. ``everything``: all files, not only
    those that the newest state is restored from. ``repair``: make damaged ones anew."""

    everything: bool = False
    repair: bool = False


class DamagedFile(Body, omit_defaults=False):
    """A file in the bucket that is not what was written."""

    level: int
    """0: a single commit; 1 to 3: a span of time; 9: a snapshot."""
    name: str
    reason: str
    repaired: bool
    """It was made anew out of others, and is sound now."""


class VerifyReply(Body, omit_defaults=False):
    """What a verification found. Times are RFC 3339 in UTC."""

    sound: bool
    """The newest state can be restored, SQLite finds no fault in it, and nothing is damaged that
    was not repaired."""
    failure: str | None
    """Why the newest state cannot be restored; null: it can."""
    bookmark: str | None
    """Of the newest state that can be restored; null if none can."""
    at: str | None
    """When it was committed."""
    size_bytes: int
    """Of the restored database."""
    files: int
    """Read to their ends."""
    bytes_read: int
    """In those files."""
    damaged: list[DamagedFile]


class PruneRequest(Body, forbid_unknown_fields=True):
    """Body of ``POST /admin/tenants/{name}/snapshots/prune``. ``dry_run``: only tell."""

    dry_run: bool = False


class PruneReply(Body, omit_defaults=False):
    """What retention removed, or would remove."""

    files: int
    snapshots: int
    """Of the files."""
    size_bytes: int
    dry_run: bool


class CreateBranch(Body, forbid_unknown_fields=True):
    """Body of ``POST /admin/tenants/{name}/branches``. ``name``: a tenant to make; ``at``: RFC
    3339 or a bookmark of the parent, none: now."""

    name: str
    at: str | None = None
    protected: bool = False


class BranchInfo(Body, omit_defaults=False):
    """A tenant whose history began at another's. Times are RFC 3339 in UTC."""

    name: str
    parent: str
    bookmark: str
    """Of the parent: where the branch begins."""
    created_at: str
    protected: bool
    """It can be neither deleted nor replaced, and nothing can be merged into it."""


class BranchList(Body, omit_defaults=False):
    """Branches of one tenant, in name order."""

    branches: list[BranchInfo]


class Protection(Body, forbid_unknown_fields=True, omit_defaults=False):
    """Body and reply of ``PUT /admin/tenants/{name}/protection``, for branches and all others."""

    protected: bool


class SchemaDifference(Body, omit_defaults=False):
    """A table, index, trigger or view that is not the same; the SQL on either side, or null."""

    type: str
    name: str
    change: Literal["added", "removed", "changed"]
    """From the parent to the branch."""
    parent: str | None
    branch: str | None


class RowDifference(Body, omit_defaults=False):
    """A row that is not the same. Values as in the rows of a query."""

    change: Literal["added", "removed", "changed"]
    key: dict[str, Any]
    """The primary key; ``rowid`` where the table has none."""
    parent: dict[str, Any] | None
    branch: dict[str, Any] | None


class TableDifference(Body, omit_defaults=False):
    """Rows of one table, by primary key."""

    table: str
    added: int
    removed: int
    changed: int
    rows: list[RowDifference]
    """Up to the limit that was asked for; the counts are exact."""
    truncated: bool
    compared: bool = True
    """False: the table's columns are not the same on both sides, so its rows were not compared."""


class BranchDiff(Body, omit_defaults=False):
    """Reply of ``GET /admin/tenants/{name}/branches/{branch}/diff``: the branch as it is now,
    against its parent as it is now (``against=parent``) or where it began (``against=start``)."""

    parent: str
    branch: str
    parent_bookmark: str
    branch_bookmark: str
    against: Literal["parent", "start"]
    schema: list[SchemaDifference]
    tables: list[TableDifference]
    """Those that differ."""


ConflictPolicy = Literal["abort", "ours", "theirs"]
"""What becomes of a row that both sides changed: nothing is merged; the parent's stays; the
branch's wins."""


class MergeRequest(Body, forbid_unknown_fields=True):
    """Body of ``POST /admin/tenants/{name}/branches/{branch}/merge``."""

    conflicts: ConflictPolicy = "abort"
    dry_run: bool = False


class MergeConflict(Body, omit_defaults=False):
    """A change of the branch that did not fit the parent."""

    table: str
    change: Literal["added", "removed", "changed"]
    """What the branch did to the row."""
    key: dict[str, Any]
    reason: Literal["changed", "missing", "exists", "constraint", "foreign_key"]
    """What the parent did: changed the row too, has none, has another of the same key; or one of
    its constraints stands in the way."""
    parent: dict[str, Any] | None
    branch: dict[str, Any] | None


class MergeReply(Body, omit_defaults=False):
    """What a merge did, or would do."""

    merged: bool
    """False: a dry run, or there were conflicts to abort for; then nothing was changed."""
    bookmark: str
    """Of the parent, behind the merge."""
    undo_bookmark: str | None
    """Of the parent, in front of it."""
    added: int
    removed: int
    changed: int
    conflicts: list[MergeConflict]
    """Up to 1,000 of them."""
    conflict_count: int


def decode_params(params: list[Any] | dict[str, Any] | None) -> Params:
    """JSON parameters as SQLite values.

    Raises:
        InvalidRequestError: ``invalid_parameter``: a list or object that is not a tagged blob,
            an integer beyond 64 bits, a float that is not finite, text that is not Unicode.
    """
    if params is None:
        return ()
    if isinstance(params, list):
        for value in params:
            if type(value) is not str or not value.isascii():
                return [_decode_value(value, index) for index, value in enumerate(params)]
        return params
    return {name: _decode_value(value, name) for name, value in params.items()}


def _decode_value(value: Any, where: int | str) -> SqlValue:
    kind = type(value)
    if kind is str:
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise _bad(where, "holds a lone surrogate, which is not text") from None
        return value  # type: ignore[no-any-return]
    if kind is int:
        if not INT64_MIN <= value <= INT64_MAX:
            raise _bad(where, "does not fit into 64 bits")
        return value  # type: ignore[no-any-return]
    if kind is float:
        if not math.isfinite(value):
            raise _bad(where, "is not a finite number")
        return value  # type: ignore[no-any-return]
    if value is None or kind is bool:
        return value  # type: ignore[no-any-return]
    if kind is dict and value.keys() == {"$blob"} and isinstance(value["$blob"], str):
        try:
            return base64.b64decode(value["$blob"], validate=True)
        except (binascii.Error, ValueError):
            raise _bad(where, "is not valid base64") from None
    raise _bad(where, 'must be null, a number, a string, a boolean or {"$blob": "<base64>"}')


def _bad(where: int | str, what: str) -> InvalidRequestError:
    name = f"Parameter {where + 1}" if isinstance(where, int) else f"Parameter {where!r}"
    return InvalidRequestError(f"{name} {what}.", code="invalid_parameter")


def encode_params(params: Params | None) -> list[Any] | dict[str, Any] | None:
    """SQLite values as JSON parameters; the counterpart of `decode_params`."""
    if params is None:
        return None
    if isinstance(params, Mapping):
        return {name: _encode_param(value) for name, value in params.items()}
    if isinstance(params, (str, bytes)):
        raise InvalidRequestError(
            "Parameters must be a list, a tuple or a mapping.", code="invalid_parameter"
        )
    return [_encode_param(value) for value in params]


def _encode_param(value: object) -> object:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$blob": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequestError("A parameter is not a finite number.", code="invalid_parameter")
    return value


def encode_rows(rows: list[tuple[SqlValue, ...]], *, int_as_text: bool = False) -> list[Any]:
    """Rows as JSON-ready lists. Rows without blobs, infinities or (if asked) large integers
    are handed through untouched: one look at the types decides."""
    kinds = {type(value) for row in rows for value in row}
    if bytes in kinds or float in kinds or (int_as_text and int in kinds):
        return [[_encode_value(value, int_as_text) for value in row] for row in rows]
    return rows


def _encode_value(value: SqlValue, int_as_text: bool) -> object:
    if isinstance(value, bytes):
        return {"$blob": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": "Infinity" if value > 0 else "-Infinity"}
    if int_as_text and isinstance(value, int) and not -_JS_SAFE <= value <= _JS_SAFE:
        return str(value)
    return value


def decode_rows(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a reply with their tagged values as Python's own."""
    return [{name: decode_value(value) for name, value in row.items()} for row in rows]


def decode_value(value: Any) -> Any:
    """One value of a reply: ``{"$blob"}`` to bytes, ``{"$float"}`` to ±infinity."""
    if type(value) is dict:
        if "$blob" in value:
            return base64.b64decode(value["$blob"])
        if "$float" in value:
            return float(value["$float"])
    return value
