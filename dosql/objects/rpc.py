"""RpcMethods: which methods of a class may be called from outside, and with what.

Public methods, sync or async, that the class or a base of it defines. Never: names with a leading
underscore, the handlers of events, what `DurableObject` itself has, what the class or a base of it
lists in ``not_rpc``, properties, attributes, classes, static and class methods.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cached_property
from types import FunctionType
from typing import Any, get_args, get_origin

from dosql.errors import DosqlError, InvalidRequestError, NotFoundError, ObjectError
from dosql.objects.durable_object import DurableObject
from dosql.rpc import annotations_of, convert, decode_call, encode_result

HANDLERS = frozenset(
    {
        "fetch",
        "alarm",
        "websocket_message",
        "websocket_close",
        "websocket_error",
        "pre_shutdown",
    }
)
"""Called by the host when something happens, never by name."""
_KEPT_AS = "_dosql_rpc_methods"
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class RpcMethod:
    """One method and its parameters, read once."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self.function = function
        """As the class has it: its first parameter is the object."""
        self.may_wait = inspect.iscoroutinefunction(function)
        """Whether its code can be expected to wait for something."""

    @cached_property
    def parameters(self) -> Parameters:
        """Raises InvalidRequestError (``invalid_annotation``): see `annotations_of`."""
        return Parameters(self.name, self.function)

    @cached_property
    def returns(self) -> Any:
        """The annotation of what the caller gets; Any without one.

        Raises:
            InvalidRequestError: ``invalid_annotation``.
        """
        returned = annotations_of(self.function).get("return", Any)
        return get_args(returned)[-1] if _is_awaitable(returned) else returned

    def decode_arguments(self, body: bytes) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a call, converted to what the annotations say.

        Raises:
            InvalidRequestError: ``invalid_arguments``, naming the parameter; ``invalid_json``,
                ``invalid_request`` for a body that is no call.
        """
        args, kwargs = decode_call(body)
        return self.parameters.fit(args, kwargs)

    def encode_result(self, value: Any) -> bytes:
        """The body of the reply. Raises InvalidRequestError: ``result_not_sendable``."""
        return encode_result(value)


class Parameters:
    """What a method takes, without the object itself."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        annotations = annotations_of(function)
        self._method = name
        self._positional: list[str] = []
        self._named: set[str] = set()
        self._required: list[str] = []
        self._annotations: dict[str, Any] = {}
        self._rest: str | None = None
        """The name of ``*args``."""
        self._others: str | None = None
        """The name of ``**kwargs``."""
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            self._annotations[parameter.name] = annotations.get(parameter.name, Any)
            if parameter.kind is parameter.VAR_POSITIONAL:
                self._rest = parameter.name
                continue
            if parameter.kind is parameter.VAR_KEYWORD:
                self._others = parameter.name
                continue
            if parameter.kind in _POSITIONAL:
                self._positional.append(parameter.name)
            if parameter.kind in _NAMED:
                self._named.add(parameter.name)
            if parameter.default is parameter.empty:
                self._required.append(parameter.name)

    def fit(self, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The same arguments, checked and converted.

        Raises:
            InvalidRequestError: ``invalid_arguments``.
        """
        given = self._positional[: len(args)]
        if len(args) > len(given):
            if self._rest is None:
                raise self._unfit(
                    f"takes {len(self._positional)} positional arguments, not {len(args)}"
                )
            rest: Iterable[str] = [self._rest] * (len(args) - len(given))
            names = [*given, *rest]
        else:
            names = given
        fitted = [self._convert(name, value) for name, value in zip(names, args, strict=True)]
        if kwargs:
            kwargs = self._fit_named(given, kwargs)
        for name in self._required:
            if name not in given and name not in kwargs:
                raise self._unfit(f"needs the argument {name!r}")
        return fitted, kwargs

    def _fit_named(self, given: list[str], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        fitted: dict[str, Any] = {}
        for name, value in kwargs.items():
            if name in self._named:
                if name in given:
                    raise self._unfit(f"got the argument {name!r} twice")
                fitted[name] = self._convert(name, value)
            elif self._others is not None:
                fitted[name] = self._convert(self._others, value, shown=name)
            else:
                raise self._unfit(f"has no argument {name!r}")
        return fitted

    def _convert(self, name: str, value: Any, shown: str | None = None) -> Any:
        annotation = self._annotations[name]
        if annotation is Any:
            return value
        return convert(
            value, annotation, what=f"Argument {shown or name!r}", code="invalid_arguments"
        )

    def _unfit(self, what: str) -> InvalidRequestError:
        return InvalidRequestError(f"{self._method}() {what}.", code="invalid_arguments")


class RpcMethods:
    """The methods of one class that may be called."""

    def __init__(self, cls: type[DurableObject]) -> None:
        self._methods = {name: RpcMethod(name, function) for name, function in _public(cls)}

    @staticmethod
    def of(subclass: type[DurableObject]) -> RpcMethods:
        """Of this class; made once, and kept as long as the class itself."""
        kept: RpcMethods | None = vars(subclass).get(_KEPT_AS)
        if kept is None:
            kept = RpcMethods(subclass)
            setattr(subclass, _KEPT_AS, kept)
        return kept

    def __getitem__(self, name: str) -> RpcMethod:
        """Raises NotFoundError: ``method_not_found``; it does not tell which others there are."""
        method = self._methods.get(name)
        if method is None:
            raise NotFoundError(
                f"There is no method {name!r} that can be called.", code="method_not_found"
            )
        return method

    @property
    def names(self) -> list[str]:
        """All of them, those of the class itself first."""
        return list(self._methods)

    def resolve(self) -> None:
        """Read all signatures now, so that a wrong annotation is found at the start.

        Raises:
            InvalidRequestError: ``invalid_annotation``.
        """
        for method in self._methods.values():
            _ = method.parameters


def object_error(exc: Exception) -> DosqlError:
    """What a caller gets for an exception that the object's own code let through.

    Ours pass as they are; any other becomes an `ObjectError` that has it as its cause.
    """
    if isinstance(exc, DosqlError):
        return exc
    error = ObjectError(f"{type(exc).__name__}: {exc}")
    error.__cause__ = exc
    return error


def _is_awaitable(annotation: Any) -> bool:
    """``Awaitable[T]`` and ``Coroutine[Any, Any, T]``."""
    origin = get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Awaitable)


def _public(cls: type[DurableObject]) -> Iterable[tuple[str, Callable[..., Any]]]:
    """What each name means in the class as a whole: a property hides a base's method."""
    seen = {*HANDLERS, *(name for base in cls.__mro__ for name in vars(base).get("not_rpc", ()))}
    for base in cls.__mro__:
        if base is DurableObject or base is object:
            continue
        for name, value in vars(base).items():
            if name in seen:
                continue
            seen.add(name)
            if not name.startswith("_") and type(value) is FunctionType:
                yield name, value
