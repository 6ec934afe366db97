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
SERVER_TABLES = frozenset({"sessions", "rate_limits"})
"""Those of the default schema that are the server's too: a tenant's SQL neither reads nor writes
them. The databases of an app's own classes have no such tables."""

OBJECT_NAME_BYTES_MAX = 1_024
"""UTF-8; Cloudflare's names of objects end there too."""

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
SCHEMA_OBJECTS_MAX = 2_000
"""Tables, indexes, views and triggers of a database: SQLite reads all of them when it opens it,
10,000 in 0.1 s."""
STATEMENT_MS_MAX = 5_000
"""(setting) Deadline of one statement or batch."""
INLINE_STALL_MS_MAX = 50
"""What a statement may take on the event loop between two looks at its deadline, in the worst case
that was found: longer values move it to a worker thread."""
WORKER_STALL_MS_MAX = 4_000
"""The same on a worker thread, where a longer value is refused."""
INLINE_VALUE_BYTES_MAX = 512 * 1024
"""A longer value is never handled on the event loop."""
INLINE_SQL_BYTES_MAX = 16 * 1024
"""A longer statement is prepared on a worker thread: the time for it grows with the square."""
INLINE_BULK_PAGES_MAX = 2_500
"""Pages of a database up to which the event loop drops and empties tables, and searches full text:
each is one instruction, whatever the size."""
HEAP_BYTES_MAX = 1024**3
"""Of SQLite in the whole process: beyond it a statement fails. Half of it is page caches, were all
objects that may be awake to fill theirs."""
STATEMENT_HEAP_BYTES_MAX = 128 * 1024 * 1024
"""What SQLite's memory may grow by while one statement runs."""
INLINE_MS_MAX = 5
"""(setting) What a statement may take on the event loop; longer ones move to a worker thread."""
PROGRESS_STEPS = 250
"""Virtual machine steps between two looks at the deadline on the event loop: about 5 µs, but as
many calls of functions as fit."""
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

# --- the code of objects -------------------------------------------------------------------------
OBJECT_STATEMENT_MS_MAX = 250
"""What one step of an object's code may spend in SQLite on the event loop; longer statements
belong on a thread (``ctx.storage.sql.exec_on_thread``)."""
SECTION_S_MAX = 30.0
"""A critical section that takes longer resets its object, as Cloudflare's does."""
PRE_SHUTDOWN_S_MAX = 10.0
"""How long an object's ``pre_shutdown`` may take; best effort."""
SECTION_DEPTH_MAX = 64
"""Critical sections inside each other, as Cloudflare's."""

# --- interactive transactions ----------------------------------------------------------------
TRANSACTION_IDLE_S_MAX = 5.0
"""(setting) Without a statement for this long, the transaction is rolled back: others wait."""
TRANSACTION_S_MAX = 30.0
"""(setting) Absolute life of an interactive transaction."""

# --- storage of objects ----------------------------------------------------------------------
VALUE_DEPTH_MAX = 64
"""Levels of lists, dicts and the like in one stored value: far from Python's recursion limit."""
KV_KEY_BYTES_MAX = 2_048
"""A key in UTF-8, as Cloudflare's. A value, with its key, may have VALUE_BYTES_MAX."""
SQL_CURSOR_ROWS_MAX = 1_000_000
SQL_CURSOR_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of values in one cursor of an object's code, or in one key-value list: it is in memory
whole."""

# --- alarms ----------------------------------------------------------------------------------
ALARMS_MAX = 10_000
"""Alarms of one object; each new name counts those there are. More belong into a table of the
object's own, with one alarm for the earliest."""
ALARM_NAME_BYTES_MAX = 256
"""In UTF-8."""
ALARM_DATA_BYTES_MAX = 64 * 1024
"""Encoded; larger data belongs into the object's storage, with its key in the alarm."""
ALARM_RETRIES_MAX = 6
"""Counted ones, as Cloudflare's: 2, 4, 8, 16, 32, 64 s after the failure before."""
ALARM_RETRY_S_MIN = 2.0
ALARM_RETRY_S_MAX = 1_024.0
"""The longest pause, reached only by failures that do not count."""
ALARM_HANDLER_S_MAX = 15 * 60.0
"""A handler that takes longer is cancelled, which counts as a failure; as Cloudflare's."""
ALARM_DELIVERIES_MAX = 100
"""Objects whose alarms run at the same time: a tenth of those that may be awake, and enough that
a few slow handlers hold nobody up."""
ALARM_CHECK_S_MAX = 60.0
"""The clock looks at least so often: the wall clock may have jumped."""
CRON_CHARS_MAX = 200

