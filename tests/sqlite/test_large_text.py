"""Large values are searched and replaced in pieces, with the results of Python's own methods."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dosql.limits import VALUE_BYTES_MAX
from dosql.sqlite import large_text
from dosql.sqlite.functions import instr, ltrim, replace, rtrim, trim, unhex
from dosql.sqlite.large_text import characters_of, find, find_bytes, replace_all

_TEXT = st.text(alphabet="abé", max_size=60)
_PATTERN = st.text(alphabet="abé", min_size=1, max_size=12)
_PLENTY = 10_000
_PAUSE = large_text.pause


@pytest.fixture(autouse=True, scope="module")
def _small_pieces() -> object:
    """So that every rule about where two meet is met by small values."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_text, "LARGE", 5)
        patch.setattr(large_text, "PIECE", 5)
        patch.setattr(large_text, "_PATTERN_MAX", 4)
        patch.setattr(large_text, "pause", lambda: None)
        yield


@settings(max_examples=1_000, deadline=None)
@given(value=_TEXT, wanted=_PATTERN)
def test_the_first_place_is_found(value: str, wanted: str) -> None:
    assert find(value, wanted) == value.find(wanted)
    assert find_bytes(value.encode(), wanted.encode()) == value.encode().find(wanted.encode())


@settings(max_examples=1_000, deadline=None)
@given(text=_TEXT, pattern=_PATTERN, by=_TEXT)
def test_every_place_is_replaced(text: str, pattern: str, by: str) -> None:
    expected = text.replace(pattern, by)
    assert replace_all(text, pattern, by, _PLENTY) == expected
    size = len(expected.encode())
    assert replace_all(text, pattern, by, size) == expected
    assert size == 0 or replace_all(text, pattern, by, size - 1) is None


@given(text=_TEXT)
def test_all_characters_are_found(text: str) -> None:
    assert characters_of(text) == set(text)


@pytest.mark.parametrize("pattern", ["a", "a" * 20])
def test_a_result_that_grows_too_large_is_never_built(pattern: str) -> None:
    """16 GB of it."""
    assert replace_all("a" * 200_000, pattern, "b" * VALUE_BYTES_MAX, VALUE_BYTES_MAX) is None


A, B = "a" * 900_000, "b" * 400_000
LONG_CALLS: dict[str, Callable[[], object]] = {
    "instr of a long one": lambda: instr(A, "a" * 400_000 + "b"),
    "instr of a short one": lambda: instr(A, "aab"),
    "instr in bytes": lambda: instr(A.encode(), b"a" * 400_000 + b"b"),
    "replace of a long one": lambda: replace(A, "a" * 400_000 + "b", ""),
    "replace of a short one": lambda: replace(A, "aa", "b"),
    "trim": lambda: trim(A, B + "a"),
    "trim by few": lambda: trim(A, "a"),
    "trim by many": lambda: trim(A, "".join(map(chr, range(0x61, 0x61 + 30)))),
    "ltrim": lambda: ltrim(A, B + "a"),
    "rtrim": lambda: rtrim(A, B + "a"),
    "unhex": lambda: unhex("z" * 400_000, B + "z"),
}


@pytest.mark.parametrize("name", LONG_CALLS)
def test_the_lock_is_given_away_again_and_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: each pause, and each search without the lock, is a chance for others."""
    monkeypatch.setattr(large_text, "PIECE", 16 * 1024)
    monkeypatch.setattr(large_text, "LARGE", 128 * 1024)
    monkeypatch.setattr(large_text, "_PATTERN_MAX", 4 * 1024)
    chances: list[str] = []
    search = large_text._search
    assert search is not None, "the C library has no memmem here"

    def paused() -> None:
        chances.append("pause")

    def searched(*arguments: object) -> object:
        chances.append("search")
        return search(*arguments)

    monkeypatch.setattr(large_text, "pause", paused)
    monkeypatch.setattr("dosql.sqlite.functions.pause", paused)
    monkeypatch.setattr(large_text, "_search", searched)
    LONG_CALLS[name]()
    assert "search" in chances or len(chances) >= 20


def test_a_pause_is_made_once_in_a_while_and_not_for_each_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a scan of ten thousand texts of some size would spend its time in pauses."""
    pauses: list[float] = []
    clock = iter([1.0, 1.0, 1.0001, 1.0004, 1.0006, 1.0006, 1.0007])
    monkeypatch.setattr(large_text.time, "sleep", pauses.append)
    monkeypatch.setattr(large_text.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(large_text, "_last", threading.local())
    for _ in range(5):
        _PAUSE()
    assert len(pauses) == 2


def test_without_the_c_librarys_search_the_results_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(large_text, "_search", None)
    assert find("xxaaaaaaaay", "aaaaaaaay") == 1 + 1
    assert replace_all("xabcdefabcdefx", "abcdef", "-", _PLENTY) == "x--x"
