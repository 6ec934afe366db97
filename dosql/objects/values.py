"""Values: the codec of everything that an object stores under a key or attaches to a socket.

A stored value is one version byte, ``0x01``, and then MessagePack. What MessagePack has no form
for is an extension type of it; the payload of a container is again MessagePack:

====  ==========================  =============================================================
code  Python                      payload
====  ==========================  =============================================================
1     tuple                       array of the items
2     set                         array of the items, sorted by their encoding
3     frozenset                   the same
4     dict with unusual keys      array of key, value, key, value...
5     int beyond 64 bits          two's complement, big-endian, as short as possible
6     datetime                    ISO 8601 text; the IANA zone, if it has one, in [] behind it
7     date                        ISO 8601 text
8     time                        ISO 8601 text
9     timedelta                   array of days, seconds, microseconds
10    Decimal                     its text
11    UUID                        16 bytes
12    complex                     real and imaginary part, doubles, big-endian
====  ==========================  =============================================================

What comes out equals what went in and has its type, but that a bytearray comes out as bytes. The
same value always gives the same bytes, whatever the order of its sets. Nothing is ever executed
or imported by decoding: this is not pickle.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from msgspec.msgpack import Ext

from dosql.errors import CorruptError, InvalidRequestError
from dosql.limits import VALUE_DEPTH_MAX

VERSION = b"\x01"
"""First byte of every stored value."""

_TUPLE, _SET, _FROZENSET, _DICT, _INT, _DATETIME = range(1, 7)
_DATE, _TIME, _TIMEDELTA, _DECIMAL, _UUID, _COMPLEX = range(7, 13)

_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
_COMPLEX_PARTS = struct.Struct(">dd")
_DAMAGE = (
    msgspec.MsgspecError,
    ValueError,
    TypeError,
    ArithmeticError,
    struct.error,
    RecursionError,
)
"""What decoding raises for bytes that nobody encoded."""
_BUILTINS = (bytes, bytearray, datetime, date, time, timedelta, Decimal, UUID)
"""What msgspec leaves as it is when it takes a record apart."""

_encode = msgspec.msgpack.Encoder().encode


def encode_value(value: object, *, records: bool = False) -> bytes:
    """The value as bytes. With ``records`` a dataclass or msgspec.Struct, at any depth, becomes
    the dict of its fields; whoever reads it names the type to get it back.

    Raises:
        InvalidRequestError: ``value_not_storable``: a type that is not in the table above, text
            with a lone surrogate, a cycle, or more than VALUE_DEPTH_MAX levels.
    """
    if _is_plain(value, VALUE_DEPTH_MAX):
        try:
            return VERSION + _encode(value)
        except (OverflowError, UnicodeEncodeError):
            pass  # an int beyond 64 bits, or text that is not text: the long way tells them apart
    try:
        return VERSION + _encode(_Packer(records).pack(value, VALUE_DEPTH_MAX))
    except _Refused as refusal:
        raise InvalidRequestError(str(refusal), code="value_not_storable") from None


def decode_value(data: bytes) -> Any:
    """The value that `encode_value` was given.

    Raises:
        CorruptError: ``value_corrupt``: these are not bytes that it made.
    """
    if data[:1] != VERSION:
        raise CorruptError(
            "A stored value has an unknown format; a newer version may have written it.",
            code="value_corrupt",
        )
    try:
        return _decode(memoryview(data)[1:])
    except _DAMAGE as error:
        raise CorruptError("A stored value is damaged.", code="value_corrupt") from error


def _is_plain(value: object, depth: int) -> bool:
    """Whether MessagePack has a form for all of it, big integers and broken text aside."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is list:
        items: Iterable[object] = value  # type: ignore[assignment]
    elif kind is dict and _SCALARS.issuperset(map(type, value)):  # type: ignore[call-overload]
        items = value.values()  # type: ignore[attr-defined]
    else:
        return False
    if depth == 0:
        return False
    if _SCALARS.issuperset(map(type, items)):  # all compared at once, in C
        return True
    for item in items:
        if type(item) not in _SCALARS and not _is_plain(item, depth - 1):
            return False
    return True


