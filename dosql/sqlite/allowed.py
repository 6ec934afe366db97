"""What tenants' SQL may use: the lists behind the sandbox. What stands in none of them is refused.

They follow those of Cloudflare's Durable Objects, and add what later versions of SQLite brought.
"""

from __future__ import annotations

import re

_CORE = """
    abs changes char coalesce concat concat_ws format glob hex if ifnull iif instr
    last_insert_rowid length like likelihood likely lower ltrim max min nullif octet_length
    printf quote random randomblob replace round rtrim sign substr substring subtype total_changes
    trim typeof unhex unicode unistr unistr_quote unlikely upper zeroblob
"""
_TIME = """
    current_date current_time current_timestamp date datetime julianday strftime time timediff
    unixepoch
"""
_AGGREGATE = """
    avg count cume_dist dense_rank first_value group_concat lag last_value lead median nth_value
    ntile percent_rank percentile percentile_cont percentile_disc rank row_number string_agg sum
    total
"""
_MATHS = """
    acos acosh asin asinh atan atan2 atanh ceil ceiling cos cosh degrees exp floor ln log log10
    log2 mod pi pow power radians sin sinh sqrt tan tanh trunc
"""
_JSON = """
    -> ->> json json_array json_array_insert json_array_length json_each json_error_position
    json_extract json_group_array json_group_object json_insert json_object json_pretty json_quote
    json_remove json_replace json_set json_tree json_type json_valid
    jsonb jsonb_array jsonb_array_insert jsonb_extract jsonb_group_array jsonb_group_object
    jsonb_insert jsonb_object jsonb_remove jsonb_replace jsonb_set
"""
_SEARCH = "bm25 highlight match rtreecheck"

FUNCTIONS = frozenset(" ".join((_CORE, _TIME, _AGGREGATE, _MATHS, _JSON, _SEARCH)).split())
"""Not among them: ``json_patch`` and ``snippet``, which are quadratic in the number of keys and
hits and cannot be stopped while they run; what tells of the build, of files, of pages."""

ALTER_FUNCTIONS = frozenset(
    {
        "sqlite_add_constraint",
        "sqlite_drop_column",
        "sqlite_drop_constraint",
        "sqlite_fail",
        "sqlite_find_constraint",
        "sqlite_rename_column",
        "sqlite_rename_quotefix",
        "sqlite_rename_table",
        "sqlite_rename_test",
    }
)
"""SQLite's own ALTER TABLE calls them; no other statement can."""

MODULES = frozenset({"fts5", "fts5vocab", "rtree", "rtree_i32"})

TABLES_DENIED = frozenset(
    {
        "bytecode",
        "carray",
        "completion",
        "dbstat",
        "fts3tokenize",
        "pragma_database_list",
        "sqlite_dbdata",
        "sqlite_dbpage",
        "sqlite_dbptr",
        "sqlite_stmt",
        "tables_used",
    }
)
"""Tables that are there without having been made, and show more than the tenant's own data."""

PRAGMAS_PLAIN = frozenset(
    {
        "application_id",
        "data_version",  # full-text search asks for it
        "encoding",
        "freelist_count",
        "page_count",
        "page_size",
        "table_list",
        "user_version",
    }
)
"""Reading only: refused when a value is given."""

PRAGMAS_OF = frozenset(
    {
        "foreign_key_check",
        "foreign_key_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "optimize",
        "quick_check",
        "table_info",
        "table_list",
        "table_xinfo",
    }
)
"""The value names a table, an index or a count."""

PRAGMAS_OPERATOR = frozenset({"application_id", "defer_foreign_keys", "user_version"})


def mentions(text: str, names: frozenset[str]) -> bool:
    """Whether one of the lower-case names stands in the SQL text, as a word of its own. An
    identifier has no other spelling than its letters, so what is not found is not named; what is
    found may be a string, a comment or a column.
    """
    return bool(names) and re.search(_words(names), text, re.IGNORECASE) is not None


def _words(names: frozenset[str]) -> str:
    return r"(?<![\w$])(?:" + "|".join(sorted(map(re.escape, names))) + r")(?![\w$])"
