"""Memory that is free goes back to the operating system, where that can be asked for."""

from __future__ import annotations

import ctypes

import psutil
import pytest

from dosql.host import memory


def _resident_kb() -> int:
    return psutil.Process().memory_info().rss // 1024


@pytest.mark.skipif(memory._malloc_trim() is None, reason="needs glibc")
def test_what_was_freed_in_small_pieces_is_given_back() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    pieces = [libc.malloc(4_096) for _ in range(20_000)]
    for piece in pieces:
        ctypes.memset(piece, 1, 4_096)
    last = libc.malloc(4_096)  # above them all: without it the heap would shrink by itself
    for piece in pieces:
        libc.free(piece)
    before = _resident_kb()
    memory.return_free_memory()
    libc.free(last)
    assert before - _resident_kb() > 40_000


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_malloc_trim", lambda: None)
    memory.return_free_memory()
