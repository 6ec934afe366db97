"""How SQLite's values look in JSON, both ways."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dosql.errors import InvalidRequestError
from dosql.wire.values import (
    INT64_MAX,
    INT64_MIN,
    decode_params,
    decode_rows,
    encode_params,
    encode_rows,
)

VALUES = st.one_of(
    st.none(),
    st.integers(INT64_MIN, INT64_MAX),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
)


@given(st.lists(VALUES))
def test_every_value_survives_the_way_in(values: list[Any]) -> None:
    body = msgspec.json.encode(encode_params(values))
    assert list(decode_params(msgspec.json.decode(body))) == values


@given(st.lists(st.tuples(VALUES, VALUES)))
def test_every_value_survives_the_way_out(rows: list[tuple[Any, Any]]) -> None:
    encoded = [dict(zip("ab", row, strict=True)) for row in encode_rows(rows)]
    body = msgspec.json.encode(encoded)
    assert decode_rows(msgspec.json.decode(body)) == [
        dict(zip("ab", row, strict=True)) for row in rows
    ]


@pytest.mark.parametrize(
    "params",
    [
        [[1]],
        [{}],
        [{"$blob": 1}],
        [{"$blob": "***"}],
        [{"$blob": "", "x": 1}],
        [{"$float": "Infinity"}],
        [2**63],
        [-(2**63) - 1],
        [math.inf],
        [math.nan],
        ["\ud800"],
        {"a": [1]},
    ],
)
def test_what_sqlite_cannot_store_is_refused(params: Any) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        decode_params(params)
    assert refusal.value.code == "invalid_parameter"


def test_integers_are_exact_and_on_request_text_beyond_what_javascript_can_count() -> None:
    rows = [(2**53, 2**53 + 1, -(2**63))]
    assert encode_rows(rows) == rows
    assert encode_rows(rows, int_as_text=True) == [[2**53, str(2**53 + 1), str(-(2**63))]]


def test_infinities_are_tagged() -> None:
    encoded = encode_rows([(math.inf, -math.inf, 1.5)])
    assert encoded == [[{"$float": "Infinity"}, {"$float": "-Infinity"}, 1.5]]
    assert decode_rows([{"a": encoded[0][0]}]) == [{"a": math.inf}]


@pytest.mark.parametrize("params", ["text", b"bytes"])
def test_text_is_not_a_list_of_parameters(params: Any) -> None:
    with pytest.raises(InvalidRequestError):
        encode_params(params)
