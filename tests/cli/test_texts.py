"""Parameters, durations, result tables and statements as text: pure functions."""

from __future__ import annotations

import math
from io import StringIO

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dosql.cli.durations import parse_duration
from dosql.cli.formats import Mode, literal, write_rows
from dosql.cli.output import printable
from dosql.cli.parameters import parse_params, parse_value
from dosql.cli.shell.statements import is_complete, split_statements, transaction_verb
from dosql.client import Rows
from dosql.wire.values import SqlValue


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        ("-1", -1),
        ("007", "007"),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", "9223372036854775808"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("1.", "1."),
        ("NaN", "NaN"),
        ("null", None),
        ("Null", "Null"),
        ("x'00fF'", b"\x00\xff"),
        ("x'0'", "x'0'"),
        ('"42"', "42"),
        ('"', '"'),
        ('"a" and "b"', '"a" and "b"'),
        ("", ""),
        ("ünï", "ünï"),
    ],
)
def test_a_parameter_is_what_it_looks_like(text: str, value: SqlValue) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_parameters_are_positional_or_named() -> None:
    assert parse_params([]) is None
    assert parse_params(["1", "a=b"]) == [1, "a=b"]
    assert parse_params([":a=1", "@b=x=y", "$c="]) == {"a": 1, "b": "x=y", "c": ""}
    with pytest.raises(ValueError, match="all positional"):
        parse_params(["1", ":a=1"])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45s", 45),
        ("30m", 1800),
        ("12h", 43_200),
        ("7d", 604_800),
        ("2w", 1_209_600),
        ("1h30m", 5400),
    ],
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


ROWS = Rows(
    ("id", "text", "id"), [(1, "a,b", None), (22, 'q"uo\nte', b"\xff"), (-1.5, "漢字", math.inf)]
)


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        (
            "column",
            "id    text      id\n"
            "----  --------  -----\n"
            "   1  a,b       NULL\n"
            "  22  q\"uo\\nte  x'ff'\n"
            "-1.5  漢字        inf\n",
        ),
        (
            "table",
            "+------+----------+-------+\n"
            "| id   | text     | id    |\n"
            "+------+----------+-------+\n"
            "|    1 | a,b      | NULL  |\n"
            "|   22 | q\"uo\\nte | x'ff' |\n"
            "| -1.5 | 漢字     |   inf |\n"
            "+------+----------+-------+\n",
        ),
        ("csv", 'id,text,id\n1,"a,b",\n22,"q""uo\nte",x\'ff\'\n-1.5,漢字,inf\n'),
        (
            "line",
            "  id = 1\ntext = a,b\n  id = NULL\n\n"
            "  id = 22\ntext = q\"uo\\nte\n  id = x'ff'\n\n"
            "  id = -1.5\ntext = 漢字\n  id = inf\n",
        ),
        (
            "json",
            '[{"id":null,"text":"a,b"},\n {"id":{"$blob":"/w=="},"text":"q\\"uo\\nte"},\n'
            ' {"id":{"$float":"Infinity"},"text":"漢字"}]\n',
        ),
    ],
)
def test_output_modes(mode: Mode, wanted: str) -> None:
    out = StringIO()
    write_rows(ROWS, mode, out)
    assert out.getvalue() == wanted


@pytest.mark.parametrize("mode", ["column", "csv", "json", "line", "table"])
def test_an_empty_result_is_printed_too(mode: Mode) -> None:
    out = StringIO()
    write_rows(Rows(("a",), []), mode, out)
    assert ("a" in out.getvalue()) == (mode in ("column", "csv", "table"))


@given(st.text())
def test_no_value_can_drive_the_terminal(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


VALUES = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.binary()
    | st.text(st.characters(codec="utf-8"))
)


@given(VALUES)
def test_a_literal_is_exactly_its_value(value: SqlValue) -> None:
    """As the server's SQLite reads it; 3.40 misses the last bit of some extreme reals."""
    connection = apsw.Connection(":memory:")
    ((back,),) = connection.execute(f"SELECT {literal(value)}").fetchall()
    connection.close()
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    ("text", "statements", "rest"),
    [
        ("", [], ""),
        ("SELECT 1", [], "SELECT 1"),
        ("SELECT 1;", ["SELECT 1"], ""),
        ("SELECT 1; SELECT\n2; SEL", ["SELECT 1", "SELECT\n2"], " SEL"),
        (";;\n;", [], "\n;"[2:]),
        ("SELECT ';'; x", ["SELECT ';'"], " x"),
        ("SELECT 'it''s;", [], "SELECT 'it''s;"),
        ('SELECT ";", [;], `;`;', ['SELECT ";", [;], `;`'], ""),
        ("-- a; b\nSELECT 1;", ["-- a; b\nSELECT 1"], ""),
        ("/* ; */ SELECT /* ; */ 1;", ["/* ; */ SELECT /* ; */ 1"], ""),
        ("-- only a comment;\n;", [], ""),
        ("SELECT 1; -- done", ["SELECT 1"], " -- done"),
        (
            "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; SELECT 2; END; SELECT 3;",
            ["CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; SELECT 2; END", "SELECT 3"],
            "",
        ),
    ],
)
def test_text_is_cut_where_statements_end(text: str, statements: list[str], rest: str) -> None:
    assert split_statements(text) == (statements, rest)


@given(st.lists(VALUES, min_size=1))
def test_no_value_can_cut_its_own_statement(values: list[SqlValue]) -> None:
    statement = f"SELECT {','.join(map(literal, values))}"
    assert split_statements(f"{statement}; {statement};") == ([statement, statement], "")


@pytest.mark.parametrize("text", ["", "  ", ".tables", "SELECT 1;", "SELECT 1; -- x", "-- x"])
def test_enter_runs_what_is_complete(text: str) -> None:
    assert is_complete(text)


@pytest.mark.parametrize("text", ["SELECT 1", "SELECT '", "SELECT 1; SELECT", "/* "])
def test_enter_goes_on_with_what_is_not(text: str) -> None:
    assert not is_complete(text)


@pytest.mark.parametrize(
    ("statement", "verb"),
    [
        ("BEGIN", "begin"),
        ("begin immediate transaction", "begin"),
        ("-- now\nBEGIN", "begin"),
        ("COMMIT", "commit"),
        ("END TRANSACTION", "commit"),
        ("ROLLBACK", "rollback"),
        ("ROLLBACK TRANSACTION", "rollback"),
        ("ROLLBACK TO a", None),
        ("ROLLBACK TRANSACTION TO SAVEPOINT a", None),
        ("SAVEPOINT a", None),
        ("SELECT 'BEGIN'", None),
        ("(", None),
    ],
)
def test_transaction_statements_are_recognised(statement: str, verb: str | None) -> None:
    assert transaction_verb(statement) == verb
