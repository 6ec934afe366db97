"""Requests, responses and headers as values."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from dosql.errors import ConflictError, InvalidRequestError
from dosql.fetch import Headers, Request, Response


@dataclass
class Point:
    x: int
    y: int


# --- headers ----------------------------------------------------------------------------------


def test_the_case_of_header_names_does_not_matter() -> None:
    headers = Headers({"Content-Type": "text/plain"})
    assert headers["content-TYPE"] == headers.get("CONTENT-type") == "text/plain"
    assert "CONTENT-TYPE" in headers and "x" not in headers
    assert dict(headers) == {"content-type": "text/plain"}


def test_several_headers_of_one_name_read_as_one_and_stay_apart_on_the_wire() -> None:
    headers = Headers([("Set-Cookie", "a=1"), ("x", "y")])
    headers.add("set-cookie", "b=2")
    assert headers["set-cookie"] == "a=1, b=2"
    assert headers.get_all("Set-Cookie") == ["a=1", "b=2"]
    assert headers.raw() == [(b"set-cookie", b"a=1"), (b"x", b"y"), (b"set-cookie", b"b=2")]
    assert len(headers) == 2


def test_setting_a_header_replaces_and_deleting_removes_all_of_its_name() -> None:
    headers = Headers([("a", "1"), ("a", "2"), ("b", "3")])
    headers["A"] = "4"
    assert headers.get_all("a") == ["4"]
    del headers["A"]
    assert dict(headers) == {"b": "3"}
    with pytest.raises(KeyError):
        del headers["a"]
    with pytest.raises(KeyError):
        headers["a"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", "a\r\nset-cookie: stolen=1"),
        ("x", "a\nb"),
        ("x", "a\0"),
        ("x", "€"),
        ("x y", "a"),
        ("x:", "a"),
        ("", "a"),
        ("x\r\ny", "a"),
    ],
)
def test_nothing_can_be_injected_into_the_head(name: str, value: str) -> None:
    headers = Headers()
    for attempt in (
        lambda: Headers({name: value}),
        lambda: headers.add(name, value),
        lambda: headers.__setitem__(name, value),
        lambda: Response("", headers={name: value}),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            attempt()
        assert caught.value.code == "invalid_header"
    assert headers.raw() == []


def test_a_copy_of_headers_is_a_copy() -> None:
    first = Headers({"a": "1"})
    second = Headers(first)
    second["a"] = "2"
    assert first["a"] == "1"


# --- requests ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "url", "path"),
    [
        ("http://test/action", "http://test/action", "/action"),
        ("http://test", "http://test/", "/"),
        ("https://a.example:1?x=1", "https://a.example:1/?x=1", "/"),
        ("/value?x=1", "http://object/value?x=1", "/value"),
        ("/a%2Fb/%C3%BC", "http://object/a%2Fb/%C3%BC", "/a/b/ü"),
        ("/x#part", "http://object/x", "/x"),
        ("//evil/x", "http://object//evil/x", "//evil/x"),
    ],
)
def test_a_url_is_absolute_or_a_path(given: str, url: str, path: str) -> None:
    request = Request(given)
    assert (request.url, request.path) == (url, path)


@pytest.mark.parametrize("url", ["", "value", "ftp://x/", "http://", "http:///x", "/a b", "/ü"])
def test_anything_else_is_no_url(url: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Request(url)
    assert caught.value.code == "invalid_url"


def test_of_several_parameters_with_one_name_the_first_counts() -> None:
    request = Request("/?name=Ada+L&name=Bob&empty=&x=%26")
    assert request.query == {"name": "Ada L", "empty": "", "x": "&"}
    assert request.query_all["name"] == ["Ada L", "Bob"]


@pytest.mark.parametrize("value", ["websocket", "WebSocket", "WEBSOCKET"])
def test_an_upgrade_is_recognized_in_any_case(value: str) -> None:
    assert Request("/ws", headers={"UPGRADE": value}).is_websocket_upgrade
    assert not Request("/ws", headers={"Upgrade": "h2c"}).is_websocket_upgrade
    assert not Request("/ws").is_websocket_upgrade


async def test_a_body_reads_as_bytes_text_and_json_as_often_as_wanted() -> None:
    request = Request("/", "post", body='{"x": 1, "y": 2}')
    assert request.method == "POST"
    assert await request.bytes() == b'{"x": 1, "y": 2}'
    assert await request.text() == '{"x": 1, "y": 2}'
    assert await request.json() == {"x": 1, "y": 2}
    assert await request.json(Point) == Point(1, 2)
    assert await Request("/", body=b"\xff").text() == "\ufffd"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"x": "one", "y": 2}'])
async def test_a_body_that_is_not_the_json_asked_for_is_the_clients_mistake(body: bytes) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await Request("/", "POST", body=body).json(Point)
    assert caught.value.code == "invalid_json"


async def test_a_request_is_forwarded_under_another_path() -> None:
    """Query, method, headers and body stay; the original does too."""
    request = Request("http://x/room/7?name=Ada", "POST", {"a": "1"}, "body")
    forwarded = request.replace(path="/web socket")
    assert forwarded.url == "http://x/web%20socket?name=Ada"
    assert (forwarded.method, forwarded.headers["a"]) == ("POST", "1")
    assert await forwarded.text() == "body"
    forwarded.headers["a"] = "2"
    assert (request.url, request.headers["a"]) == ("http://x/room/7?name=Ada", "1")
    assert request.replace(url="/only?y=2").url == "http://x/only?y=2"
    assert request.replace(url="https://z/").url == "https://z/"
    assert request.replace(path="up").path == "/up"
    assert request.replace(method="GET", headers={"b": "2"}).headers.raw() == [(b"b", b"2")]


def test_a_method_is_a_token() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Request("/", "GET /evil")
    assert caught.value.code == "invalid_method"


# --- responses --------------------------------------------------------------------------------


async def test_text_says_that_it_is_text() -> None:
    assert Response("hi").headers["content-type"] == "text/plain; charset=utf-8"
    assert Response("hi", headers={"Content-Type": "text/html"}).headers.raw() == [
        (b"content-type", b"text/html")
    ]
    assert Response(b"hi").headers.raw() == Response().headers.raw() == []
    assert await Response("hü").bytes() == "hü".encode()


async def test_json_is_made_of_all_that_msgspec_knows() -> None:
    response = Response.from_json(Point(1, 2), 201, {"x": "y"})
    assert (response.status, response.ok) == (201, True)
    assert response.headers["content-type"] == "application/json"
    assert await response.json() == {"x": 1, "y": 2}
    assert await response.json(Point) == Point(1, 2)
    with pytest.raises(InvalidRequestError) as caught:
        Response.from_json(object())
    assert caught.value.code == "invalid_json"


@pytest.mark.parametrize(
    ("body", "status", "web_socket"),
    [
        ("", 0, None),
        ("", 99, None),
        ("", 600, None),
        ("", 100, None),
        (None, 101, None),
        (None, 200, object()),
        ("x", 204, None),
        ("x", 304, None),
        ({"a": 1}, 200, None),
    ],
)
def test_a_response_that_cannot_be_sent_is_not_made(
    body: object, status: int, web_socket: object
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Response(body, status, web_socket=web_socket)  # type: ignore[arg-type]
    assert caught.value.code == "invalid_response"


async def words() -> AsyncIterator[str]:
    yield "one "
    yield "two"


async def test_a_stream_is_collected_once_and_then_kept() -> None:
    response = Response(words())
    assert response.is_stream
    assert await response.text() == "one two"
    assert response.stream is None
    assert await response.bytes() == b"one two"
    assert [chunk async for chunk in response.chunks()] == [b"one two"]


async def test_a_stream_can_be_drawn_once() -> None:
    response = Response(words())
    assert [chunk async for chunk in response.chunks()] == [b"one ", b"two"]
    with pytest.raises(ConflictError) as caught:
        await response.bytes()
    assert caught.value.code == "body_used"


async def test_a_complete_body_is_one_chunk_and_an_empty_one_none() -> None:
    assert [chunk async for chunk in Response("x").chunks()] == [b"x"]
    assert [chunk async for chunk in Response().chunks()] == []
