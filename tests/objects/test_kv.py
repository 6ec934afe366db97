"""Key-value storage: both faces of it, over a real database file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dosql.clock import SystemClock
from dosql.errors import ConflictError, CorruptError, InvalidRequestError, LimitError
from dosql.limits import KV_KEY_BYTES_MAX, VALUE_BYTES_MAX
from dosql.objects import kv_store
from dosql.objects.kv import AsyncKV, SyncKV
from dosql.objects.kv_store import KeyValueStore
from dosql.sqlite.database import Database
from tests.support.direct_access import DirectAccess


@pytest.fixture
def access(tmp_path: Path) -> Iterator[DirectAccess]:
    db = Database(str(tmp_path / "object.db"), clock=SystemClock())
    yield DirectAccess(db)
    db.close()


@pytest.fixture
def store(access: DirectAccess) -> KeyValueStore:
    return KeyValueStore(access)


@pytest.fixture
def kv(store: KeyValueStore) -> SyncKV:
    return SyncKV(store)


@pytest.fixture
def storage(store: KeyValueStore) -> AsyncKV:
    return AsyncKV(store)


def tables(access: DirectAccess) -> list[Any]:
    return access.db.internal_query("SELECT name FROM sqlite_schema")


# --- one key ----------------------------------------------------------------------------------


def test_a_value_comes_back_until_it_is_deleted(kv: SyncKV) -> None:
    assert kv.get("a") is None
    assert kv.get("a", 0) == 0
    kv.put("a", {"n": (1, 2)})
    kv.put("a", {"n": (1, 3)})
    assert kv.get("a") == {"n": (1, 3)}
    assert kv.delete("a") is True
    assert kv.delete("a") is False
    assert kv.get("a", "gone") == "gone"


def test_none_is_a_value(kv: SyncKV) -> None:
    kv.put("a", None)
    assert kv.get("a", "default") is None
    assert list(kv.list()) == [("a", None)]


def test_an_object_that_stores_nothing_has_no_table(kv: SyncKV, access: DirectAccess) -> None:
    """Reading and deleting do not make one; so the object may cease to exist."""
    kv.get("a")
    kv.delete("a")
    assert list(kv.list()) == []
    access.commit()
    assert tables(access) == []
    assert access.db.wal_frames == 0


def test_the_table_is_made_again_after_it_was_rolled_back(kv: SyncKV, access: DirectAccess) -> None:
    kv.put("a", 1)
    access.rollback()
    assert kv.get("a") is None
    kv.put("a", 2)
    access.commit()
    assert kv.get("a") == 2


def test_reads_open_no_transaction_and_writes_do(kv: SyncKV, access: DirectAccess) -> None:
    kv.get("a")
    list(kv.list())
    assert not access.db.in_transaction
    kv.put("a", 1)
    assert access.db.in_transaction
    access.rollback()
    assert kv.get("a") is None


def test_user_code_reaches_the_table_by_no_other_way(kv: SyncKV, access: DirectAccess) -> None:
    from dosql.errors import ForbiddenError

    kv.put("a", 1)
    with pytest.raises(ForbiddenError):
        access.db.query("SELECT * FROM _dosql_kv")


# --- keys and values --------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", 1, None, b"a", "é" * (KV_KEY_BYTES_MAX // 2) + "x", "\ud800"])
def test_a_key_that_is_none_is_refused_everywhere(
    kv: SyncKV, storage: AsyncKV, access: DirectAccess, key: Any
) -> None:
    for call in (
        lambda: kv.get(key),
        lambda: kv.put(key, 1),
        lambda: kv.delete(key),
        lambda: storage.put({"ok": 1, key: 1}),
        lambda: storage.get(["ok", key]),
        lambda: storage.delete(["ok", key]),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            call()
        assert caught.value.code == "invalid_key"
    assert access.writes == [], "refused before anything was written"


@pytest.mark.parametrize("key", ["a", "é" * (KV_KEY_BYTES_MAX // 2), "\0", "a'b\"c", "\U0010ffff"])
def test_any_other_text_is_a_key(kv: SyncKV, key: str) -> None:
    kv.put(key, 1)
    assert kv.get(key) == 1
    assert list(kv.list(prefix=key)) == [(key, 1)]


def test_a_value_may_fill_a_row_and_no_more(kv: SyncKV) -> None:
    key = "k" * KV_KEY_BYTES_MAX
    largest = VALUE_BYTES_MAX - KV_KEY_BYTES_MAX - 16 - 6  # what the codec adds to so many bytes
    kv.put(key, b"x" * largest)
    assert len(kv.get(key)) == largest
    with pytest.raises(LimitError) as caught:
        kv.put(key, b"x" * (largest + 1))
    assert caught.value.code == "value_too_large"
    assert len(kv.get(key)) == largest


def test_what_cannot_be_stored_is_named_with_key_and_place(kv: SyncKV) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        kv.put("room", {"users": [object()]})
    assert caught.value.code == "value_not_storable"
    assert caught.value.message == (
        "Key 'room': The value at ['users'][0] is a object, which cannot be stored."
    )


def test_a_damaged_value_is_not_served(kv: SyncKV, access: DirectAccess) -> None:
    kv.put("a", 1)
    access.db.internal_run("UPDATE _dosql_kv SET value = x'0191'")
    with pytest.raises(CorruptError):
        kv.get("a")
    with pytest.raises(CorruptError):
        list(kv.list())


# --- typed values -----------------------------------------------------------------------------


@dataclass
class Seat:
    row: int
    taken_by: str | None = None


class Room(msgspec.Struct, rename="camel"):
    seats: list[Seat]
    opening_hours: tuple[int, int] = (9, 17)


async def test_a_record_comes_back_as_the_type_that_is_asked_for(
    kv: SyncKV, storage: AsyncKV
) -> None:
    room = Room([Seat(1), Seat(2, "ann")])
    kv.put("room", room)
    assert kv.get("room", type=Room) == room
    assert kv.get("room")["openingHours"] == (9, 17)
    assert await storage.get("room", type=Room) == room
    await storage.put({"a": Seat(1), "b": Seat(2)})
    assert await storage.get(["b", "a"], type=Seat) == {"a": Seat(1), "b": Seat(2)}
    assert kv.get("none", type=Room) is None
    assert kv.get("none", room, type=Room) is room


def test_a_value_of_another_type_is_refused(kv: SyncKV) -> None:
    kv.put("room", {"seats": "many"})
    with pytest.raises(InvalidRequestError) as caught:
        kv.get("room", type=Room)
    assert caught.value.code == "type_mismatch"
    assert "'room'" in caught.value.message
    assert "Expected `array`, got `str`" in caught.value.message


# --- several keys -----------------------------------------------------------------------------


async def test_several_values_come_in_the_order_of_their_keys_without_those_missing(
    storage: AsyncKV,
) -> None:
    await storage.put({"b": 2, "é": 4, "a": 1, "z": 3, "\U0001f600": 5})
    found = await storage.get(["\U0001f600", "z", "é", "none", "b", "a", "a"])
    assert list(found.items()) == [("a", 1), ("b", 2), ("z", 3), ("é", 4), ("\U0001f600", 5)]


async def test_any_number_of_keys_will_do(storage: AsyncKV) -> None:
    entries = {f"key-{number:05}": number for number in range(3_000)}
    await storage.put(entries)
    assert await storage.get(list(entries)) == entries
    assert await storage.list() == entries
    assert await storage.delete([*entries, "none"]) == 3_000
    assert await storage.list() == {}
    assert await storage.get([]) == {}
    await storage.put({})
    assert await storage.delete([]) == 0


async def test_several_values_are_stored_all_or_none(
    storage: AsyncKV, kv: SyncKV, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the reason shows only at the database, half-way through."""
    kv.put("first", 1)
    with pytest.raises(InvalidRequestError):
        storage.put({"a": 1, "b": object()})
    monkeypatch.setattr(kv_store, "_ROW_BYTES", -VALUE_BYTES_MAX)  # leave it to SQLite
    with pytest.raises(LimitError) as caught:
        storage.put({"a": 1, "b": 2, "c": b"x" * VALUE_BYTES_MAX})
    assert caught.value.sqlite_code == "SQLITE_TOOBIG"
    assert dict(kv.list()) == {"first": 1}


