"""Storage: a data directory that this process has, brought to its last durable commit."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from dosql.clock import Randomness
from dosql.errors import UnavailableError
from dosql.host.behind import Behind
from dosql.host.data_directory import DataDirectory
from dosql.host.host_settings import HostSettings
from dosql.host.key_markers import KeyMarkers
from dosql.host.orphans import Orphans
from dosql.host.seeds import Seeds
from dosql.log.disk import Disk
from dosql.log.node_log import NodeLog
from dosql.log.redo import Redo, RedoReport
from dosql.log.segments import damaged

_log = logging.getLogger("dosql.host")


class Storage(msgspec.Struct, frozen=True):
    """To be released by whoever opened it: the log first."""

    directory: DataDirectory
    log: NodeLog
    seeds: Seeds
    """What was in the log, which is empty now."""
    behind: Behind | None
    """None without a bucket."""
    orphans: Orphans


def open_storage(settings: HostSettings, disk: Disk, randomness: Randomness) -> Storage:
    """Lock the data directory, and redo what an unclean stop left behind.

    Raises:
        ConflictError: ``data_dir_locked``: another process has the directory.
        CorruptError: ``log_damaged``: acknowledged commits may be missing.
        UnavailableError: a file could not be read or written; nothing is lost by it.
    """
    directory = DataDirectory(settings.data_dir)
    try:
        return _open(settings, directory, disk, randomness)
    except OSError as error:
        directory.release()
        raise unusable(error) from error
    except BaseException:
        directory.release()
        raise


def _open(
    settings: HostSettings, directory: DataDirectory, disk: Disk, randomness: Randomness
) -> Storage:
    orphans = Orphans(KeyMarkers(directory.orphans, disk))
    disk.sync_dir(directory.root)
    disk.sync_dir(directory.root.absolute().parent)
    log = NodeLog(
        directory.log,
        disk=disk,
        randomness=randomness,
        segment_bytes=settings.log_segment_bytes,
    )
    if log.is_new and directory.has_objects():
        raise damaged("it is missing, though there are objects")
    seeds, behind = Seeds(), None
    if settings.cold is not None:
        behind = Behind(directory.behind, disk)
        url = settings.cold.bucket.url
        if directory.bucket() != url:
            behind.add(directory.keys())
            directory.note_bucket(url, disk)
    recover(log, directory.objects, disk, seeds, behind, orphans)
    return Storage(directory, log, seeds, behind, orphans)


def recover(
    log: NodeLog,
    objects: Path,
    disk: Disk,
    seeds: Seeds | None = None,
    behind: Behind | None = None,
    orphans: Orphans | None = None,
) -> RedoReport:
    """Bring every file to the last durable commit, then start the log afresh. ``seeds`` get what
    was in it, ``behind`` whose it was, and ``orphans`` who ceased to exist.

    Raises:
        CorruptError: ``log_damaged``.
    """
    history = log.history()
    if behind is not None and seeds is not None:
        history = seeds.watch(history)
    report = Redo(objects, disk).run(history)
    for key, reason in report.damaged.items():
        _log.error("object %s is damaged and will not be served: %s", key.id.hex(), reason)
    if report.records:
        _log.info("redid %d commits of %d objects", report.records, report.objects)
    if behind is not None and seeds is not None:
        behind.add(seeds.batches)
        behind.tails = seeds.tails
        if orphans is not None:
            orphans.note(seeds.dropped)
    log.cut_all(keep_aside=bool(report.damaged))
    return report


def unusable(error: OSError) -> UnavailableError:
    """The data directory cannot be read or written."""
    return UnavailableError(f"The data directory cannot be used: {error.strerror or error}.")
