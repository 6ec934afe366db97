"""Every limit, with its unit and its reason. Settings may lower or raise those marked (setting)."""

from __future__ import annotations

# --- names -----------------------------------------------------------------------------------
TENANT_NAME_PATTERN = r"[a-z0-9][a-z0-9_-]{0,62}"
"""One DNS label, so that a name works as a subdomain too."""
RESERVED_TENANT_NAMES = frozenset(
    {"v1", "v2", "v3", "v3-protobuf", "admin", "objects", "rpc", "api", "auth"}
)
"""First path segments that belong to the server."""
RESERVED_TABLE_PREFIX = "_dosql_"
"""The server's own tables inside a tenant's database."""

# --- requests --------------------------------------------------------------------------------
REQUEST_BODY_BYTES_MAX = 2 * 1024 * 1024
"""(setting) A body larger than the largest value SQLite accepts here is of no use."""
REQUEST_ID_PATTERN = r"[A-Za-z0-9._-]{1,128}"
"""What a client's own X-Request-ID may look like; anything else is replaced."""
IDEMPOTENCY_KEY_CHARS_MAX = 255
"""As Stripe's; long enough for any UUID with a prefix."""
IDEMPOTENCY_KEEP_MS = 24 * 60 * 60 * 1000
"""How long an outcome can be replayed: longer than any sane retry loop."""
TRANSACTION_OPERATIONS_MAX = 1_000
"""Operations in one ``POST /transaction``; the time budget bites first."""

# --- statements ------------------------------------------------------------------------------
SQL_BYTES_MAX = 100_000
"""SQLITE_LIMIT_SQL_LENGTH, as Cloudflare's."""
VALUE_BYTES_MAX = 2 * 1024 * 1024
"""SQLITE_LIMIT_LENGTH: one row, text or blob."""
VARIABLES_MAX = 1_000
"""SQLITE_LIMIT_VARIABLE_NUMBER; Cloudflare's 100 is a top complaint."""
COLUMNS_MAX = 200
EXPRESSION_DEPTH_MAX = 100
COMPOUND_SELECT_MAX = 50
VDBE_OPS_MAX = 25_000
"""Stops prepare bombs (nested views, huge joins) before they eat memory."""
FUNCTION_ARGS_MAX = 127
LIKE_PATTERN_BYTES_MAX = 50
"""LIKE is quadratic in the pattern."""
TRIGGER_DEPTH_MAX = 10
PARSER_DEPTH_MAX = 100
STATEMENT_MS_MAX = 5_000
"""(setting) Deadline of one statement or batch."""
INLINE_MS_MAX = 5
"""(setting) What a statement may take on the event loop; longer ones move to a worker thread."""
PROGRESS_STEPS = 1_000
"""Virtual machine steps between two looks at the deadline on the event loop: about 20 µs."""
PROGRESS_STEPS_ON_THREAD = 100_000
"""The same on a worker thread: about 2 ms. Each look takes the interpreter's lock, for which it
may wait as long as `SWITCH_INTERVAL_S` when the event loop is busy."""
SWITCH_INTERVAL_S = 0.0005
"""After how long the event loop lets another thread have the interpreter's lock. With Python's
own 5 ms the log's thread waits for it between two syncs: measured at 64 connections, a quarter
fewer inserts, and a p99 of reads twice as long beside one large result."""
ROWS_MAX = 10_000
"""(setting) Rows in one answer."""
RESULT_BYTES_MAX = 8 * 1024 * 1024
"""(setting) Bytes of values in one answer, before encoding."""
DATABASE_BYTES_MAX = 10 * 1024**3
"""(setting) Quota of one database, as Cloudflare's 10 GB."""

# --- objects ---------------------------------------------------------------------------------
OPEN_OBJECTS_MAX = 1_000
"""(setting) Awake objects; each costs 2-3 descriptors and about 200 KB."""
IDLE_SECONDS_MAX = 60
"""(setting) After that an object hibernates."""
TURN_QUEUE_MAX = 1_000
"""Calls that may wait for one object; beyond it the caller is told to back off."""
TURN_WAIT_S_MAX = 30.0
"""A call that waited this long is refused: its client has given up by now."""
SQLITE_CACHE_KIB = 1_024
"""Page cache of one connection."""

# --- interactive transactions ----------------------------------------------------------------
TRANSACTION_IDLE_S_MAX = 5.0
"""(setting) Without a statement for this long, the transaction is rolled back: others wait."""
TRANSACTION_S_MAX = 30.0
"""(setting) Absolute life of an interactive transaction."""

# --- commit log ------------------------------------------------------------------------------
LOG_SEGMENT_BYTES = 16 * 1024 * 1024
"""Preallocated size of one segment; a larger batch makes a larger segment."""
LOG_BYTES_MAX = 64 * 1024 * 1024
"""(setting) Beyond it the oldest objects are checkpointed and the log is cut: bounds the redo."""
WAL_BYTES_MAX = 16 * 1024 * 1024
"""Pages in an object's -wal before it is checkpointed; SQLite's own default is 4 MB."""

assert WAL_BYTES_MAX <= LOG_BYTES_MAX
assert LOG_SEGMENT_BYTES * 2 <= LOG_BYTES_MAX
assert INLINE_MS_MAX < STATEMENT_MS_MAX
