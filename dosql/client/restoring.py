"""RestoreReader: a restore's reply as it comes, cut into its lines."""

from __future__ import annotations

from collections.abc import Mapping

from dosql.client.calls import Reply, decode
from dosql.client.errors import error_from_reply
from dosql.client.files import Progress
from dosql.wire.restores import RestoreLine, RestoreReply

LINES = {"Accept": "application/x-ndjson", "Accept-Encoding": "identity"}


class RestoreReader:
    """Of one reply, whose ``headers`` must look names up in any case."""

    def __init__(self, headers: Mapping[str, str], progress: Progress) -> None:
        self._headers = headers
        self._progress = progress
        self._buffer = b""
        self._last: tuple[bytes, RestoreLine] | None = None

    @property
    def is_over(self) -> bool:
        """The outcome has come."""
        return self._last is not None

    def feed(self, data: bytes) -> None:
        """Tell what the lines that are complete now say.

        Raises:
            InternalError: ``invalid_reply``.
        """
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for raw in lines:
            line = decode(Reply(200, self._headers, raw), RestoreLine)
            if line.progress is None:
                self._last = raw, line
            else:
                self._progress(line.progress.bytes_read, line.progress.bytes_total)

    def result(self) -> RestoreReply:
        """What the last line says, once it `is_over`. Raises DosqlError: the last line is one."""
        assert self._last is not None
        raw, line = self._last
        if line.result is None:
            raise error_from_reply(line.status or 500, self._headers, raw)
        return line.result
