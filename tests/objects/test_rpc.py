"""Which methods can be called from outside, and what reaches them."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from dosql.errors import ConflictError, InvalidRequestError, NotFoundError, ObjectError
from dosql.objects.durable_object import DurableObject
from dosql.objects.rpc import RpcMethods, object_error
from dosql.rpc import encode_call


@dataclass
class Move:
    x: int
    y: int


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Mixin:
    def from_a_mixin(self) -> None: ...


class Base(DurableObject):
    def from_a_base(self) -> int:
        return 1

    def hidden_by_a_property(self) -> None: ...


class Board(Mixin, Base):
    size = 3
    callback = print

    class Piece:
        """Not a method."""

    def plain(self, a, b=2):  # type: ignore[no-untyped-def]
        return a + b

    async def move(self, to: Move, *others: Move, at: datetime | None = None, **scores: int) -> int:
        return 0

    def only(self, first: int, /, second: int, *, third: int = 0) -> str:
        return ""

    @traced
    async def wrapped(self, n: int) -> int:
        return n

    def later(self) -> Awaitable[int]:
        raise NotImplementedError

    def much_later(self) -> Coroutine[Any, Any, str]:
        raise NotImplementedError

    @property
    def hidden_by_a_property(self) -> int:  # type: ignore[override]
        return 1

    @staticmethod
    def static() -> None: ...

    @classmethod
    def of_the_class(cls) -> None: ...

    def _private(self) -> None: ...

    async def fetch(self, request: object) -> None: ...

    async def alarm(self, info: object) -> None: ...

    def websocket_message(self, ws: object, message: object) -> None: ...

    def websocket_close(self, *args: object) -> None: ...

    def websocket_error(self, *args: object) -> None: ...

    def pre_shutdown(self, reason: str) -> None: ...


METHODS = RpcMethods.of(Board)


def fit(name: str, *args: Any, **kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    return METHODS[name].decode_arguments(encode_call(args, kwargs))


def test_public_methods_can_be_called_also_those_of_bases_and_mixins() -> None:
    assert set(METHODS.names) == {
        "from_a_base",
        "from_a_mixin",
        "later",
        "move",
        "much_later",
        "only",
        "plain",
        "wrapped",
    }


@pytest.mark.parametrize(
    "name",
    [
        "_private",
        "__init__",
        "__class__",
        "fetch",
        "alarm",
        "websocket_message",
        "websocket_close",
        "websocket_error",
        "pre_shutdown",
        "static",
        "of_the_class",
        "hidden_by_a_property",
        "Piece",
        "size",
        "callback",
        "ctx",
        "env",
        "nonsense",
        "",
    ],
)
def test_nothing_else_can_be_called_and_the_refusal_does_not_say_what_could(name: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        METHODS[name]
    assert caught.value.code == "method_not_found"
    assert not any(method in caught.value.message for method in METHODS.names)


def test_every_class_has_its_own_methods() -> None:
    class Narrow(Board):
        plain = None  # type: ignore[assignment]

    assert "plain" not in RpcMethods.of(Narrow).names
    assert "plain" in RpcMethods.of(Board).names
    assert RpcMethods.of(Board) is METHODS


def test_arguments_become_what_the_annotations_say() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    args, kwargs = fit("move", Move(1, 2), Move(3, 4), at=at, ada=5)
    assert args == [Move(1, 2), Move(3, 4)]
    assert kwargs == {"at": at, "ada": 5}
    assert fit("plain", "a", b=None) == (["a"], {"b": None})
    assert fit("wrapped", n=1) == ([], {"n": 1})
    assert METHODS["from_a_base"].decode_arguments(b"") == ([], {})


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "message"),
    [
        ("move", [], {}, "move() needs the argument 'to'."),
        ("move", [1], {}, "Argument 'to' does not fit"),
        ("move", [{"x": 1}], {}, "Argument 'to' does not fit"),
        ("move", [{"x": 1, "y": 2}, 3], {}, "Argument 'others' does not fit"),
        ("move", [{"x": 1, "y": 2}], {"at": "soon"}, "Argument 'at' does not fit"),
        ("move", [{"x": 1, "y": 2}], {"ada": "5"}, "Argument 'ada' does not fit"),
        ("move", [{"x": 1, "y": 2}], {"to": {}}, "move() got the argument 'to' twice."),
        ("plain", [], {}, "plain() needs the argument 'a'."),
        ("plain", [1, 2, 3], {}, "plain() takes 2 positional arguments, not 3."),
        ("plain", [1], {"c": 3}, "plain() has no argument 'c'."),
        ("only", [1, 2, 3], {}, "only() takes 2 positional arguments, not 3."),
        ("only", [], {"first": 1, "second": 2}, "only() has no argument 'first'."),
        ("only", [True, 2], {}, "Argument 'first' does not fit"),
        ("from_a_base", [1], {}, "from_a_base() takes 0 positional arguments, not 1."),
    ],
)
def test_an_argument_that_does_not_fit_is_named(
    name: str, args: list[Any], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        METHODS[name].decode_arguments(encode_call(args, kwargs))
    assert caught.value.code == "invalid_arguments"
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_json"),
        (b'{"args": ' + b"[" * 100_000, "invalid_json"),
        (b"\xff", "invalid_json"),
        (b"[]", "invalid_request"),
        (b'{"args": {}}', "invalid_request"),
        (b'{"arguments": []}', "invalid_request"),
        (b'{"args": [{"$blob": "?"}]}', "invalid_arguments"),
    ],
)
def test_a_body_that_is_no_call_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        METHODS["plain"].decode_arguments(body)
    assert caught.value.code == code


def test_what_a_caller_gets_is_what_awaiting_the_method_gives() -> None:
    assert METHODS["from_a_base"].returns is METHODS["wrapped"].returns is int
    assert METHODS["later"].returns is int
    assert METHODS["much_later"].returns is str
    assert METHODS["plain"].returns is Any
    assert METHODS["from_a_mixin"].returns is type(None)


def test_an_annotation_that_names_nothing_is_found_when_the_class_is_looked_through() -> None:
    class Typed(DurableObject):
        def method(self, x: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
            ...

    with pytest.raises(InvalidRequestError) as caught:
        RpcMethods.of(Typed).resolve()
    assert caught.value.code == "invalid_annotation"
    assert "Nowhere" in caught.value.message and "Typed.method" in caught.value.message


def test_our_errors_pass_and_others_say_what_they_were() -> None:
    ours = ConflictError("taken", code="taken")
    assert object_error(ours) is ours
    theirs = ValueError("too small")
    error = object_error(theirs)
    assert isinstance(error, ObjectError)
    assert (error.message, error.code, error.remote) == (
        "ValueError: too small",
        "object_error",
        True,
    )
    assert error.__cause__ is theirs
    assert not ours.remote
