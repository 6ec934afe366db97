"""What a program registers, and what is found before its first request."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from dosql.errors import ConflictError, InvalidRequestError
from dosql.fetch import Request, Response
from dosql.host.namespace import Namespace
from dosql.objects.app import App, Env, kebab_case
from dosql.objects.durable_object import DurableObject


class ChatRoom(DurableObject): ...


class Counter(DurableObject): ...


async def door(request: Request, env: Any, ctx: Any) -> Response:
    return Response("")


async def asgi_app(scope: Any, receive: Any, send: Any) -> None: ...


def refusal(attempt: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        attempt(*args, **kwargs)
    assert caught.value.code == "app_invalid"
    return caught.value.message


@pytest.fixture
def module() -> Iterator[ModuleType]:
    """A module of the test's own, as a program's would be."""
    made = ModuleType("program_of_a_test")
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


def defined(module: ModuleType, name: str, *bases: type) -> Any:
    """A class as if the module had its ``class`` statement."""
    cls = type(name, bases or (DurableObject,), {"__module__": module.__name__})
    setattr(module, name, cls)
    return cls


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "namespace"),
    [
        ("Room", "room"),
        ("ChatRoom", "chat-room"),
        ("Counter2", "counter2"),
        ("HTTPCache", "http-cache"),
        ("Room2D", "room2-d"),
        ("my_room", "my-room"),
    ],
)
def test_a_namespace_is_the_class_name_in_kebab_case(name: str, namespace: str) -> None:
    assert kebab_case(name) == namespace


def test_a_class_is_found_under_its_namespace_and_its_binding() -> None:
    app = App()
    assert app.durable_object(ChatRoom) is ChatRoom
    assert app.durable_object(name="tally")(Counter) is Counter
    found = {(each.namespace, each.binding, each.cls) for each in app.registrations.values()}
    assert found == {("chat-room", "CHAT_ROOM", ChatRoom), ("tally", "TALLY", Counter)}


@pytest.mark.parametrize("name", ["", "Room", "1room", "-room", "a/b", "a_b", "x" * 64, "räume"])
def test_a_name_that_cannot_be_in_a_url_is_refused(name: str) -> None:
    assert "@app.durable_object(name=" in refusal(App().durable_object(name=name), Counter)


def test_a_name_is_given_once() -> None:
    app = App()
    app.durable_object(Counter)
    other = type("Counter", (DurableObject,), {})
    assert "would both be the namespace 'counter'" in refusal(app.durable_object, other)
    assert "dosql's own" in refusal(app.durable_object(name="tenant-database"), ChatRoom)


@pytest.mark.parametrize("thing", [object, DurableObject, 5, lambda: None])
def test_only_classes_of_durable_objects_are_registered(thing: Any) -> None:
    assert "subclasses of DurableObject" in refusal(App().durable_object, thing)


# --- env --------------------------------------------------------------------------------------


class Bindings(Env):
    COUNTER: Namespace[Counter]
    ROOMS: Namespace[ChatRoom]
    GREETING: str
    LIMIT: int = 10


def complete() -> App:
    app = App(Bindings, vars={"GREETING": "hello"})
    app.durable_object(Counter)
    app.durable_object(ChatRoom)
    return app


def test_env_has_every_namespace_under_its_own_and_its_annotated_name() -> None:
    app = complete()
    app.check(__name__)
    env = app.bind({"counter": "counters", "chat-room": "rooms"})
    assert isinstance(env, Bindings)
    assert (env.COUNTER, env.ROOMS, env.CHAT_ROOM) == ("counters", "rooms", "rooms")  # type: ignore[comparison-overlap,attr-defined]
    assert (env.GREETING, env.LIMIT) == ("hello", 10)
    assert app.env is env


def test_a_binding_that_is_missing_says_what_to_add() -> None:
    env = Env({})
    with pytest.raises(AttributeError, match="Durable Object binding not configured") as caught:
        env.COUNTER  # type: ignore[attr-defined]  # noqa: B018
    assert "@app.durable_object" in str(caught.value)
    assert not hasattr(env, "COUNTER")


def test_env_is_there_once_the_app_runs() -> None:
    app = complete()
    with pytest.raises(ConflictError) as caught:
        app.env  # noqa: B018
    assert caught.value.code == "app_not_started"


# --- the check at the start -------------------------------------------------------------------


def test_a_class_that_is_used_but_not_registered_is_named(module: ModuleType) -> None:
    app = App(Bindings, vars={"GREETING": "hello"})
    app.durable_object(defined(module, "Something"))
    message = refusal(app.check, module.__name__)
    assert "Bindings.COUNTER is a namespace of Counter, which is not registered" in message
    assert "write @app.durable_object above `class Counter`" in message


def test_a_class_that_is_defined_but_not_registered_is_named(module: ModuleType) -> None:
    app = App()
    defined(module, "Forgotten")
    message = refusal(app.check, module.__name__)
    assert "program_of_a_test.Forgotten is a DurableObject" in message
    assert "write @app.durable_object above `class Forgotten`" in message


def test_modules_of_registered_classes_are_looked_through_too(module: ModuleType) -> None:
    app = App()
    app.durable_object(defined(module, "Registered"))
    defined(module, "Forgotten")
    assert "Forgotten" in refusal(app.check)


def test_bases_private_abstract_and_imported_classes_need_no_registration(
    module: ModuleType,
) -> None:
    app = App()
    base = defined(module, "Base")
    app.durable_object(defined(module, "Derived", base))
    defined(module, "_Draft")

    class Abstract(DurableObject, ABC):
        @abstractmethod
        def method(self) -> None: ...

    Abstract.__module__ = module.__name__
    module.Abstract = Abstract  # type: ignore[attr-defined]
    module.ChatRoom = ChatRoom  # type: ignore[attr-defined]
    app.check(module.__name__)


def test_a_value_of_env_must_come_from_somewhere() -> None:
    app = complete()
    del app.vars["GREETING"]
    assert "Bindings.GREETING has no value: pass it in App(vars=...)" in refusal(app.check)


def test_vars_do_not_hide_bindings() -> None:
    app = complete()
    app.vars["COUNTER"] = 1
    assert "env.COUNTER" in refusal(app.check)


def test_a_class_with_several_namespaces_is_bound_by_their_names() -> None:
    app = complete()
    app.durable_object(name="second")(Counter)
    app.check()
    assert app.bind(dict.fromkeys(app.registrations)).SECOND is None

    class Ambiguous(Env):
        NUMBERS: Namespace[Counter]

    app = App(Ambiguous)
    app.durable_object(Counter)
    app.durable_object(name="second")(Counter)
    assert "several namespaces" in refusal(app.check)


# --- the door ---------------------------------------------------------------------------------


def test_there_is_one_public_door() -> None:
    app = App()
    assert app.fetch(door) is door
    assert "one public door" in refusal(app.fetch, door)
    assert "one public door" in refusal(app.mount, asgi_app)
    app = App()
    app.mount(asgi_app)
    assert "one public door" in refusal(app.fetch, door)


def test_the_door_takes_request_env_and_ctx() -> None:
    async def narrow(request: Request) -> Response:
        return Response("")

    assert "async def fetch(request, env, ctx)" in refusal(App().fetch, narrow)
    assert "async def fetch(request, env, ctx)" in refusal(App().fetch, "text")
