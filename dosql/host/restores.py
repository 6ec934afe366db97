"""Restores: a past state of a tenant becomes another tenant, or the present of the same one."""

from __future__ import annotations

from pathlib import Path

from dosql.bookmarks import Bookmark
from dosql.clock import Clock, iso_from_ms
from dosql.host.forward_step import forward_step
from dosql.host.names import check_tenant_name
from dosql.host.past_states import prepare_state, replace_state
from dosql.host.restore_progress import RestoreProgress
from dosql.host.tenants import Tenants
from dosql.host.time_travel import TimeTravel
from dosql.log.records import ObjectKey
from dosql.objects.instance import Instance
from dosql.points import parse_point
from dosql.replica.reading import OnProgress, unwatched
from dosql.sqlite.change_log import Retention
from dosql.wire.restores import RestoreReply


class Restores:
    """Of the tenants of a host. Only whole, checked states are put anywhere."""

    def __init__(
        self, tenants: Tenants, travel: TimeTravel, *, clock: Clock, retention: Retention
    ) -> None:
        self._tenants = tenants
        self._travel = travel
        self._clock = clock
        self._retention = retention

    async def restore(
        self,
        name: str,
        at: str,
        to: str | None = None,
        *,
        dry_run: bool = False,
        on_progress: OnProgress = unwatched,
    ) -> RestoreReply:
        """Take the tenant back to a point; or, with ``to``, make a tenant of its past and leave it
        alone. Durable when it returns.

        In place it is a commit like any other: it is one step of the history, which goes on, so
        that it can be taken back; whoever waits for the object sees the state before or after it.

        ``on_progress``: first called when nothing can be refused any more but what is found while
        the work goes on; see `RestoreProgress`. On any thread.

        Raises:
            InvalidRequestError: ``invalid_time``, ``invalid_bookmark``, ``invalid_tenant_name``.
            NotFoundError: ``tenant_not_found``, ``restore_point_not_found``.
            ConflictError: ``tenant_exists``: there is a tenant ``to``.
            MigrationError: the schema of the state cannot be brought up to date.
        """
        point = parse_point(at)
        tenants, travel = self._tenants, self._travel
        key = tenants.entry(name).key
        if to is not None:
            check_tenant_name(to)
            tenants.check_free(to)
        await tenants.in_bucket(name)
        state = await travel.find(key, point)
        undo: Bookmark | None = None
        progress = RestoreProgress(state.bytes, on_progress)
        async with travel.copy(key, state.txid, progress) as path:
            size = path.stat().st_size
            if dry_run:
                pass
            elif to is None:
                undo = await self._replace(name, key, path)
            elif size:
                await tenants.import_file(to, path, new=True)
            else:
                await tenants.create(to)
        return RestoreReply(
            tenant=name if to is None else to,
            bookmark=str(Bookmark(state.txid, key.incarnation)),
            undo_bookmark=None if undo is None else str(undo),
            at=iso_from_ms(state.timestamp_ms or tenants.entry(name).created_at_ms),
            size_bytes=size,
            files=len(state.files),
            bytes_read=state.bytes,
            dry_run=dry_run,
        )

    async def _replace(self, name: str, key: ObjectKey, path: Path) -> Bookmark:
        async def work(instance: Instance) -> None:
            await self._replace_in_turn(instance, path)

        done = await forward_step(self._tenants, self._travel, name, key, work)
        return done.before

    async def _replace_in_turn(self, instance: Instance, path: Path) -> None:
        key, clock, retention = instance.key, self._clock, self._retention
        captured = instance.db.capture is not None
        migrations = self._tenants.settings.migrations

        def prepare() -> None:
            prepare_state(
                path,
                key,
                clock=clock,
                retention=retention,
                captured=captured,
                migrations=migrations,
            )

        await self._tenants.file_threads.run(prepare)
        await instance.run_on_thread(
            lambda db: replace_state(db, path, key, clock=clock, retention=retention),
            instance.statement_s,
        )
