"""Snapshots: whole databases in the bucket, made by hand; and whether it holds what it should."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from dosql.bookmarks import Bookmark
from dosql.clock import iso_from_ms
from dosql.errors import ConflictError, CorruptError, NotFoundError
from dosql.host.cold_tier import ColdTier
from dosql.host.tenants import Tenants
from dosql.host.time_travel import TimeTravel
from dosql.log.records import ObjectKey
from dosql.replica.history import write_state
from dosql.replica.image_file import make_image
from dosql.replica.plan import SNAPSHOT_LEVEL, FileInfo, restore_plan
from dosql.replica.replica import Replica
from dosql.replica.verification import Report, verify
from dosql.wire.snapshots import DamagedFile, PruneReply, SnapshotInfo, VerifyReply


class Snapshots:
    """Of the tenants of a host. A snapshot is a file of the replica like those that compaction
    makes, so a restore reads it and what came after it, and so does Litestream's."""

    def __init__(
        self, tenants: Tenants, travel: TimeTravel, cold: ColdTier, *, scratch: Path
    ) -> None:
        self._tenants = tenants
        self._travel = travel
        self._cold = cold
        self._scratch = scratch
        self._count = 0

    async def create(self, name: str) -> SnapshotInfo:
        """Put the tenant's database as it is now into the bucket, as one file.

        Built from what the bucket has, so it also proves that this can be restored.

        Raises:
            NotFoundError: ``tenant_not_found``.
            ConflictError: ``tenant_empty``: there is nothing yet.
            UnavailableError: the bucket cannot be reached, or lacks the newest commits.
        """
        tenants = self._tenants
        key = tenants.entry(name).key
        txid = await self._newest(name, key)
        state = await self._travel.find(key, Bookmark(txid, key.incarnation))
        self._count += 1
        path = self._scratch / f"snapshot-{self._count}-{key.filename}"
        replica = self._cold.shipper.replica(key)
        size = await self._travel.on_thread(
            partial(self._put, replica, path, state.txid, state.timestamp_ms)
        )
        return _info(key, state.txid, size, state.timestamp_ms)

    async def _newest(self, name: str, key: ObjectKey) -> int:
        await self._tenants.in_bucket(name)
        txid = self._tenants.awake.txid(key)
        if not txid:  # nothing here: it may be in the bucket only
            txid = await self._cold.replicated_txid(key, 0)
        if not txid:
            raise ConflictError("The tenant has no database yet.", code="tenant_empty")
        return txid

    def _put(self, replica: Replica, path: Path, txid: int, timestamp_ms: int) -> int:
        target = path.with_suffix(".ltx")
        try:
            image = write_state(replica, txid, path)
            assert image is not None
            file = make_image(
                path,
                target,
                page_size=image.page_size,
                min_txid=1,
                txid=txid,
                timestamp_ms=timestamp_ms,
                epoch=self._cold.shipper.epoch,
            )
            file.put_snapshot(replica)
            return file.size
        finally:
            path.unlink(missing_ok=True)
            target.unlink(missing_ok=True)

    async def list(self, name: str) -> list[SnapshotInfo]:
        """All snapshots of the tenant, whoever made them, the oldest first."""
        key = self._tenants.entry(name).key
        replica = self._cold.shipper.replica(key)

        def found() -> list[SnapshotInfo]:
            infos: list[SnapshotInfo] = []
            for each in _snapshots(replica):
                try:
                    at_ms = replica.header(each).timestamp_ms
                except CorruptError:
                    continue  # removed meanwhile
                infos.append(_info(key, each.max_txid, each.size, at_ms))
            return infos

        return await self._travel.on_thread(found)

    async def delete(self, name: str, bookmark: Bookmark) -> None:
        """Remove a snapshot that nothing needs: what came after it can be restored without it.

        Raises:
            NotFoundError: ``snapshot_not_found``.
            ConflictError: ``snapshot_needed``: it is the only way to its state.
        """
        key = self._tenants.entry(name).key
        replica = self._cold.shipper.replica(key)

        def remove() -> None:
            all_files = replica.files()
            wanted = [
                each
                for each in all_files
                if each.level == SNAPSHOT_LEVEL and each.max_txid == bookmark.txid
            ]
            if not wanted or bookmark.incarnation != key.incarnation:
                raise NotFoundError("There is no such snapshot.", code="snapshot_not_found")
            others = [each for each in all_files if each not in wanted]
            try:
                restore_plan(others, bookmark.txid)
            except (NotFoundError, CorruptError):
                raise ConflictError(
                    "Without this snapshot its state could not be restored.",
                    code="snapshot_needed",
                ) from None
            replica.bucket.delete([replica.key(each) for each in wanted])

        async with self._cold.compaction.removing:
            await self._travel.on_thread(remove)

    async def verify(
        self, name: str, *, everything: bool = False, repair: bool = False
    ) -> VerifyReply:
        """Read the files that restore the newest state, or all that the bucket has of the tenant;
        restore it, and have SQLite check it. ``repair``: make damaged files anew, as far as others
        hold the same.

        Raises:
            NotFoundError: ``tenant_not_found``.
            ConflictError: ``tenant_empty``: there is nothing yet.
            UnavailableError: the bucket cannot be reached, or lacks the newest commits.
        """
        key = self._tenants.entry(name).key
        txid = await self._newest(name, key)
        await self._travel.shipped(key)
        replica = self._cold.shipper.replica(key)

        def work() -> Report:
            found = verify(replica, self._scratch, everything=everything, repair=repair)
            if found.damaged:  # what retention removed meanwhile is none of it
                there = {replica.key(each) for each in replica.files()}
                found.damaged = [d for d in found.damaged if replica.key(d.file) in there]
            return found

        report = await self._travel.on_thread(work)
        if report.failure is None and report.txid < txid:
            report.failure = f"TXID {txid} cannot be restored, only {report.txid}."
        return _verified(key, report)

    async def prune(self, name: str, *, dry_run: bool = False) -> PruneReply:
        """Remove now what retention lets go of, or only tell what that is.

        Raises:
            NotFoundError: ``tenant_not_found``.
            UnavailableError: the bucket cannot be reached; a part may be removed.
        """
        key = self._tenants.entry(name).key
        gone = await self._cold.compaction.sweep(key, dry_run=dry_run)
        return PruneReply(
            files=len(gone),
            snapshots=sum(each.level == SNAPSHOT_LEVEL for each in gone),
            size_bytes=sum(each.size for each in gone),
            dry_run=dry_run,
        )


def _verified(key: ObjectKey, report: Report) -> VerifyReply:
    restored = report.txid > 0
    return VerifyReply(
        sound=report.is_sound,
        failure=report.failure,
        bookmark=str(Bookmark(report.txid, key.incarnation)) if restored else None,
        at=iso_from_ms(report.timestamp_ms) if restored else None,
        size_bytes=report.database_bytes,
        files=report.files,
        bytes_read=report.bytes,
        damaged=[
            DamagedFile(each.file.level, each.file.name, each.reason, each.repaired)
            for each in report.damaged
        ],
    )


def _snapshots(replica: Replica) -> list[FileInfo]:
    found = [each for each in replica.files() if each.level == SNAPSHOT_LEVEL]
    return sorted(found, key=lambda each: each.max_txid)


def _info(key: ObjectKey, txid: int, size: int, at_ms: int) -> SnapshotInfo:
    return SnapshotInfo(
        bookmark=str(Bookmark(txid, key.incarnation)),
        txid=txid,
        size_bytes=size,
        created_at=iso_from_ms(at_ms),
    )
