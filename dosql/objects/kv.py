"""The two faces of key-value storage: `SyncKV` is ``ctx.storage.kv``; `AsyncKV` gives
``ctx.storage`` its ``get``, ``put``, ``delete`` and ``list``. Both reach the same entries, and
both act when they are called: only the way of saying so differs.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any, TypeVar, overload

from dosql.errors import InvalidRequestError
from dosql.objects.kv_store import KeyValueStore, key_range
from dosql.objects.settled import Settled

T = TypeVar("T")
D = TypeVar("D")


Keys = list[str] | tuple[str, ...] | Set[str]


class _Missing:
    """Stands for an argument that was not given: None is a value."""


_MISSING = _Missing()


class SyncKV:
    """``ctx.storage.kv``."""

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store

    @overload
    def get(self, key: str, default: Any = None) -> Any: ...
    @overload
    def get(self, key: str, default: None = None, *, type: builtins.type[T]) -> T | None: ...
    @overload
    def get(self, key: str, default: D, *, type: builtins.type[T]) -> T | D: ...
    def get(self, key: str, default: Any = None, *, type: Any = None) -> Any:
        """The value under the key, or ``default``. With ``type`` it is converted to that: a
        dataclass, a msgspec.Struct, ``list[int]``...

        Raises:
            InvalidRequestError: ``type_mismatch``; ``invalid_key``.
        """
        return self._store.get(key, default, type)

    def put(self, key: str, value: object) -> None:
        """Store the value; None is one too.

        Raises:
            InvalidRequestError: ``value_not_storable``; ``invalid_key``.
            LimitError: ``value_too_large``.
        """
        self._store.put(key, value)

    def delete(self, key: str) -> bool:
        """Whether there was a value to delete."""
        return self._store.delete(key)

    def list(
        self,
        *,
        start: str | None = None,
        start_after: str | None = None,
        end: str | None = None,
        prefix: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """Walk over the entries in the order of their keys; ``end`` is not included.

        Each entry is as it is when its turn comes, so the loop may write and delete. A newer
        `list` ends this one: its next step raises ConflictError ``iterator_invalidated``.

        Raises:
            InvalidRequestError: ``invalid_list_options``.
        """
        return self._store.iterate(key_range(start, start_after, end, prefix, reverse, limit))


class AsyncKV:
    """What ``ctx.storage`` has of key-value storage. Every method has done its work when it
    returns; what it returns may be awaited, and need not be.

    Reads never wait here, so ``allow_concurrency`` and ``no_cache`` have no effect; they are
    accepted for code that comes from Cloudflare. What leaves the object does not wait for writes
    with ``allow_unconfirmed``.
    """

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store

    @property
    def _entries(self) -> KeyValueStore:
        """Where every operation goes; what this raises refuses them all."""
        return self._store

    @overload
    def get(
        self,
        key: str,
        default: Any = None,
        *,
        allow_concurrency: bool = False,
        no_cache: bool = False,
    ) -> Settled[Any]: ...
    @overload
    def get(
        self,
        key: str,
        default: None = None,
        *,
        type: builtins.type[T],
        allow_concurrency: bool = False,
        no_cache: bool = False,
    ) -> Settled[T | None]: ...
    @overload
    def get(
        self,
        key: str,
        default: D,
        *,
        type: builtins.type[T],
        allow_concurrency: bool = False,
        no_cache: bool = False,
    ) -> Settled[T | D]: ...
    @overload
    def get(
        self,
        key: Keys,
        *,
        type: None = None,
        allow_concurrency: bool = False,
        no_cache: bool = False,
    ) -> Settled[dict[str, Any]]: ...
    @overload
    def get(
        self,
        key: Keys,
        *,
        type: builtins.type[T],
        allow_concurrency: bool = False,
        no_cache: bool = False,
    ) -> Settled[dict[str, T]]: ...
    def get(
        self,
        key: str | Iterable[str],
        default: Any = None,
        *,
        type: Any = None,
        allow_concurrency: bool = False,
        no_cache: bool = False,
    ) -> Settled[Any]:
        """Of one key its value, or ``default``; of several a dict in the order of the keys,
        without those that have no value. ``type`` as in `SyncKV.get`."""
        if isinstance(key, str):
            return Settled(self._entries.get(key, default, type))
        return Settled(self._entries.get_many(key, type))

    @overload
    def put(
        self,
        key: str,
        value: object,
        *,
        allow_concurrency: bool = False,
        allow_unconfirmed: bool = False,
        no_cache: bool = False,
    ) -> Settled[None]: ...
    @overload
    def put(
        self,
        key: Mapping[str, object],
        *,
        allow_concurrency: bool = False,
        allow_unconfirmed: bool = False,
        no_cache: bool = False,
    ) -> Settled[None]: ...
    def put(
        self,
        key: str | Mapping[str, object],
        value: object = _MISSING,
        *,
        allow_concurrency: bool = False,
        allow_unconfirmed: bool = False,
        no_cache: bool = False,
    ) -> Settled[None]:
        """Store one value under a key, or all the values of a mapping, or none of them.

        Raises: as `SyncKV.put`.
        """
        if isinstance(key, Mapping) and value is _MISSING:
            self._entries.put_many(key, confirmed=not allow_unconfirmed)
        elif isinstance(key, Mapping) or value is _MISSING:
            raise InvalidRequestError(
                "put() takes a key and a value, or one mapping.", code="value_missing"
            )
        else:
            self._entries.put(key, value, confirmed=not allow_unconfirmed)
        return Settled(None)

    @overload
    def delete(
        self,
        key: str,
        *,
        allow_concurrency: bool = False,
        allow_unconfirmed: bool = False,
        no_cache: bool = False,
    ) -> Settled[bool]: ...
    @overload
    def delete(
        self,
        key: Iterable[str],
        *,
        allow_concurrency: bool = False,
        allow_unconfirmed: bool = False,
        no_cache: bool = False,
    ) -> Settled[int]: ...
    def delete(
        self,
        key: str | Iterable[str],
        *,
        allow_concurrency: bool = False,
        allow_unconfirmed: bool = False,
        no_cache: bool = False,
    ) -> Settled[bool] | Settled[int]:
        """Of one key whether it had a value; of several how many had one."""
        confirmed = not allow_unconfirmed
        if isinstance(key, str):
            return Settled(self._entries.delete(key, confirmed=confirmed))
        return Settled(self._entries.delete_many(key, confirmed=confirmed))

    def list(
        self,
        *,
        start: str | None = None,
        start_after: str | None = None,
        end: str | None = None,
        prefix: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
        allow_concurrency: bool = False,
        no_cache: bool = False,
    ) -> Settled[dict[str, Any]]:
        """All entries of the range in the order of their keys; ``end`` is not included.

        Raises:
            InvalidRequestError: ``invalid_list_options``.
            LimitError: ``result_too_large``: more than SQL_CURSOR_BYTES_MAX.
        """
        wanted = key_range(start, start_after, end, prefix, reverse, limit)
        return Settled(self._entries.collect(wanted))