class _Refused(Exception):
    """Why a value cannot be stored; on its way up it learns where that is."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self._why = why
        self._place = ""

    def inside(self, place: str) -> _Refused:
        self._place = place + self._place
        return self

    def __str__(self) -> str:
        return f"The value{' at ' * bool(self._place)}{self._place} {self._why}"


class _Packer:
    """Puts extension types in the place of what MessagePack does not know."""

    def __init__(self, records: bool) -> None:
        self._records = records

    def pack(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            return value if value.isascii() else _checked_text(value)
        if kind is int:
            return value if _INT_MIN <= value <= _INT_MAX else _pack_int(value)
        if kind in _SCALARS:
            return value
        if depth == 0:
            raise _Refused(f"is nested deeper than {VALUE_DEPTH_MAX} levels, or contains itself.")
        if kind is list:
            return self._items(value, depth)
        if kind is dict:
            return self._dict(value, depth)
        if kind is tuple:
            return Ext(_TUPLE, _encode(self._items(value, depth)))
        if kind is set or kind is frozenset:
            # Not records: what comes out must be hashable, and a dict is not.
            items = sorted(_encode(_STRICT.pack(item, depth - 1)) for item in value)
            code = _SET if kind is set else _FROZENSET
            return Ext(code, _encode([msgspec.Raw(item) for item in items]))
        pack = _PACKERS.get(kind)
        return self._record(value, depth) if pack is None else pack(value)

    def _items(self, items: Iterable[Any], depth: int) -> list[Any]:
        packed: list[Any] = []
        for index, item in enumerate(items):
            try:
                packed.append(self.pack(item, depth - 1))
            except _Refused as refusal:
                raise refusal.inside(f"[{index}]") from None
        return packed

    def _dict(self, value: dict[Any, Any], depth: int) -> dict[Any, Any] | Ext:
        packed: dict[Any, Any] = {}
        pairs: list[Any] = []
        for key, item in value.items():
            try:
                packed_key = _STRICT.pack(key, depth - 1)
                pairs.append(packed_key)
                pairs.append(self.pack(item, depth - 1))
            except _Refused as refusal:
                raise refusal.inside(f"[{_shown(key)}]") from None
            if type(packed_key) in _SCALARS:
                packed[packed_key] = pairs[-1]
        return packed if len(packed) == len(value) else Ext(_DICT, _encode(pairs))

    def _record(self, value: Any, depth: int) -> Any:
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
        is_record = isinstance(value, msgspec.Struct) or hasattr(kind, "__dataclass_fields__")
        if not is_record:
            raise _Refused(f"is a {name}, which cannot be stored.{_hint(value)}")
        if not self._records:
            raise _Refused(f"is a {name}; store the dict of its fields (msgspec.to_builtins).")
        try:
            fields = msgspec.to_builtins(value, builtin_types=_BUILTINS)
        except (TypeError, ValueError, RecursionError) as error:
            raise _Refused(f"is a {name} that cannot be stored: {error}.") from error
        return self.pack(fields, depth)


_STRICT = _Packer(records=False)


def _shown(key: object) -> str:
    text = repr(key)
    return text if len(text) <= 60 else text[:57] + "..."


def _hint(value: object) -> str:
    for base in (dict, list, tuple, set, str, bytes, int, float):
        if isinstance(value, base):
            return f" Convert it to a plain {base.__name__}."
    return ""


def _checked_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Refused("is a str with a lone surrogate, which is not text.") from None
    return text


def _pack_int(value: int) -> Ext:
    size = (value if value >= 0 else ~value).bit_length() // 8 + 1
    return Ext(_INT, value.to_bytes(size, "big", signed=True))


def _pack_datetime(value: datetime) -> Ext:
    text = value.isoformat()
    zone = value.tzinfo
    if isinstance(zone, ZoneInfo) and zone.key is not None:
        text += f"[{zone.key}]"
    return Ext(_DATETIME, text.encode())


def _pack_time(value: time) -> Ext:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise _Refused("is a time in a zone whose offset depends on the date: store a datetime.")
    return Ext(_TIME, value.isoformat().encode())


def _pack_timedelta(value: timedelta) -> Ext:
    return Ext(_TIMEDELTA, _encode([value.days, value.seconds, value.microseconds]))


_PACKERS: dict[type, Callable[[Any], Any]] = {
    bytearray: bytes,
    datetime: _pack_datetime,
    date: lambda value: Ext(_DATE, value.isoformat().encode()),
    time: _pack_time,
    timedelta: _pack_timedelta,
    Decimal: lambda value: Ext(_DECIMAL, str(value).encode()),
    UUID: lambda value: Ext(_UUID, value.bytes),
    complex: lambda value: Ext(_COMPLEX, _COMPLEX_PARTS.pack(value.real, value.imag)),
}


def _unpack(code: int, payload: memoryview) -> object:
    unpack = _UNPACKERS.get(code)
    if unpack is None:
        raise ValueError(f"unknown extension type {code}")
    return unpack(payload)


_decode = msgspec.msgpack.Decoder(ext_hook=_unpack).decode
_items_of = msgspec.msgpack.Decoder(list[Any], ext_hook=_unpack).decode


def _unpack_dict(payload: memoryview) -> dict[Any, Any]:
    pairs = _items_of(payload)
    return dict(zip(pairs[::2], pairs[1::2], strict=True))


def _unpack_datetime(payload: memoryview) -> datetime:
    text, bracket, key = _text(payload).partition("[")
    moment = datetime.fromisoformat(text)
    if not bracket:
        return moment
    try:
        zone = ZoneInfo(key.removesuffix("]"))
    except (OSError, LookupError):
        return moment  # this machine does not know the zone: the moment is right all the same
    for fold in (0, 1):
        local = moment.replace(tzinfo=zone, fold=fold)
        if local.utcoffset() == moment.utcoffset():
            return local
    return moment.astimezone(zone)  # the rules of the zone changed: the moment counts


def _unpack_timedelta(payload: memoryview) -> timedelta:
    days, seconds, microseconds = _items_of(payload)
    return timedelta(days, seconds, microseconds)


def _text(payload: memoryview) -> str:
    return str(payload, "utf-8")


_UNPACKERS: dict[int, Callable[[memoryview], object]] = {
    _TUPLE: lambda payload: tuple(_items_of(payload)),
    _SET: lambda payload: set(_items_of(payload)),
    _FROZENSET: lambda payload: frozenset(_items_of(payload)),
    _DICT: _unpack_dict,
    _INT: lambda payload: int.from_bytes(payload, "big", signed=True),
    _DATETIME: _unpack_datetime,
    _DATE: lambda payload: date.fromisoformat(_text(payload)),
    _TIME: lambda payload: time.fromisoformat(_text(payload)),
    _TIMEDELTA: _unpack_timedelta,
    _DECIMAL: lambda payload: Decimal(_text(payload)),
    _UUID: lambda payload: UUID(bytes=bytes(payload)),
    _COMPLEX: lambda payload: complex(*_COMPLEX_PARTS.unpack(payload)),
}
