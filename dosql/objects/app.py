"""App and Env: the classes that a program registers, and how its code reaches their objects.

A program makes one App. Everything that could be forgotten is checked once, at the start: what is
used is registered, and what is registered has all that it needs.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, get_args, overload

from dosql.durability import DURABILITIES, Durability
from dosql.errors import ConflictError, InvalidRequestError
from dosql.fetch import Request, Response
from dosql.objects.durable_object import DurableObject
from dosql.objects.rpc import RpcMethods
from dosql.rpc import annotations_of

ClassT = TypeVar("ClassT", bound=type[DurableObject])
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}", re.ASCII)
_WORD_BEGINS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", re.ASCII)
_REGISTERED = "_dosql_registered"
"""Attribute of a class that some app has registered: a module may have several apps."""
_RESERVED = frozenset({"tenant-database"})


class FetchContext(Protocol):
    """``ctx`` of a handler that `App.fetch` registered."""

    @property
    def request_id(self) -> str:
        """As in the log and in the reply's X-Request-ID."""
        ...

    def wait_until(self, awaitable: Awaitable[object]) -> None:
        """Let this go on after the reply; the server waits for it when it stops."""
        ...


FetchHandler = Callable[[Request, Any, FetchContext], Awaitable[Response] | Response]
FetchT = TypeVar("FetchT", bound=FetchHandler)


class Env:
    """What code is given by name: a namespace for each registered class, and plain values.

    ``env.CHAT_ROOM`` is the namespace of the class ``ChatRoom``. A subclass with annotations gives
    types, other names, and a check at the start that nothing is missing::

        class Bindings(Env):
            COUNTER: Namespace[Counter]
            GREETING: str
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.__dict__.update(values)

    if not TYPE_CHECKING:  # type checkers are to find a misspelt name

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            raise AttributeError(
                f"Durable Object binding not configured: env.{name}. Register the class with "
                "@app.durable_object, or pass the value: App(vars={...}).",
                name=name,
                obj=self,
            )


@dataclass(frozen=True, slots=True)
class Registration:
    """One class under one namespace."""

    namespace: str
    binding: str
    """Its name on ``env``."""
    cls: type[DurableObject]
    durability: Durability | None = None
    """What its replies wait for; None: what the server's do."""