# --- sockets ---------------------------------------------------------------------------------
SOCKETS_MAX = 32_768
"""Open WebSockets of one object, as Cloudflare's."""
SOCKET_TAGS_MAX = 10
SOCKET_TAG_CHARS_MAX = 256
ATTACHMENT_BYTES_MAX = 16_384
"""Encoded; it stays in memory while the object hibernates."""
AUTO_RESPONSE_BYTES_MAX = 2_048
"""Each side of the pair."""
SOCKET_MESSAGE_BYTES_MAX = 1024 * 1024
"""(setting) One incoming message, uncompressed; a longer one closes its socket with 1009."""
SOCKET_OUTBOX_BYTES_MAX = 4 * 1024 * 1024
"""What may wait for one slow reader before its socket is closed with 4008. A single message may
be larger, and a burst such as a replayed history must fit."""
SOCKET_OUTBOX_MESSAGES_MAX = 65_536
"""The same in messages: small ones cost more than their bytes."""
SOCKET_READ_AHEAD_MAX = 16
"""Messages of one socket that wait for the object or run in it; beyond it no more are read."""
SOCKET_PING_S = 25.0
"""A socket silent for so long is pinged, and dropped if it is silent for as long again. Below
the 60 s after which usual proxies cut an idle connection."""
SOCKET_CLOSE_S_MAX = 5.0
"""How long a peer may take to answer a Close frame, and to read what was sent before it."""

# --- changes -----------------------------------------------------------------------------------
CHANGES_KEPT_MAX = 1_000_000
"""Changes kept in a database for subscribers that come back."""
CHANGES_KEPT_S_MAX = 7 * 24 * 60 * 60
"""(setting) For how long they are kept."""
CHANGES_KEPT_BYTES_MAX = 64 * 1024 * 1024
"""(setting) How much of a database they may take."""
CHANGES_SLOT_FACTOR = 4
"""Times each of these limits that a slot may hold back: beyond it the database comes first."""
CHANGES_TRANSACTION_BYTES_MAX = 32 * 1024 * 1024
"""Changes of one transaction, which are in memory until its commit. Of one that changes more,
subscribers are told to copy the tables again."""
CHANGES_PAGE_MAX = 500
"""Changes that a subscriber is given at once."""
CHANGES_PAGE_BYTES_MAX = 256 * 1024
"""The same in stored bytes; a single row may be larger."""
CHANGE_SLOTS_MAX = 32
"""Slots of one database."""
CHANGE_SLOT_NAME_PATTERN = r"[a-z0-9][a-z0-9_-]{0,62}"
CHANGE_SUBSCRIBERS_MAX = 100
"""Streams of changes of one database: each reads every commit anew."""
CHANGE_SUBSCRIBERS_NODE_MAX = 10_000
"""The same of a whole server."""
CHANGE_HEARTBEAT_S = 15.0
"""After so long without a change a stream says that it is alive: below the 60 s after which
usual proxies cut an idle connection."""

# --- accounts and sessions -----------------------------------------------------------------------
SESSION_S_MAX = 30 * 24 * 60 * 60
"""(setting) Life of a session, from the login on, however often it is refreshed."""
SESSION_IDLE_S_MAX = 7 * 24 * 60 * 60
"""(setting) A session that was not used for so long is over."""
SESSION_TOUCH_S_MAX = 60.0
"""How exact the time of the last use is: a write for each request would cost more than it."""
SESSIONS_PER_USER_MAX = 100
"""A login beyond it ends the session that was not used for the longest time."""
SESSIONS_CACHED_MAX = 10_000
"""Checked sessions of one awake tenant."""
SESSION_SWEEP_S = 1.0
"""How often the sessions behind open streams are looked at."""
SESSION_CHECK_S_MAX = 2.0
"""How long such a look may take; the next one tries again."""
TICKET_S_MAX = 30.0
"""Life of a ticket: the time from asking for it to the handshake of a stream."""
TICKETS_MAX = 10_000
"""Unused ones of a node; the oldest go first."""
PASSWORD_BYTES_MIN = 8
"""Of the NFKC form in UTF-8."""
PASSWORD_BYTES_MAX = 1_024
PASSWORD_THREADS = 2
"""Argon2 takes 19 MiB and some 40 ms of a core: more at a time would starve the event loop."""
PASSWORD_QUEUE_MAX = 32
"""Passwords that may wait for a thread, somewhat over a second; beyond it 503."""
EMAIL_CHARS_MAX = 254
"""RFC 5321: 256 with its brackets."""
USER_NAME_CHARS_MAX = 100
ATTEMPTS_KEPT_MAX = 20_000
"""Accounts and addresses with failed logins that a node keeps in mind."""
ATTEMPTS_FORGOTTEN_S = 15 * 60.0
"""After so long without an attempt its failures are forgotten."""
USERS_PAGE_MAX = 100