async def test_put_takes_a_key_and_a_value_or_a_mapping(storage: AsyncKV) -> None:
    wrong: Any = storage
    for call in (lambda: wrong.put("a"), lambda: wrong.put({"a": 1}, 2)):
        with pytest.raises(InvalidRequestError) as caught:
            call()
        assert caught.value.code == "value_missing"
    await storage.put("a", None)
    assert await storage.get("a", "default") is None


async def test_the_work_is_done_whether_it_is_awaited_or_not(storage: AsyncKV) -> None:
    storage.put("a", 1)
    assert await storage.get("a") == 1
    storage.delete("a")
    assert await asyncio.gather(storage.get("a"), storage.put("b", 2)) == [None, None]
    assert await storage.list() == {"b": 2}


async def test_awaiting_lets_no_other_event_in(storage: AsyncKV) -> None:
    seen: list[str] = []
    asyncio.get_running_loop().call_soon(seen.append, "other")
    for number in range(10):
        await storage.put("n", number)
        await storage.get("n")
    assert seen == []


async def test_the_options_of_cloudflare_are_taken(storage: AsyncKV, access: DirectAccess) -> None:
    """Only ``allow_unconfirmed`` means something: reads never wait."""
    await storage.put("a", 1, allow_unconfirmed=True, allow_concurrency=True, no_cache=True)
    await storage.put({"b": 1}, allow_unconfirmed=True)
    await storage.delete("a", allow_unconfirmed=True)
    await storage.delete(["b"], allow_unconfirmed=True)
    assert access.writes == [False] * 4
    await storage.put("a", 1)
    await storage.delete("a")
    assert access.writes == [False] * 4 + [True] * 2
    assert await storage.get("a", allow_concurrency=True, no_cache=True) is None
    assert await storage.list(allow_concurrency=True, no_cache=True) == {}


