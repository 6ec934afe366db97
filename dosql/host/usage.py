"""Usage: when each object was used last, and how large it is; written down now and then.

No reply waits for it, and a crash may lose the newest of it.
"""

from __future__ import annotations

import contextlib

from dosql.clock import Clock
from dosql.errors import DosqlError
from dosql.host.catalog import Catalog, Use
from dosql.log.records import ObjectKey
from dosql.objects.instance import Instance

_PENDING_MAX = 1_000


class Usage:
    """Collects what sleeping objects leave behind."""

    def __init__(self, catalog: Catalog, clock: Clock, schema_version: int) -> None:
        self._catalog = catalog
        self._clock = clock
        self._schema_version = schema_version
        self._names: dict[ObjectKey, str] = {}
        """Names of the objects that are awake."""
        self._pending: dict[ObjectKey, tuple[str, Use]] = {}

    def woke(self, key: ObjectKey, name: str) -> None:
        """The object of this name is awake."""
        self._names[key] = name

    def slept(self, instance: Instance) -> None:
        """The object goes to sleep."""
        name = self._names.pop(instance.key, None)
        if name is not None:
            self._pending[instance.key] = (name, self.now(instance))
            if len(self._pending) >= _PENDING_MAX:
                with contextlib.suppress(DosqlError):  # the object must get its sleep
                    self.record()

    def now(self, instance: Instance) -> Use:
        """The use of an object that is awake."""
        idle_ms = int((self._clock.monotonic() - instance.used_at) * 1000)
        last_used = self._clock.now_ms() - idle_ms
        return Use(last_used, instance.size_bytes, self._schema_version)

    def pending(self, key: ObjectKey) -> Use | None:
        """What is not written down yet of an object that sleeps."""
        return self._pending.get(key, ("", None))[1]

    def forget(self, key: ObjectKey) -> None:
        """The object is gone."""
        self._names.pop(key, None)
        self._pending.pop(key, None)

    def record(self) -> None:
        """Write what was collected to the catalog, in one transaction."""
        pending, self._pending = self._pending, {}
        if pending:
            self._catalog.record_use(
                [(name, key.incarnation, use) for key, (name, use) in pending.items()]
            )
