"""The codec of stored values: what goes in comes out, and the bytes never change their meaning."""

from __future__ import annotations

import enum
import math
from collections import OrderedDict, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dosql.errors import CorruptError, InvalidRequestError
from dosql.limits import VALUE_DEPTH_MAX
from dosql.objects.values import VERSION, decode_value, encode_value

ZONES = st.sampled_from(
    [None, UTC, timezone(timedelta(hours=5, minutes=45)), ZoneInfo("Europe/Paris")]
)
HASHABLE: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**200), max_value=2**200)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes(timezones=ZONES)
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.complex_numbers(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=6,
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    HASHABLE | st.sets(HASHABLE, max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(), inner, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Equal, and of equal types all the way down: 1 is not True, nor 1.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return repr(a) == repr(b)  # tells 0.0 from -0.0
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))  # the order too
    if isinstance(a, (set, frozenset)):
        return a == b and sorted(map(str, map(type, a))) == sorted(map(str, map(type, b)))
    if isinstance(a, datetime):
        return a == b and a.utcoffset() == b.utcoffset() and a.isoformat() == b.isoformat()
    return bool(a == b)


@given(VALUES)
@example({"a": 2**64, "b": -(2**63) - 1})
@example([-0.0, math.inf, -math.inf, 2**64 - 1, -(2**63), "\U0010ffff\0", b""])
@example({1: "a", "1": "b", None: "c", 1.5: "d", b"x": "e"})
@example({(1, 2): {frozenset({3}): {4, 5}}})
@example(Decimal("-0E+5"))
def test_what_goes_in_comes_out(value: Any) -> None:
    assert same(decode_value(encode_value(value)), value)


@given(st.lists(HASHABLE, max_size=8, unique=True), st.randoms())
def test_equal_sets_have_equal_bytes(items: list[Any], random: Any) -> None:
    """Whatever the order in which Python happens to keep them."""
    shuffled = random.sample(items, len(items))
    assert encode_value(set(items)) == encode_value(set(shuffled))


def test_nan_and_signalling_decimals_survive() -> None:
    assert math.isnan(decode_value(encode_value(math.nan)))
    assert math.isnan(decode_value(encode_value({"x": (math.nan,)}))["x"][0])
    assert str(decode_value(encode_value(Decimal("-sNaN7")))) == "-sNaN7"


def test_a_bytearray_comes_out_as_bytes() -> None:
    assert same(decode_value(encode_value([bytearray(b"ab")])), [b"ab"])


GOLDEN = [
    (None, "01c0"),
    (True, "01c3"),
    (-1, "01ff"),
    (2**64 - 1, "01cfffffffffffffffff"),
    (2**64, "01c709050100000000 00000000"),
    (-(2**63) - 1, "01c70905ff7fffffffffffffff"),
    (1.5, "01cb3ff8000000000000"),
    ("é", "01a2c3a9"),
    (b"\x00", "01c40100"),
    ([1, "a"], "019201a161"),
    ({"a": [1]}, "0181a1619101"),
    ({1: 2}, "01810102"),
    ((1, 2), "01c70301920102"),
    ({2, 1}, "01c70302920102"),
    (frozenset({1}), "01d503 9101"),
    ({(): 0}, "01c70504 92 d40190 00"),
    (datetime(2026, 1, 31, 12), "01c71306" + b"2026-01-31T12:00:00".hex()),
    (
        datetime(2026, 1, 31, 12, tzinfo=ZoneInfo("Europe/Paris")),
        "01c72706" + b"2026-01-31T12:00:00+01:00[Europe/Paris]".hex(),
    ),
    (date(2026, 1, 31), "01c70a07" + b"2026-01-31".hex()),
    (time(12, 0, 0, 1), "01c70f08" + b"12:00:00.000001".hex()),
    (timedelta(days=-1, seconds=1, microseconds=2), "01d609 93ff0102"),
    (Decimal("1.50"), "01d60a" + b"1.50".hex()),
    (UUID(int=1), "01d80b" + "00" * 15 + "01"),
    (1 + 2j, "01d80c 3ff0000000000000 4000000000000000"),
]


@pytest.mark.parametrize(("value", "encoded"), GOLDEN, ids=range(len(GOLDEN)))
def test_the_format_does_not_change(value: Any, encoded: str) -> None:
    """These bytes are in people's databases."""
    data = bytes.fromhex(encoded)
    assert encode_value(value).hex() == data.hex()
    assert same(decode_value(data), value)


# --- time zones -------------------------------------------------------------------------------

PARIS = ZoneInfo("Europe/Paris")


@pytest.mark.parametrize("fold", [0, 1])
def test_both_passes_of_an_hour_that_comes_twice_are_told_apart(fold: int) -> None:
    moment = datetime(2026, 10, 25, 2, 30, tzinfo=PARIS, fold=fold)
    again = decode_value(encode_value(moment))
    assert (again.fold, again.utcoffset()) == (fold, moment.utcoffset())


def test_a_zone_stays_a_zone() -> None:
    """So that a day later is the same hour, also when the clocks change in between."""
    again = decode_value(encode_value(datetime(2026, 3, 28, 12, tzinfo=PARIS)))
    assert again.tzinfo == PARIS
    assert (again + timedelta(days=1)).utcoffset() == timedelta(hours=2)


