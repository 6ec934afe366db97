"""The RPC codec: what goes in comes out, and what cannot travel is refused in words."""

from __future__ import annotations

import dataclasses
import math
import uuid
from collections import OrderedDict, namedtuple
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dosql.errors import InternalError, InvalidRequestError
from dosql.rpc import annotations_of, decode_call, decode_result, encode_call, encode_result

if TYPE_CHECKING:
    from fractions import Fraction


class Colour(Enum):
    RED = "red"


@dataclasses.dataclass
class Photo:
    taken: datetime
    content: bytes


class Point(msgspec.Struct):
    x: float
    y: float


class Guest(pydantic.BaseModel):
    name: str
    age: int


class Shout(str):
    def __str__(self) -> str:
        return self.upper()


Pair = namedtuple("Pair", ["left", "right"])

_TAGS = st.sampled_from(["$blob", "$float", "$dict"])
_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _TEXT | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(_TEXT | _TAGS, inner),
    max_leaves=20,
)
"""What comes back the same without any annotation."""


def sent(value: Any, annotation: Any = Any) -> Any:
    return decode_result(encode_result(value), annotation)


@given(values)
def test_a_result_of_plain_values_comes_back_the_same(value: Any) -> None:
    assert sent(value) == value
    assert type(sent(value)) is type(value)


@given(st.lists(values), st.dictionaries(_TEXT, values))
def test_arguments_of_plain_values_come_back_the_same(
    args: list[Any], kwargs: dict[str, Any]
) -> None:
    assert decode_call(encode_call(args, kwargs)) == (args, kwargs)


def test_a_nan_stays_a_nan_instead_of_becoming_null() -> None:
    assert math.isnan(sent(math.nan))
    assert math.isnan(sent([math.nan])[0])
    assert sent({"x": -math.inf}) == {"x": -math.inf}


def test_arguments_and_results_look_like_this_on_the_wire() -> None:
    assert encode_call((1, "a"), {"by": 2}) == b'{"args":[1,"a"],"kwargs":{"by":2}}'
    assert encode_result(None) == b'{"result":null}'
    assert encode_result(b"\x00\xff") == b'{"result":{"$blob":"AP8="}}'
    assert encode_result(math.nan) == b'{"result":{"$float":"NaN"}}'
    assert encode_result({"$blob": "x"}) == b'{"result":{"$dict":{"$blob":"x"}}}'


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (Photo(datetime(2026, 1, 2, tzinfo=UTC), b"\x89PNG"), Photo),
        ([Point(1.5, math.inf)], list[Point]),
        (Guest(name="Ann", age=30), Guest),
        ({"host": Guest(name="Bob", age=40)}, dict[str, Guest]),
        (Colour.RED, Colour),
        ({1: "one", 2: "two"}, dict[int, str]),
        ((1, "a", b"x"), tuple[int, str, bytes]),
        ({b"x", b"y"}, set[bytes]),
        (uuid.UUID(int=7), uuid.UUID),
        (Decimal("1.10"), Decimal),
        (timedelta(minutes=5), timedelta),
        (None, None),
        (3, int | None),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, type) else "",
)
def test_an_annotation_gives_a_value_its_own_type_back(value: Any, annotation: Any) -> None:
    assert sent(value, annotation) == value


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ((1, 2), [1, 2]),
        ({3}, [3]),
        ({1: 2}, {"1": 2}),
        (Point(1.0, 2.0), {"x": 1.0, "y": 2.0}),
        (Pair(1, b"2"), [1, b"2"]),
        (OrderedDict(a=[b"1"]), {"a": [b"1"]}),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (Shout("hi"), "hi"),
        ([Shout("hi"), True], ["hi", True]),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
    ],
)
def test_without_an_annotation_a_value_comes_as_the_nearest_plain_one(
    value: Any, plain: Any
) -> None:
    assert sent(value) == plain


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), "a value of type object has no form that travels"),
        ([1, {"deep": lambda: 0}], "a value of type function has no form that travels"),
        ("\ud800", "lone surrogate"),
        ({"x": "\ud800"}, "lone surrogate"),
        ({(1, 2): 3}, "keys"),
        (1 + 2j, "complex"),
    ],
    ids=lambda value: "",
)
def test_what_cannot_travel_is_refused_and_named(value: Any, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words) as refused:
        encode_result(value)
    assert refused.value.code == "result_not_sendable"
    with pytest.raises(InvalidRequestError, match=words) as refused:
        encode_call((), {"value": value})
    assert refused.value.code == "invalid_arguments"


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidRequestError, match="holds itself"):
        encode_result(loop)


@pytest.mark.parametrize(
    ("value", "annotation", "words"),
    [
        ("7", int, "The result does not fit: Expected `int`, got `str`"),
        ({"x": 1, "y": "b"}, Point, "got `str` - at `y`"),
        ({"name": "Ann", "age": "old"}, Guest, "`age`: Input should be a valid integer"),
        (1, print, "annotated with a type that cannot be sent"),
    ],
)
def test_a_result_that_does_not_fit_is_refused(value: Any, annotation: Any, words: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        sent(value, annotation)
    assert refused.value.code == "result_mismatch"
    assert words in refused.value.message


def test_a_call_without_a_body_has_no_arguments() -> None:
    assert decode_call(b"") == ([], {})
    assert decode_call(b"{}") == ([], {})
    assert decode_call(b'{"kwargs":{"a":1}}') == ([], {"a": 1})


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_json"),
        (b"\xff", "invalid_json"),
        (b'{"args":' + b"[" * 50_000, "invalid_json"),
        (b"[]", "invalid_request"),
        (b'{"args":{}}', "invalid_request"),
        (b'{"arg":[]}', "invalid_request"),
        (b'{"args":[{"$blob":"%"}]}', "invalid_arguments"),
        (b'{"args":[[{"$blob":1}]]}', "invalid_arguments"),
        (b'{"kwargs":{"a":{"$float":"1"}}}', "invalid_arguments"),
    ],
)
def test_a_body_that_is_no_call_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        decode_call(body)
    assert refused.value.code == code


@given(st.binary())
def test_any_bytes_are_a_call_or_are_refused(body: bytes) -> None:
    with suppress(InvalidRequestError):
        decode_call(body)


@pytest.mark.parametrize("body", [b"", b"{}", b"<html>", b'{"result":{"$blob":1}}', b"\xff"])
def test_a_reply_that_is_not_ours_is_an_error_of_its_own(body: bytes) -> None:
    with pytest.raises(InternalError) as raised:
        decode_result(body)
    assert raised.value.code == "invalid_reply"


def test_an_annotation_that_exists_only_for_type_checkers_is_found_out() -> None:
    def divide(by: Fraction) -> int:
        return int(by)

    with pytest.raises(InvalidRequestError, match=r"divide cannot be resolved: .*Fraction") as exc:
        annotations_of(divide)
    assert exc.value.code == "invalid_annotation"
