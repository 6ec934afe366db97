"""Orphans: of which objects something may be left that the catalog does not know.

An import puts its file in place before the catalog names it, and a branch its link. A removal
takes the object off the catalog, in one flush of the commit log with the record that it is gone,
before its files go, from the disk and from the bucket, which may take days to answer. Whatever
moment a server dies at, the next one finds the object in the commit log or by a marker here, and
removes what is left of it. It looks at nothing else: the markers are as many as the interrupted
imports and removals.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from enum import Flag, auto

from dosql.host.key_markers import KeyMarkers
from dosql.log.records import ObjectKey


class Part(Flag):
    """Where something of an object is."""

    DISK = auto()
    BUCKET = auto()


class Orphans:
    """Safe from any thread. What the markers are changed by blocks."""

    def __init__(self, markers: KeyMarkers) -> None:
        self._markers = markers
        self._lock = threading.Lock()
        self._leaving: dict[ObjectKey, Part] = {}

    # --- objects that come into being ---------------------------------------------------------

    def coming(self, key: ObjectKey) -> None:
        """Files are about to be put somewhere; the catalog will know of the object afterwards.
        Durable when this returns; blocks."""
        self._markers.add([key])

    def settled(self, key: ObjectKey) -> None:
        """The catalog knows of it now, or there never was a file. Blocks, but not for long."""
        self._markers.remove(key)

    # --- objects that cease to exist ----------------------------------------------------------

    def leaving(self, key: ObjectKey, parts: Part) -> None:
        """The commit log says that the object is gone, and may forget it only after `note`."""
        with self._lock:
            self._leaving[key] = parts

    def removed(self, key: ObjectKey, part: Part) -> None:
        """Nothing is left of it there. Blocks, but not for long."""
        with self._lock:
            rest = self._leaving.get(key, Part(0)) & ~part
            if rest:
                self._leaving[key] = rest
                return
            self._leaving.pop(key, None)
        self._markers.remove(key)

    def note(self, keys: Iterable[ObjectKey] = ()) -> None:
        """Before the commit log is cut: mark these, and all that are leaving. Blocks."""
        with self._lock:
            leaving = list(self._leaving)
        self._markers.add([*keys, *leaving])
        for key in leaving:
            with self._lock:
                went = key not in self._leaving
            if went:
                self._markers.remove(key)

    # --- after a restart ----------------------------------------------------------------------

    def all(self) -> list[ObjectKey]:
        """Those that an earlier run left behind, or that are under way."""
        return self._markers.all()
