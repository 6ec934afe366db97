"""Ids and bookmarks."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from dosql.bookmarks import Bookmark
from dosql.clock import SystemRandomness
from dosql.errors import InvalidRequestError
from dosql.ids import IdFactory


@pytest.mark.parametrize("name", ["acme", "", "Ünïcode", "x" * 5000])
def test_an_id_from_a_name_is_computed_as_workerd_does(name: str) -> None:
    key = hashlib.sha256(b"room").digest()
    half = hmac.new(key, name.encode(), hashlib.sha256).digest()[:16]
    mac = hmac.new(key, half, hashlib.sha256).digest()[:16]
    id = IdFactory("room").from_name(name)
    assert str(id) == (half + mac).hex()
    assert len(str(id)) == 64
    assert id.name == name


def test_ids_differ_between_namespaces_and_names() -> None:
    assert IdFactory("room").from_name("a") != IdFactory("hall").from_name("a")
    assert IdFactory("room").from_name("a") != IdFactory("room").from_name("b")


def test_an_id_is_parsed_back_without_its_name() -> None:
    ids = IdFactory("room")
    id = ids.from_name("a")
    parsed = ids.from_string(str(id).upper())
    assert parsed == id
    assert parsed.name is None


def test_unique_ids_belong_to_their_namespace() -> None:
    ids = IdFactory("room")
    unique = ids.unique(SystemRandomness())
    assert ids.from_string(str(unique)) == unique
    assert unique.name is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "Invalid Durable Object ID: must be 64 hex digits"),
        ("zz" * 32, "Invalid Durable Object ID: must be 64 hex digits"),
        ("00" * 32, "Durable Object ID is not valid for this namespace."),
        (
            str(IdFactory("hall").from_name("a")),
            "Durable Object ID is not valid for this namespace.",
        ),
    ],
)
def test_other_texts_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(InvalidRequestError, match=sentence):
        IdFactory("room").from_string(text)


def test_bookmarks_sort_as_text_in_the_order_of_commits() -> None:
    bookmarks = [Bookmark(txid, 7) for txid in (0, 1, 9, 10, 255, 256, 2**40)]
    texts = [str(bookmark) for bookmark in bookmarks]
    assert texts == sorted(texts)
    assert [Bookmark.parse(text) for text in texts] == bookmarks


@pytest.mark.parametrize("text", ["", "1-1", "g" * 16 + "-" + "0" * 16, str(Bookmark(1, 1)) + "0"])
def test_other_bookmarks_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        Bookmark.parse(text)
