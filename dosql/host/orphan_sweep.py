"""What an earlier run left unfinished is finished: objects that the catalog has not are removed."""

from __future__ import annotations

import logging
from collections.abc import Callable

from dosql.errors import DosqlError
from dosql.host.behind import Behind
from dosql.host.file_threads import FileThreads
from dosql.host.file_upkeep import FileUpkeep
from dosql.host.orphans import Orphans, Part
from dosql.host.seeds import Seeds
from dosql.log.records import ObjectKey

_log = logging.getLogger("dosql.host")


async def sweep(
    orphans: Orphans,
    seeds: Seeds,
    behind: Behind | None,
    upkeep: FileUpkeep,
    threads: FileThreads,
    *,
    is_known: Callable[[ObjectKey], bool],
    has_file: Callable[[ObjectKey], bool],
) -> None:
    """Remove from the disk what the catalog does not know, and leave in ``seeds.dropped`` whose
    files are to go from the bucket. An object that it knows was imported a moment before the end:
    ``behind`` gets it, because nobody else may know that the bucket lacks its file."""
    gone = [key for key in {*seeds.dropped, *orphans.all()} if not is_known(key)]
    for key in orphans.all():
        if not is_known(key):
            continue

        def settle(key: ObjectKey = key) -> None:
            if behind is not None and has_file(key):
                behind.add([key])
            orphans.settled(key)

        await threads.run(settle)
    for key in gone:
        orphans.leaving(key, Part.DISK if behind is None else Part.DISK | Part.BUCKET)
        try:
            await upkeep.remove(key)
        except DosqlError:  # the next start tries again
            _log.warning("the files of an object that is gone were not removed", exc_info=True)
    seeds.dropped[:] = gone
    if gone:
        _log.info("removed what was left of %d objects", len(gone))
