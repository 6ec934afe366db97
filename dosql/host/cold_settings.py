"""ColdTierSettings: what an operator chooses of the bucket."""

from __future__ import annotations

import msgspec

from dosql.durability import Durability
from dosql.replica.bucket import Bucket
from dosql.replica.retention import RetentionSettings


class ColdTierSettings(msgspec.Struct, frozen=True):
    """Where copies go, and whether replies wait for them."""

    bucket: Bucket
    prefix: str = "objects/"
    """What all keys begin with."""
    directory: bool = False
    """Whether the bucket is a directory of this machine: then files lie where Litestream looks
    for them in one."""
    durability: Durability = "local"
    url_options: str = ""
    """What Litestream needs behind the URL of a replica, from the ``?`` on."""
    accept_catalog_at: int | None = None
    """An operator goes on with the catalog as the bucket has it, damaged here and incomplete
    there, if this is the newest TXID that it has."""
    retention: RetentionSettings = msgspec.field(default_factory=RetentionSettings)
    """For how long states can be restored."""