def test_a_zone_that_this_machine_does_not_know_leaves_the_moment_right() -> None:
    text = b"2026-01-31T12:00:00+01:00[Mars/Olympus]"
    again = decode_value(VERSION + bytes([0xC7, len(text), 6]) + text)
    assert again == datetime(2026, 1, 31, 11, tzinfo=UTC)


def test_a_zone_whose_rules_changed_leaves_the_moment_right() -> None:
    text = b"2026-01-31T12:00:00+05:00[Europe/Paris]"
    again = decode_value(VERSION + bytes([0xC7, len(text), 6]) + text)
    assert again == datetime(2026, 1, 31, 7, tzinfo=UTC)
    assert again.tzinfo == PARIS


# --- what is refused --------------------------------------------------------------------------


@dataclass
class Point:
    x: int
    at: Any = None


@dataclass(frozen=True)
class Frozen:
    x: int


class Colour(enum.IntEnum):
    RED = 1


class Room(msgspec.Struct, rename="camel", tag=True):
    seat_count: int
    at: datetime | None = None


REFUSED: list[tuple[Any, str]] = [
    (object(), "The value is a object, which cannot be stored."),
    ({"users": [{"x": object()}]}, "The value at ['users'][0]['x'] is a object"),
    ([1, (2, {3: print})], "The value at [1][1][3] is a builtin_function_or_method"),
    (Colour.RED, "Colour, which cannot be stored. Convert it to a plain int."),
    (OrderedDict(a=1), "OrderedDict, which cannot be stored. Convert it to a plain dict."),
    ([defaultdict(int)], "defaultdict, which cannot be stored."),
    (Point(1), "Point; store the dict of its fields"),
    ({"\ud800": 1}, "is a str with a lone surrogate"),
    ([b"", "a\udfff"], "The value at [1] is a str with a lone surrogate"),
    ({Frozen(1)}, "Frozen; store the dict of its fields"),
    (time(12, tzinfo=PARIS), "is a time in a zone whose offset depends on the date"),
]


@pytest.mark.parametrize(("value", "said"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_stored_is_named_with_its_place(value: Any, said: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        encode_value(value)
    assert caught.value.code == "value_not_storable"
    assert said in caught.value.message


def nested(levels: int, *, plain: bool) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value] if plain else (value,)
    return value


@pytest.mark.parametrize("plain", [True, False])
def test_values_may_be_nested_so_deep_and_no_deeper(plain: bool) -> None:
    deep = nested(VALUE_DEPTH_MAX, plain=plain)
    assert decode_value(encode_value(deep)) == deep
    with pytest.raises(InvalidRequestError, match="nested deeper than 64 levels"):
        encode_value(nested(VALUE_DEPTH_MAX + 1, plain=plain))


@pytest.mark.parametrize("make", [lambda box: box, lambda box: {"a": box}, lambda box: (box,)])
def test_a_cycle_is_refused(make: Any) -> None:
    box: list[Any] = []
    box.append(make(box))
    with pytest.raises(InvalidRequestError, match="or contains itself"):
        encode_value(box)


# --- records ----------------------------------------------------------------------------------


def test_a_record_is_stored_as_the_dict_of_its_fields_if_asked() -> None:
    room = Room(2, datetime(2026, 1, 1))
    data = encode_value([Point(1, at=(room,))], records=True)
    fields = {"type": "Room", "seatCount": 2, "at": datetime(2026, 1, 1)}
    assert decode_value(data) == [{"x": 1, "at": (fields,)}]
    assert msgspec.convert(fields, Room) == room


def test_a_record_in_a_set_is_refused_for_a_dict_cannot_be_in_one() -> None:
    with pytest.raises(InvalidRequestError, match="Frozen"):
        encode_value({Frozen(1)}, records=True)
    with pytest.raises(InvalidRequestError, match="Frozen"):
        encode_value({(Frozen(1),): 1}, records=True)


def test_a_record_with_a_field_that_cannot_be_stored_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"\['p'\] is a .*Point that cannot be stored"):
        encode_value({"p": Point(1, at=object())}, records=True)


# --- damaged bytes ----------------------------------------------------------------------------


@given(st.binary(max_size=60))
@example(b"")
@example(b"\x01")
@example(b"\x02\xc0")
@example(b"\x01\xc0\xc0")
@example(b"\x01\xa1\xff")
@example(b"\x01" + b"\x91" * 5000)
@example(b"\x01\xdd\xff\xff\xff\xff")
@example(bytes.fromhex("01d40100"))
@example(bytes.fromhex("01c70402919100"))
@example(bytes.fromhex("01d50d0000"))
@example(b"\x01\xc7\x0a\x06[../../etc]")
def test_damaged_bytes_are_noticed_or_are_a_value(data: bytes) -> None:
    """Never another error, and never anything run."""
    with suppress(CorruptError):
        decode_value(data)


@pytest.mark.parametrize("encoded", [data for _, data in GOLDEN])
def test_bytes_that_are_cut_short_are_noticed(encoded: str) -> None:
    data = bytes.fromhex(encoded)
    for end in range(len(data)):
        with pytest.raises(CorruptError) as caught:
            decode_value(data[:end])
        assert caught.value.code == "value_corrupt"


def test_a_format_of_the_future_is_said_to_be_one() -> None:
    with pytest.raises(CorruptError, match="newer version"):
        decode_value(b"\x02\xc0")
