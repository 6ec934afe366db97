"""Where a `LocalBucket` keeps the metadata of a key.

Extended attributes get lost on the way through archives and some file systems, and a second file
per key would double the syncs. An LTX file needs one entry only, its timestamp, and a file replica
of Litestream keeps that as the file's mtime: so do we for names that end in ``.ltx``, in ms; one
that was put without a timestamp has the time of the write. Any other entry goes to a JSON file
below ``.bucket/metadata``, named after key and ETag, and durable before the content is there.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from datetime import datetime

from msgspec.structs import replace

from dosql.clock import iso_from_ms
from dosql.replica.bucket import TIMESTAMP_METADATA, ObjectInfo
from dosql.replica.local_files import LocalLayout, etag_of, sync_directory

_NS_PER_MS = 1_000_000


class LocalMetadata:
    """All calls raise OSError."""

    def __init__(self, layout: LocalLayout) -> None:
        self._layout = layout

    def complete(self, info: ObjectInfo) -> ObjectInfo:
        """The info with its metadata."""
        found = _in_mtime(info)
        with contextlib.suppress(FileNotFoundError):
            path = self._layout.metadata_path(info.key, info.etag)
            found.update(json.loads(path.read_text(encoding="ascii")))
        return replace(info, metadata=found)

    def keep(self, info: ObjectInfo, metadata: Mapping[str, str]) -> None:
        """Make durable what the file itself does not say."""
        known = _in_mtime(info)
        kept = {name: value for name, value in metadata.items() if value != known.get(name)}
        if not kept:
            return
        with self._layout.metadata_path(info.key, info.etag).open("w", encoding="ascii") as file:
            json.dump(kept, file)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(self._layout.metadata)

    def forget(self, key: str, etag: str) -> None:
        """The content is gone."""
        self._layout.metadata_path(key, etag).unlink(missing_ok=True)


def info_of(key: str, status: os.stat_result) -> ObjectInfo:
    """Of the file, without metadata."""
    return ObjectInfo(key, status.st_size, etag_of(status), status.st_mtime_ns // _NS_PER_MS)


def timestamp_ns(key: str, metadata: Mapping[str, str]) -> int | None:
    """The timestamp of an LTX file, if it is one of ours or of Litestream's; else None."""
    text = metadata.get(TIMESTAMP_METADATA)
    if text is None or not key.endswith(".ltx"):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return round(moment.timestamp() * 1000) * _NS_PER_MS if moment.tzinfo else None


def _in_mtime(info: ObjectInfo) -> dict[str, str]:
    """What the file says without a second one."""
    if not info.key.endswith(".ltx"):
        return {}
    return {TIMESTAMP_METADATA: iso_from_ms(info.modified_ms)}
