"""Behind: which objects the bucket may lack something of, so that a restart knows.

The commit log says so as long as it holds their commits; when it is cut, or the server stops, a
marker per object takes over. To look at one that is marked in vain does no harm.
"""

from __future__ import annotations

from pathlib import Path

from dosql.host.key_markers import KeyMarkers
from dosql.log.disk import Disk
from dosql.log.records import ObjectKey


class Behind(KeyMarkers):
    """The markers in one directory."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        super().__init__(directory, disk)
        self.tails: dict[ObjectKey, int] = {}
        """Newest batch that the commit log had of an object at the start."""
