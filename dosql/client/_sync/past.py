# Generated from dosql/client/_async by scripts/generate_sync.py; do not edit.
"""PastTenant: the database of one tenant as it was."""

from __future__ import annotations

from collections.abc import Mapping

from dosql.client._sync.reads import Reads
from dosql.client._sync.transport import Transport
from dosql.client.calls import ReadType, Reply, past_statement_call
from dosql.client.points import Point, query_point
from dosql.wire.values import Params


class PastTenant(Reads):
    """Reads of one tenant's database at one point in time.

    Beside what reads of the present may raise: NotFoundError (``restore_point_not_found``) if the
    state is not kept, ForbiddenError (``read_only``) for a statement that writes, and
    InvalidRequestError (``no_bucket``) if the server has none.
    """

    def __init__(
        self, transport: Transport, name: str, headers: Mapping[str, str], point: Point
    ) -> None:
        self._transport = transport
        self._headers = headers
        self._at = query_point(point)
        self.name = name
        self.last_bookmark: str | None = None
        """The state that the newest reply was read from: the newest that is kept and not younger
        than the point."""

    def _send_statement(
        self,
        statement_type: ReadType,
        sql: str,
        params: Params | None,
        *,
        arrays: bool = False,
    ) -> Reply:
        call = past_statement_call(
            statement_type, self._at, sql, params, headers=self._headers, rows_as_arrays=arrays
        )
        reply = self._transport.send(call)
        self.last_bookmark = reply.headers.get("dosql-bookmark", self.last_bookmark)
        return reply