# --- list -------------------------------------------------------------------------------------

KEYS = ["a", "a1", "a2", "b", "b1", "c"]


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({}, KEYS),
        ({"reverse": True}, KEYS[::-1]),
        ({"start": "a2"}, ["a2", "b", "b1", "c"]),
        ({"start_after": "a2"}, ["b", "b1", "c"]),
        ({"end": "b"}, ["a", "a1", "a2"]),
        ({"start": "a1", "end": "b1"}, ["a1", "a2", "b"]),
        ({"start": "a1", "end": "b1", "reverse": True}, ["b", "a2", "a1"]),
        ({"start_after": "a1", "end": "c", "reverse": True, "limit": 2}, ["b1", "b"]),
        ({"prefix": "a"}, ["a", "a1", "a2"]),
        ({"prefix": "a", "start": "a1"}, ["a1", "a2"]),
        ({"prefix": "a", "start_after": "a1"}, ["a2"]),
        ({"prefix": "a", "start_after": "a"}, ["a1", "a2"]),
        ({"prefix": "a", "end": "a2", "limit": 1}, ["a"]),
        ({"prefix": "b", "start": "a"}, ["b", "b1"]),
        ({"prefix": "b", "end": "z", "reverse": True}, ["b1", "b"]),
        ({"prefix": ""}, KEYS),
        ({"prefix": "x"}, []),
        ({"start": "b", "end": "a"}, []),
        ({"start": "b", "end": "b"}, []),
        ({"limit": 2}, ["a", "a1"]),
        ({"limit": 100}, KEYS),
    ],
    ids=str,
)
async def test_list_gives_the_keys_of_a_range(
    kv: SyncKV, storage: AsyncKV, options: dict[str, Any], keys: list[str]
) -> None:
    await storage.put({key: key.upper() for key in reversed(KEYS)})
    expected = [(key, key.upper()) for key in keys]
    assert list(kv.list(**options)) == expected
    assert list((await storage.list(**options)).items()) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"start": "a", "start_after": "b"},
        {"limit": 0},
        {"limit": -1},
        {"limit": True},
        {"limit": 1.5},
        {"start": 1},
        {"prefix": b"a"},
    ],
    ids=str,
)
def test_wrong_options_are_refused_before_the_first_entry(
    kv: SyncKV, storage: AsyncKV, options: dict[str, Any]
) -> None:
    for face in (kv, storage):
        with pytest.raises(InvalidRequestError) as caught:
            face.list(**options)
        assert caught.value.code == "invalid_list_options"