# --- commit log ------------------------------------------------------------------------------
LOG_SEGMENT_BYTES = 16 * 1024 * 1024
"""Preallocated size of one segment; a larger batch makes a larger segment."""
LOG_BYTES_MAX = 64 * 1024 * 1024
"""(setting) Beyond it the oldest objects are checkpointed and the log is cut: bounds the redo."""
WAL_BYTES_MAX = 16 * 1024 * 1024
"""Pages in an object's -wal before it is checkpointed; SQLite's own default is 4 MB."""

# --- replication -----------------------------------------------------------------------------
REPLICA_COALESCE_FROM = 256
"""Batches of one object that wait for the bucket before several go into one file."""
REPLICA_FILES_BURST = 256
"""Files with one commit each that a node may send at once, and then
`REPLICA_FILES_PER_S`; beyond that, one file per object and `REPLICA_INTERVAL_S`. Not where writes
wait for the bucket."""
REPLICA_FILES_PER_S = 32
REPLICA_INTERVAL_S = 1.0
REPLICA_BATCH_BYTES = 8 * 1024 * 1024
"""Of pages in such a file."""
REPLICA_SPOOL_BYTES_MAX = 256 * 1024 * 1024
"""Of all objects together, in memory; beyond it the largest spool is dropped, and a whole image of
its object is sent when the bucket is back."""
REPLICA_RETRY_S_MAX = 10.0
"""Longest pause between two attempts."""
REPLICA_REFUSE_AFTER_S = 2.0
"""In the durability mode ``bucket``: so long after its first failed attempt an object takes no
more writes."""
REPLICA_WAIT_S = 10.0
"""In the durability mode ``bucket``: how long a reply waits for the bucket."""
REPLICA_DRAIN_S = 5.0
"""How long a server that stops waits for the bucket to have everything."""

# --- compaction and retention of replicas ------------------------------------------------------
COMPACTIONS_MAX = 2
"""Objects of a node that are compacted at a time: it is work for the processor, beside requests."""
COMPACTION_GRACE_MS = 2_000
"""How long after its end a span of time is taken to be complete: the shipper's delay."""
COMPACTION_PAUSE_S = 30.0
"""After a failure of the bucket."""
COMPACTION_MEMORY_BYTES = 16 * 1024 * 1024
"""Of the inputs of a merge, and of its result; what is larger goes through temporary files."""
COMPACTION_OBJECTS_MAX = 20_000
"""Objects written lately that are kept in mind, about 1 KB each; beyond it those that were not
written for the longest time are forgotten, and merged less."""
REPLICA_RECENT_BYTES_MAX = 2 * 1024 * 1024
"""Files shipped lately that are kept in memory, so that a merge need not read them back."""
REPLICA_LOOK_TXIDS = 64
"""An object of which only the newest files are known is listed when its TXID passes a multiple of
this..."""
REPLICA_LOOK_BYTES = 2 * 1024 * 1024
"""...or so many bytes were written to it."""
SNAPSHOT_AFTER_BYTES_MIN = 4 * 1024 * 1024
"""Behind a snapshot before the next is made, if the database is smaller than that."""
SNAPSHOT_FILE_BYTES = 64 * 1024
"""What one more file costs a restore, in bytes: a round trip, against the time these take. So a
small database has a snapshot for every 64 files at least."""
RETENTION_DAYS = 30
"""(setting) Every moment as old as this can be restored."""
L0_RETENTION_HOURS = 24
"""(setting) Every single commit as old as this can be restored."""
L0_RETENTION_S_MIN = 600
"""A shorter one would let a server that believes to own an object write over a commit that its
new owner has merged."""
L1_RETENTION_DAYS = 7
"""After that the files of 30 s go where there is one of 5 minutes."""
RETENTION_GRACE_MS = 60 * 60 * 1000
"""What a restore that has begun may take: so much longer everything is kept."""
SWEEP_AFTER_MS = RETENTION_GRACE_MS + 60_000
"""Behind the moment at which something expires: later than the grace."""
SWEEP_PERIOD_MS = 24 * 60 * 60 * 1000
"""Between two sweeps of an object that is written all the time."""
SWEEP_FILES_MIN = 64
SWEEP_BYTES_MIN = 1024 * 1024
"""An object that is not written any more is swept once, if so many files or bytes can go."""

assert WAL_BYTES_MAX <= LOG_BYTES_MAX
assert LOG_SEGMENT_BYTES * 2 <= LOG_BYTES_MAX
assert INLINE_MS_MAX < STATEMENT_MS_MAX