class App:
    """The classes of a program, its public door, and its settings.

    ``vars`` are plain values on ``env``. Mistakes raise InvalidRequestError ``app_invalid`` where
    they are made, and `check` finds the rest.
    """

    def __init__(
        self, env: type[Env] | None = None, *, vars: Mapping[str, object] | None = None
    ) -> None:
        self.env_class: type[Env] = Env if env is None else env
        self.vars: dict[str, object] = dict(vars or {})
        self.fetch_handler: FetchHandler | None = None
        self.mounted: AsgiApp | None = None
        self._registrations: dict[str, Registration] = {}
        self._env: Env | None = None

    @property
    def registrations(self) -> Mapping[str, Registration]:
        """By namespace, in the order in which they were made."""
        return MappingProxyType(self._registrations)

    @property
    def env(self) -> Any:
        """What objects get as ``env``; for code outside of them.

        Raises:
            ConflictError: ``app_not_started``: nothing runs the app yet.
        """
        if self._env is None:
            raise ConflictError(
                "app.env is there once the app runs: start it with `dosql serve --app`, or in a "
                "test with dosql.testing.",
                code="app_not_started",
            )
        return self._env

    @overload
    def durable_object(
        self, cls: ClassT, /, *, name: str | None = None, durability: Durability | None = None
    ) -> ClassT: ...
    @overload
    def durable_object(
        self, /, *, name: str | None = None, durability: Durability | None = None
    ) -> Callable[[ClassT], ClassT]: ...
    def durable_object(
        self, cls: Any = None, /, *, name: str | None = None, durability: Durability | None = None
    ) -> Any:
        """Register a class: ``@app.durable_object`` or ``@app.durable_object(name="...")``.

        Its namespace is ``name``, else the class name in kebab-case: ``ChatRoom`` is
        ``chat-room``, on env ``CHAT_ROOM``. Objects are found under their namespace for ever, so
        whoever renames a class keeps its ``name``.

        ``durability`` is what the replies of its objects wait for: ``"local"``, the disk of the
        machine, or ``"bucket"``, the bucket as well; None: what the server is set to.
        """
        if cls is not None:
            return self._register(cls, name, durability)
        return lambda cls: self._register(cls, name, durability)

    def fetch(self, handler: FetchT) -> FetchT:
        """Register the public door: ``async def fetch(request, env, ctx) -> Response``.

        It gets every request that the server has no route of its own for, without any
        authentication: who may enter is for its code to decide.
        """
        self._check_no_door()
        if not _takes_three(handler):
            raise _invalid("@app.fetch is for `async def fetch(request, env, ctx)`")
        self.fetch_handler = handler
        return handler

    def mount(self, asgi_app: AsgiApp) -> None:
        """Instead of `fetch`: an ASGI application (Litestar, Starlette...) as the public door."""
        self._check_no_door()
        self.mounted = asgi_app

    def bind(self, namespaces: Mapping[str, Any]) -> Any:
        """Make the env of an app that begins to run. ``namespaces``: one for each registration,
        by its namespace."""
        values: dict[str, Any] = dict(self.vars)
        for registration in self._registrations.values():
            values[registration.binding] = namespaces[registration.namespace]
        for name, cls in self._annotated():
            if cls is not None and name not in values:
                values[name] = namespaces[self._of_class(name, cls).namespace]
        self._env = self.env_class(values)
        return self._env

    def check(self, *modules: str) -> None:
        """Find everything that would fail later, before the first request.

        ``modules``: names of modules whose classes must be registered; those of registered
        classes are looked through in any case.

        Raises:
            InvalidRequestError: ``app_invalid``, with what to add and where;
                ``invalid_annotation``.
        """
        classes = {registration.cls for registration in self._registrations.values()}
        for module in {*modules, *(cls.__module__ for cls in classes)}:
            for cls in _defined_in(module):
                if _REGISTERED not in vars(cls) and not any(issubclass(c, cls) for c in classes):
                    raise _invalid(
                        f"{module}.{cls.__qualname__} is a DurableObject that no app has "
                        f"registered: write @app.durable_object above `class {cls.__name__}`, or "
                        "begin its name with an underscore if nothing is to run it"
                    )
        for cls in classes:
            RpcMethods.of(cls).resolve()
        bindings = {registration.binding for registration in self._registrations.values()}
        for name in self.vars:
            if not name.isidentifier() or name in bindings:
                raise _invalid(f"App(vars=...) cannot set env.{name}: the name is taken or is none")
        for name, annotated in self._annotated():
            if annotated is not None:
                self._of_class(name, annotated)
            elif name not in self.vars and not hasattr(self.env_class, name):
                raise _invalid(
                    f"{self.env_class.__name__}.{name} has no value: pass it in App(vars=...)"
                )

    def _register(
        self, cls: object, name: str | None, durability: Durability | None
    ) -> type[DurableObject]:
        if not (isinstance(cls, type) and issubclass(cls, DurableObject)) or cls is DurableObject:
            raise _invalid(f"@app.durable_object is for subclasses of DurableObject, not {cls!r}")
        namespace = kebab_case(cls.__name__) if name is None else name
        if not _NAME.fullmatch(namespace):
            raise _invalid(
                f"{namespace!r} cannot be the namespace of {cls.__qualname__}: give it one of a-z, "
                '0-9 and "-" that begins with a letter: @app.durable_object(name="...")'
            )
        if namespace in _RESERVED:
            raise _invalid(f"The namespace {namespace!r} is dosql's own")
        if durability is not None and durability not in DURABILITIES:
            raise _invalid(
                f"The durability of {cls.__qualname__} must be "
                f"{' or '.join(map(repr, DURABILITIES))}, not {durability!r}"
            )
        binding = namespace.replace("-", "_").upper()
        for other in self._registrations.values():
            if binding == other.binding:
                raise _invalid(
                    f"{other.cls.__qualname__} and {cls.__qualname__} would both be the namespace "
                    f'{other.namespace!r}: give one of them a name: @app.durable_object(name="...")'
                )
        setattr(cls, _REGISTERED, True)
        self._registrations[namespace] = Registration(namespace, binding, cls, durability)
        return cls

    def _check_no_door(self) -> None:
        if self.fetch_handler is not None or self.mounted is not None:
            raise _invalid("An app has one public door: one app.fetch, or one app.mount")

    def _annotated(self) -> Iterator[tuple[str, type[DurableObject] | None]]:
        """Names on the env class; with the class if it is a namespace, else None."""
        if self.env_class is Env:
            return
        for name, annotation in annotations_of(self.env_class).items():
            first = next(iter(get_args(annotation)), None)
            is_class = isinstance(first, type) and issubclass(first, DurableObject)
            yield name, first if is_class else None

    def _of_class(self, name: str, cls: type[DurableObject]) -> Registration:
        """The registration that an annotation of env means."""
        found = [entry for entry in self._registrations.values() if entry.cls is cls]
        for entry in found:
            if len(found) == 1 or entry.binding == name:
                return entry
        if found:
            raise _invalid(
                f"env.{name}: {cls.__qualname__} has several namespaces; use their names"
            )
        raise _invalid(
            f"{self.env_class.__name__}.{name} is a namespace of {cls.__qualname__}, which is not "
            f"registered: write @app.durable_object above `class {cls.__name__}`"
        )


def kebab_case(name: str) -> str:
    """``ChatRoom`` to ``chat-room``, ``HTTPCache`` to ``http-cache``, ``Counter2`` to
    ``counter2``."""
    return _WORD_BEGINS.sub("-", name).replace("_", "-").lower()


def _defined_in(module: str) -> Iterator[type[DurableObject]]:
    """Classes of durable objects that the module itself defines and means to be used."""
    for value in list(vars(sys.modules[module]).values()) if module in sys.modules else ():
        if (
            isinstance(value, type)
            and issubclass(value, DurableObject)
            and value.__module__ == module
            and not value.__name__.startswith("_")
            and not inspect.isabstract(value)
        ):
            yield value


def _takes_three(handler: object) -> bool:
    if not callable(handler):
        return False
    try:
        inspect.signature(handler).bind(None, None, None)
    except TypeError:
        return False
    return True


def _invalid(what: str) -> InvalidRequestError:
    return InvalidRequestError(f"{what}.", code="app_invalid")
