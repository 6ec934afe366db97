"""The functions that were written anew give what SQLite's own give."""

from __future__ import annotations

from collections.abc import Iterator

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dosql.limits import VALUE_BYTES_MAX
from dosql.sqlite.functions import override
from dosql.wire.values import SqlValue

_TEXT = st.text(alphabet="ab éx0F\0\U0001f600", max_size=8)
_VALUES: st.SearchStrategy[SqlValue] = st.one_of(
    st.none(),
    _TEXT,
    _TEXT.map(str.encode),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-12, 12),
    st.floats(allow_nan=False),
)


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[apsw.Connection, apsw.Connection]]:
    plain, ours = apsw.Connection(":memory:"), apsw.Connection(":memory:")
    override(ours)
    yield plain, ours
    plain.close()
    ours.close()


@settings(max_examples=1_500, deadline=None)
@given(values=st.tuples(_VALUES, _VALUES, _VALUES))
def test_they_agree_on_values_of_all_kinds(
    both: tuple[apsw.Connection, apsw.Connection], values: tuple[SqlValue, SqlValue, SqlValue]
) -> None:
    plain, ours = both
    sql = (
        "SELECT instr(?1, ?2), replace(?1, ?2, ?3), trim(?1, ?2), ltrim(?1, ?2), rtrim(?1, ?2),"
        " unhex(?1, ?2), typeof(replace(?1, ?2, ?3)), typeof(trim(?1, ?2))"
    )
    assert ours.execute(sql, values).fetchall() == plain.execute(sql, values).fetchall()


@pytest.mark.parametrize("length", [1, 16, 17, 70_000])
@pytest.mark.parametrize("function", ["trim", "ltrim", "rtrim"])
def test_they_agree_on_sets_of_any_size(
    both: tuple[apsw.Connection, apsw.Connection], function: str, length: int
) -> None:
    plain, ours = both
    characters = "".join(map(chr, range(0x100, 0x100 + 20)))
    text = characters * (length // 20 + 1) + "middle" + characters * (length // 20 + 1)
    for chosen in (characters, characters[:3], characters + "m"):
        sql = f"SELECT {function}(?, ?)"
        found = ours.execute(sql, (text, chosen)).fetchall()
        assert found == plain.execute(sql, (text, chosen)).fetchall()


def test_a_replacement_that_grows_beyond_the_limit_is_refused_before_it_is_made(
    both: tuple[apsw.Connection, apsw.Connection],
) -> None:
    with pytest.raises(apsw.TooBigError):
        both[1].execute("SELECT replace(?, 'a', ?)", ("a" * 1_000_000, "b" * 1_000_000)).fetchall()
    exact = "b" * (VALUE_BYTES_MAX - 1)
    assert both[1].execute("SELECT replace('a', 'a', ?)", (exact,)).fetchall() == [(exact,)]


def test_they_may_stand_in_the_schema(both: tuple[apsw.Connection, apsw.Connection]) -> None:
    ours = both[1]
    ours.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    ours.execute("CREATE TABLE s (a, b AS (replace(a, 'x', 'y')), CHECK (trim(a, ' ') = a))")
    ours.execute("CREATE INDEX i ON s (instr(a, 'x'))")
    ours.execute("INSERT INTO s VALUES ('axa')")
    assert ours.execute("SELECT b FROM s WHERE instr(a, 'x') = 2").fetchall() == [("aya",)]
