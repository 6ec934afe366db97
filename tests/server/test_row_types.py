"""Large results are encoded another way than small ones, and look the same."""

from __future__ import annotations

import json

import pytest

from dosql.sqlite.rows import Rows
from server.sql_work import PLAIN, ReplyFormat, _encode, _table

NAMES = [
    ("a", "b"),
    ("class", "__init__"),
    ("", " "),
    ("naïve", "日本"),
    ('quo"te', "back\\slash"),
    ("new\nline", "nul\0"),
    ("a", "a"),
    tuple(f"c{number}" for number in range(200)),
]


@pytest.mark.parametrize("columns", NAMES, ids=lambda columns: repr(columns)[:20])
@pytest.mark.parametrize("form", [PLAIN, ReplyFormat(int_as_text=True)])
def test_many_rows_are_encoded_as_few_are(columns: tuple[str, ...], form: ReplyFormat) -> None:
    values = (1, None, "text", b"blob", 2**60, float("inf"))
    row = tuple(values[number % len(values)] for number in range(len(columns)))
    few = json.loads(_encode(_table(Rows(columns, [row]), form)))
    many = json.loads(_encode(_table(Rows(columns, [row] * 500), form)))
    assert many == {"rows": few["rows"] * 500}
    assert list(many["rows"][0]) == list(dict.fromkeys(columns))