KEY = st.text(st.sampled_from("ab\ud7ff\ue000\U0010ffff"), min_size=1, max_size=4)


@settings(max_examples=150)
@given(
    keys=st.sets(KEY, max_size=12),
    start=st.none() | KEY,
    after=st.booleans(),
    end=st.none() | KEY,
    prefix=st.none() | KEY,
    reverse=st.booleans(),
    limit=st.none() | st.integers(1, 5),
)
def test_list_agrees_with_a_plain_model(
    keys: set[str],
    start: str | None,
    after: bool,
    end: str | None,
    prefix: str | None,
    reverse: bool,
    limit: int | None,
) -> None:
    from dosql.testing.memory import MemoryDatabase

    store = KeyValueStore(DirectAccess(MemoryDatabase(b"", clock=SystemClock())))
    store.put_many(dict.fromkeys(keys, 0))
    expected = sorted(
        (
            key
            for key in keys
            if (start is None or key > start or (key == start and not after))
            and (end is None or key < end)
            and (prefix is None or key.startswith(prefix))
        ),
        key=str.encode,
        reverse=reverse,
    )[:limit]
    name = "start_after" if after else "start"
    options: Any = {name: start, "end": end, "prefix": prefix, "reverse": reverse, "limit": limit}
    assert [key for key, _ in SyncKV(store).list(**options)] == expected
    assert list(AsyncKV(store).list(**options)._result) == expected
    store.database().close()


def test_a_loop_may_change_what_it_passes(kv: SyncKV, storage: AsyncKV) -> None:
    storage.put({f"log:{number:03}": number for number in range(500)})
    for key, number in kv.list(prefix="log:", end="log:400"):
        if number % 2:
            kv.delete(key)
        else:
            kv.put(key, -number)
    left = dict(kv.list())
    assert len(left) == 300
    assert left["log:002"] == -2


def test_each_entry_is_as_it_is_when_its_turn_comes(kv: SyncKV, access: DirectAccess) -> None:
    """Also after a rollback, which no counter of SQLite's shows."""
    for key in "abcdef":
        kv.put(key, 1)
    access.commit()
    walk = kv.list()
    assert next(walk) == ("a", 1)
    with pytest.raises(ZeroDivisionError), access.db.savepoint():
        kv.put("b", 2)
        kv.delete("c")
        assert next(walk) == ("b", 2)
        raise ZeroDivisionError
    assert next(walk) == ("c", 1)
    kv.put("cc", 3)
    kv.delete("d")
    assert list(walk) == [("cc", 3), ("e", 1), ("f", 1)]
    kv.put("g", 1)
    assert list(walk) == [], "what has ended stays so"


def test_a_new_list_ends_the_one_before(kv: SyncKV) -> None:
    kv.put("a", 1)
    kv.put("b", 2)
    first = kv.list()
    next(first)
    assert list(kv.list()) == [("a", 1), ("b", 2)]
    with pytest.raises(ConflictError) as caught:
        next(first)
    assert caught.value.code == "iterator_invalidated"


def test_an_open_list_stands_in_nobodys_way(kv: SyncKV, access: DirectAccess) -> None:
    """No statement stays open: the object may be checkpointed, or wiped."""
    for number in range(1000):
        kv.put(f"{number:04}", number)
    access.commit()
    walk = kv.list()
    next(walk)
    access.db.checkpoint()
    assert next(walk) == ("0001", 1)
    access.db.wipe()
    assert list(walk) == []


async def test_a_list_that_would_fill_the_memory_is_refused(
    storage: AsyncKV, kv: SyncKV, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_store, "SQL_CURSOR_BYTES_MAX", 3_000)
    await storage.put({str(number): b"x" * 1000 for number in range(3)})
    with pytest.raises(LimitError) as caught:
        storage.list()
    assert caught.value.code == "result_too_large"
    assert len(await storage.list(limit=2)) == 2
    assert len(list(kv.list())) == 3
