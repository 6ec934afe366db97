"""What every stub does, whichever way it goes to the object.

One suite for the stub inside of a host, the same over the testing kit's memory, the client over
HTTP, and the synchronous client. The program is tests/support/sample_app.py.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dosql.client import AsyncClient, Client
from dosql.errors import (
    ConflictError,
    DosqlError,
    InternalError,
    InvalidRequestError,
    LimitError,
    NotFoundError,
    ObjectError,
)
from dosql.fetch import Request
from dosql.ids import IdFactory
from dosql.testing.clock import ManualClock
from dosql.testing.memory_host import MemoryHost
from dosql.testing.memory_log import MemoryLog
from tests.contracts.faces import Face, ThreadedNamespace
from tests.support.hosts import running_host
from tests.support.sample_app import Caller, Photo, Point, Sample, app
from tests.support.server import ServerProcess

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def sample_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    data_dir = tmp_path_factory.mktemp("stubs") / "data"
    server = ServerProcess(data_dir, app="tests.support.sample_app:app")
    yield server
    server.kill()


@pytest.fixture(params=["inside", "memory", "http", "sync"])
async def face(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Face]:
    if request.param == "memory":
        clock = ManualClock()
        memory = MemoryHost(app, log=MemoryLog(), clock=clock, timers=clock)
        await memory.start()
        objects = memory.objects
        yield Face("memory", objects.namespace("sample"), objects.namespace("caller"))
        await memory.close()
        return
    if request.param == "inside":
        async with running_host(tmp_path, app=app) as host:
            objects = host.objects
            yield Face("inside", objects.namespace("sample"), objects.namespace("caller"))
        return
    server: ServerProcess = request.getfixturevalue("sample_server")
    if request.param == "http":
        async with AsyncClient(server.url, token=server.admin_token) as client:
            samples = client.namespace("sample", Sample)
            yield Face("http", samples, client.namespace("caller", Caller))
        return
    with Client(server.url, token=server.admin_token) as sync:
        samples_too = ThreadedNamespace(sync.namespace("sample", Sample))
        yield Face("sync", samples_too, ThreadedNamespace(sync.namespace("caller", Caller)))


@pytest.fixture
def name() -> str:
    """An object that no other test uses."""
    return f"sample-{next(_numbers)}"


@pytest.fixture
def sample(face: Face, name: str) -> Any:
    return face.samples.get_by_name(name)


# --- identity -----------------------------------------------------------------------------------


async def test_stubs_of_one_name_mean_one_object(face: Face, name: str) -> None:
    assert await face.samples.get_by_name(name).increment(2) == 2
    assert await face.samples.get_by_name(name).increment() == 3
    assert await face.samples.get(face.samples.id_from_name(name)).value() == 3


async def test_an_id_is_the_same_wherever_it_is_made(face: Face, name: str) -> None:
    wanted = IdFactory("sample").from_name(name)
    assert face.samples.id_from_name(name) == wanted == face.samples.get_by_name(name).id
    assert len(str(wanted)) == 64
    assert await face.callers.get_by_name("c").id_of(name) == str(wanted)


async def test_the_text_of_an_id_leads_to_the_same_object(face: Face, name: str) -> None:
    named = face.samples.get_by_name(name)
    await named.increment(5)
    id = face.samples.id_from_string(str(named.id))
    assert id == named.id
    assert id.name is None
    assert await face.samples.get(id).value() == 5


async def test_a_stub_knows_its_name(face: Face, name: str) -> None:
    assert face.samples.get_by_name(name).name == name
    assert face.samples.get(face.samples.id_from_name(name)).name == name
    assert face.samples.get(face.samples.new_unique_id()).name is None


async def test_unique_ids_are_objects_of_their_own(face: Face) -> None:
    first, second = face.samples.new_unique_id(), face.samples.new_unique_id()
    assert first != second
    assert first.name is None
    await face.samples.get(first).increment(3)
    assert await face.samples.get(second).value() == 0
    assert await face.samples.get(face.samples.id_from_string(str(first))).value() == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be 64 hex digits"),
        ("lobby", "must be 64 hex digits"),
        ("0" * 63 + "g", "must be 64 hex digits"),
        ("0" * 64, "not valid for this namespace"),
        (str(IdFactory("caller").from_name("c")), "not valid for this namespace"),
    ],
)
async def test_text_that_is_no_id_of_the_namespace_is_refused(
    face: Face, text: str, words: str
) -> None:
    with pytest.raises(InvalidRequestError, match=words) as refused:
        face.samples.id_from_string(text)
    assert refused.value.code == "invalid_object_id"


async def test_an_id_of_another_namespace_is_refused(face: Face) -> None:
    foreign = face.callers.id_from_name("c")
    with pytest.raises(InvalidRequestError) as refused:
        await face.samples.get(foreign).value()
    assert refused.value.code == "invalid_object_id"


async def test_an_empty_name_is_refused(face: Face) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        await face.samples.get_by_name("").value()
    assert refused.value.code == "invalid_object_name"


@pytest.mark.parametrize(
    "odd",
    [
        "a/b",
        "..",
        ".",
        "@" + "0" * 64,
        "%2F",
        "a?b#c",
        " ",
        "Größe 日本",
        "a\\b",
        "\u202e",
        "x" * 500,
    ],
)
async def test_any_text_is_a_name_of_its_own(face: Face, name: str, odd: str) -> None:
    stub = face.samples.get_by_name(odd)
    await stub.increment()
    for_name = await face.samples.get(face.samples.id_from_string(str(stub.id))).value()
    assert for_name == await stub.value() > 0


# --- calls --------------------------------------------------------------------------------------


async def test_methods_are_called_with_positional_and_keyword_arguments(sample: Any) -> None:
    assert await sample.describe("box", 3) == "box 3 red"
    assert await sample.describe("box", size=4, colour="blue") == "box 4 blue"
    assert await sample.kinds(1, "a", None, x=[], y=b"") == [
        "int",
        "str",
        "NoneType",
        "list",
        "bytes",
    ]


async def test_methods_of_a_base_class_are_methods(sample: Any) -> None:
    assert await sample.inherited() == "from the base"


async def test_a_method_can_be_given_as_itself(sample: Any) -> None:
    assert await sample.call(Sample.increment, by=2) == 2
    assert await sample.call(Sample.value) == 2
    assert await sample.call(Sample.describe, "box", size=1) == "box 1 red"


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        (("box",), {}, "size"),
        (("box", 1, 2), {}, "positional"),
        (("box", 1), {"depth": 2}, "depth"),
        (("box", 1), {"size": 2}, "size"),
        ((), {"title": "box", "size": 1}, "title"),
        (("box", "large"), {}, "size"),
        (("box", 1.5), {}, "size"),
    ],
)
async def test_wrong_arguments_are_refused_by_name(
    sample: Any, args: tuple[Any, ...], kwargs: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidRequestError, match=words) as refused:
        await sample.describe(*args, **kwargs)
    assert refused.value.code == "invalid_arguments"


async def test_annotated_arguments_and_results_have_their_types(sample: Any) -> None:
    photo = Photo(datetime(2026, 1, 2, tzinfo=UTC), b"\x89PNG\x00")
    assert await sample.develop(photo) == Photo(photo.taken, b"\x00GNP\x89")
    assert await sample.mirrored([Point(1, 2)]) == [Point(-1, 2)]
    assert await sample.mirrored([{"x": 3, "y": 4}]) == [Point(-3, 4)]


@pytest.mark.parametrize(
    ("value", "returned"),
    [
        (None, None),
        (2**70, 2**70),
        (-math.inf, -math.inf),
        (b"\x00\xff", b"\x00\xff"),
        ("\x00 日本", "\x00 日本"),
        ({"$blob": "not bytes"}, {"$blob": "not bytes"}),
        ([1, [2, {"a": b"3"}]], [1, [2, {"a": b"3"}]]),
        ((1, 2), [1, 2]),
        ({1: 2}, {"1": 2}),
        (Point(1, 2), {"x": 1, "y": 2}),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
    ],
    ids=repr,
)
async def test_values_without_annotation_travel_as_plain_ones(
    sample: Any, value: Any, returned: Any
) -> None:
    assert await sample.echo(value) == returned


async def test_arguments_travel_by_value(sample: Any) -> None:
    given = [1]
    returned = await sample.echo(given)
    returned.append(2)
    assert given == [1]


async def test_an_argument_that_cannot_travel_is_refused(sample: Any) -> None:
    with pytest.raises(InvalidRequestError, match="type object") as refused:
        await sample.echo(object())
    assert refused.value.code == "invalid_arguments"


async def test_a_result_that_cannot_travel_is_an_error(sample: Any) -> None:
    with pytest.raises(DosqlError, match="type object") as raised:
        await sample.unsendable()
    assert raised.value.code == "result_not_sendable"


# --- what is not a method -----------------------------------------------------------------------


async def test_private_names_are_not_methods(sample: Any) -> None:
    with pytest.raises(AttributeError):
        sample._private()
    for method in (Sample._private, Sample.__init__):
        with pytest.raises(NotFoundError) as refused:
            await sample.call(method)
        assert refused.value.code == "method_not_found"


@pytest.mark.parametrize("handler", [Sample.alarm, Sample.websocket_message, Sample.fetch])
async def test_handlers_of_events_are_not_methods(sample: Any, handler: Any) -> None:
    with pytest.raises(NotFoundError) as refused:
        await sample.call(handler, None)
    assert refused.value.code == "method_not_found"


@pytest.mark.parametrize("attribute", ["size", "limit", "ctx", "env", "nothing", "a/b", ""])
async def test_what_is_no_method_cannot_be_called(sample: Any, attribute: str) -> None:
    """A stub that knows the class may see it before anything is sent."""
    with pytest.raises((AttributeError, NotFoundError)):
        await getattr(sample, attribute)()


# --- errors -------------------------------------------------------------------------------------


async def test_an_exception_of_the_object_arrives_with_its_type_and_text(sample: Any) -> None:
    with pytest.raises(ObjectError) as raised:
        await sample.fail("the text")
    assert raised.value.message == "ValueError: the text"
    assert raised.value.code == "object_error"
    assert raised.value.remote
    assert not raised.value.retryable


async def test_an_error_of_ours_arrives_as_itself(sample: Any) -> None:
    with pytest.raises(ConflictError, match="The room is full") as raised:
        await sample.refuse()
    assert raised.value.code == "room_full"
    assert not raised.value.remote


async def test_an_object_goes_on_after_an_exception_and_keeps_what_it_wrote(sample: Any) -> None:
    with pytest.raises(LimitError):
        await sample.refuse_after_write()
    assert await sample.value() == 99


async def test_an_error_passes_through_the_object_that_called(face: Face, name: str) -> None:
    with pytest.raises(ObjectError, match="ValueError: deep down"):
        await face.callers.get_by_name("c").pass_on_error(name)


async def test_objects_call_each_other(face: Face, name: str) -> None:
    await face.samples.get_by_name(name).increment(3)
    await face.samples.get_by_name(f"{name}-b").increment(4)
    assert await face.callers.get_by_name("c").add_up([name, f"{name}-b"]) == 7


# --- order --------------------------------------------------------------------------------------


async def test_calls_on_one_stub_arrive_in_the_order_in_which_they_were_made(
    face: Face, sample: Any
) -> None:
    if face.kind == "sync":
        pytest.skip("calls from several threads have no order to keep")
    await asyncio.gather(*[sample.arrive(number) for number in range(20)])
    assert await sample.arrived() == list(range(20))


async def test_calls_on_several_stubs_do_not_wait_for_each_other(face: Face, name: str) -> None:
    """One that waits for another call would wait for ever."""
    waiting = asyncio.create_task(face.samples.get_by_name(name).wait())
    other = face.samples.get_by_name(name)
    async with asyncio.timeout(20):
        while not waiting.done():
            await other.open()
            await asyncio.sleep(0)
    assert await waiting == "opened"


# --- fetch --------------------------------------------------------------------------------------


async def test_a_request_reaches_the_object_whole(sample: Any) -> None:
    url = "http://example.test/echo?a=1&a=2&b=x%20y"
    reply = await sample.fetch(Request(url, "PUT", {"X-Sample": "yes"}, "bödy"))
    assert await reply.json() == {
        "method": "PUT",
        "path": "/echo",
        "query": {"a": ["1", "2"], "b": ["x y"]},
        "header": "yes",
        "body": "bödy",
    }
    assert (reply.status, reply.ok) == (200, True)
    assert reply.headers["X-Reply"] == "yes"
    assert reply.headers["content-type"] == "application/json"


async def test_a_path_is_enough_of_a_request(sample: Any) -> None:
    reply = await sample.fetch("/echo?c=3", method="POST", headers={"x-sample": "1"}, body=b"b")
    body = await reply.json()
    assert (body["method"], body["query"], body["header"]) == ("POST", {"c": ["3"]}, "1")
    assert body["body"] == "b"


@pytest.mark.parametrize("path", ["/nö?thing", "relative", "", "/line\nbreak"])
async def test_what_is_neither_path_nor_url_is_refused(sample: Any, path: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        await sample.fetch(path)
    assert refused.value.code == "invalid_url"


@pytest.mark.parametrize("path", ["/", "/a/../b", "/%2e%2e/c", "/a%2Fb", "//x", "/./", "/d/"])
async def test_the_path_is_decoded_and_otherwise_untouched(sample: Any, path: str) -> None:
    reply = await sample.fetch(path)
    assert (reply.status, await reply.text()) == (404, f"no {Request(path).path}")


@pytest.mark.parametrize("status", [200, 201, 204, 302, 404, 409, 418, 500, 503])
async def test_any_status_is_a_reply(sample: Any, status: int) -> None:
    path = f"/status?code={status}" if status != 204 else "/empty"
    reply = await sample.fetch(path)
    assert reply.status == status
    assert reply.ok is (status < 300)
    assert await reply.text() == ("" if status == 204 else "as you wish")


async def test_an_error_reply_of_the_object_is_a_reply(sample: Any) -> None:
    reply = await sample.fetch("/json-error")
    assert reply.status == 409
    assert (await reply.json())["code"] == "mine"


async def test_several_headers_of_one_name_stay_several(sample: Any) -> None:
    reply = await sample.fetch("/cookies")
    assert reply.headers.get_all("set-cookie") == ["a=1", "b=2"]


async def test_bytes_come_as_they_are(sample: Any) -> None:
    reply = await sample.fetch("/bytes")
    assert await reply.bytes() == bytes(range(256))
    assert reply.headers["content-type"] == "image/png"


async def test_text_says_that_it_is_text(sample: Any) -> None:
    reply = await sample.fetch("/status?code=200")
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"


async def test_a_stream_comes_to_its_end(sample: Any) -> None:
    reply = await sample.fetch("/stream")
    assert b"".join([piece async for piece in reply.chunks()]) == b"0\n1\n2\n"


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "DELETE", "PATCH", "PURGE"])
async def test_every_method_of_http_reaches_the_object(sample: Any, method: str) -> None:
    reply = await sample.fetch("/method", method=method)
    assert reply.headers["x-method"] == method


async def test_an_exception_in_fetch_is_an_error(face: Face, sample: Any) -> None:
    """From outside it says nothing of the program: whoever sent the request may be anybody."""
    with pytest.raises(DosqlError) as raised:
        await sample.fetch("/fail")
    if face.is_remote:
        assert type(raised.value) is InternalError
        assert "secret" not in raised.value.message
    else:
        assert type(raised.value) is ObjectError
        assert raised.value.message == "ValueError: a secret of the object"


async def test_an_error_of_ours_in_fetch_arrives_as_itself(sample: Any) -> None:
    with pytest.raises(ConflictError) as raised:
        await sample.fetch("/refuse")
    assert raised.value.code == "room_full"


# --- list ---------------------------------------------------------------------------------------


async def test_objects_are_listed_by_prefix_in_the_order_of_their_names(
    face: Face, name: str
) -> None:
    for suffix in ("b", "a", "é", "B"):
        await face.samples.get_by_name(f"{name}/{suffix}").increment()
    await face.samples.get_by_name(name).increment()
    page = await face.samples.list(prefix=f"{name}/")
    assert [info.name for info in page.objects] == [f"{name}/{suffix}" for suffix in "Babé"]
    assert page.cursor is None


async def test_a_long_list_comes_page_by_page(face: Face, name: str) -> None:
    wanted = [f"{name}/{number}" for number in range(5)]
    for each in wanted:
        await face.samples.get_by_name(each).increment()
    found: list[str] = []
    sizes: list[int] = []
    cursor = None
    while True:
        page = await face.samples.list(prefix=f"{name}/", limit=2, cursor=cursor)
        found += [info.name for info in page.objects]
        sizes.append(len(page.objects))
        cursor = page.cursor
        if cursor is None:
            break
    assert found == wanted
    assert sizes == [2, 2, 1]


async def test_a_listed_object_tells_of_itself(face: Face, name: str) -> None:
    await face.samples.get_by_name(name).increment()
    (info,) = (await face.samples.list(prefix=name)).objects
    assert info.id == str(face.samples.id_from_name(name))
    assert info.state == "awake"
    assert info.size_bytes > 0
    assert info.sockets == 0
    assert datetime.fromisoformat(info.created_at) <= datetime.fromisoformat(info.last_used_at)


async def test_objects_without_a_name_or_of_another_class_are_not_listed(
    face: Face, name: str
) -> None:
    await face.samples.get(face.samples.new_unique_id()).increment()
    await face.samples.get_by_name(name).increment()
    assert all(info.name for info in (await face.samples.list()).objects)
    assert (await face.callers.list(prefix=name)).objects == []
