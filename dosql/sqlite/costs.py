"""How large a value may be, so that no single step of a statement takes long.

SQLite looks at deadlines and interrupts only where its program jumps back: never inside a
function, and not between functions of the same row. What bounds the time between two looks is the
length of the values, which is therefore limited by what the statement does to them: one that only
stores and reads may have values of the full length, one with LIKE on the event loop may not.

The weights are nanoseconds per byte in the worst case that was found; see docs/decisions/0007.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from dosql.limits import (
    INLINE_STALL_MS_MAX,
    INLINE_VALUE_BYTES_MAX,
    PROGRESS_STEPS,
    VALUE_BYTES_MAX,
    WORKER_STALL_MS_MAX,
)

_READING = 1.0
"""Reading a value from its pages, comparing and copying it."""
_OPERATOR = 5.0
"""Text taken for a number, or compared by a collation."""
_FUNCTION = 12.0
_SLOW = {"glob": 270.0, "like": 270.0}
_QUADRATIC = {"highlight": (4 * 1024, 256 * 1024)}
"""Those that copy what they have for each hit: 0.1 s at 64 KiB."""
_JSON = 40.0
_JSON_PATH = 10.0
"""For each further path: "[#-1]" goes through an array to its end."""
_STEPS_PER_CALL = 3
"""A function in a loop is at least so many steps: its argument, the call, the jump back."""

_OPERATORS = (
    "+",
    "-",
    "*",
    "/",
    "%",
    "<",
    ">",
    "=",
    "|",
    "&",
    "~",
    "between",
    "cast",
    "collate",
    " in ",
    " in(",
)
"""Counted in the text, so rather too often."""
_PROGRAM_OPERATORS = re.compile(
    "Add|Subtract|Multiply|Divide|Remainder|Bit(And|Or|Not)|Shift(Left|Right)|Concat|Cast"
    "|Eq|Ne|Lt|Le|Gt|Ge|If(Not)?|(Real)?Affinity|MustBeInt"
)
_JSON_TABLES = ("_each", "_tree")


def value_limits(
    sql: str, functions: Sequence[str], opcodes: Iterable[str] | None
) -> tuple[int, int]:
    """Bytes of a value on the event loop, where a longer one moves the statement to a worker
    thread; and there, where a longer one is refused.

    ``functions``: one name per call. ``opcodes``: of its program, if that is more than the text
    shows.
    """
    text = sql.lower()
    paths = 1 + sql.count(",")
    weights = [_weight(name, paths) for name in functions]
    if "json" in text and any(each in text for each in _JSON_TABLES):
        weights.append(_JSON)
    operators = (
        sum(map(text.count, _OPERATORS))
        if opcodes is None
        else sum(_PROGRAM_OPERATORS.fullmatch(each) is not None for each in opcodes)
    )
    if opcodes is not None:
        weights.append(_JSON)  # a view may read json_each
    total = _READING + sum(weights) + _OPERATOR * operators
    heaviest = max(_READING, _OPERATOR * bool(operators), *weights, 0.0)
    between_looks = max(total, heaviest * PROGRESS_STEPS / _STEPS_PER_CALL)
    inline, thread = INLINE_VALUE_BYTES_MAX, VALUE_BYTES_MAX
    for name in _QUADRATIC.keys() & set(functions):
        inline, thread = _QUADRATIC[name]
    return (
        min(inline, int(INLINE_STALL_MS_MAX * 1e6 / between_looks)),
        min(thread, int(WORKER_STALL_MS_MAX * 1e6 / total)),
    )


def _weight(function: str, paths: int) -> float:
    if function.startswith(("json", "->")):
        return _JSON + _JSON_PATH * (paths - 1)
    return _SLOW.get(function, _FUNCTION)
