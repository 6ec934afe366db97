"""Link: a small file in the bucket that says of which other object's state this one is a copy.

It counts as long as the object has no files of its own. JSON: ``{"format": 1, "path": the replica's
prefix in the same bucket, "txid": the state}``.
"""

from __future__ import annotations

import msgspec

from dosql.errors import CorruptError
from dosql.replica.bucket_errors import KeyMissingError
from dosql.replica.replica import Replica

_FORMAT = 1


class Link(msgspec.Struct, frozen=True):
    """Where the history of an object begins."""

    path: str
    """Of the other replica."""
    txid: int


class _Stored(msgspec.Struct):
    format: int
    path: str
    txid: int


def write_link(replica: Replica, link: Link) -> None:
    """Store it. Blocking. Raises UnavailableError, OutcomeUnknownError."""
    data = msgspec.json.encode(_Stored(_FORMAT, link.path, link.txid))
    replica.bucket.put(replica.layout.link_key, data)


def read_link(replica: Replica) -> Link | None:
    """What is stored. Blocking. Raises CorruptError if it cannot be understood."""
    try:
        stored = msgspec.json.decode(replica.bucket.get(replica.layout.link_key), type=_Stored)
    except KeyMissingError:
        return None
    except msgspec.DecodeError as error:
        raise CorruptError("The link of a branch is damaged.") from error
    if stored.format != _FORMAT:
        raise CorruptError("The link of a branch is of a format that is not known.")
    return Link(stored.path, stored.txid)
