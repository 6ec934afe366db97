"""One JSON line per request, and one more for a request that failed on our side.

Never in a line: statements, parameters, tokens, query strings, raw paths.
"""

from __future__ import annotations

import traceback
from typing import Literal

import msgspec

from dosql.clock import Clock, iso_from_ms
from dosql.errors import DosqlError, InternalError, ObjectError
from server.context import RequestContext
from server.log_writer import LogWriter

LogLevel = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[LogLevel, ...] = ("debug", "info", "warning", "error")

_encode = msgspec.json.Encoder().encode


class AccessLog:
    """Writes the lines that the configured level lets through."""

    def __init__(self, writer: LogWriter, clock: Clock, level: LogLevel) -> None:
        self._write = writer.write
        self._clock = clock
        rank = LEVELS.index(level)
        # The lowest status that is worth a line: everything, refusals, failures.
        self._status_min = 0 if rank <= 1 else 400 if rank == 2 else 500
        self._second = -1
        self._second_text = ""

    def request(self, context: RequestContext, method: str, seconds: float) -> None:
        """The line of one request. Status 499: the client went away before the reply began."""
        status = context.status or 499
        if status < self._status_min:
            return
        level = "info" if status < 400 else "warning" if status < 500 else "error"
        principal, tenant, error = context.principal, context.tenant, context.error
        # Every value below is from a fixed set or was matched against a strict pattern.
        line = (
            f'{{"ts":"{self._timestamp()}","level":"{level}","event":"request",'
            f'"requestId":"{context.request_id}","method":"{method}","route":"{context.route}",'
            f'"status":{status},"durationMs":{seconds * 1000:.3f},'
            f'"tenant":{_text(None if tenant is None else tenant.name)},'
            f'"principal":{_text(None if principal is None else principal.kind)}'
        )
        if context.namespace is not None:
            line += (
                f',"namespace":"{context.namespace}","object":{_encode(context.object).decode()}'
            )
        if error is not None:
            line += f',"error":"{type(error).__name__}","code":{_text(context.code)}'
        self._write((line + "}").encode())

    def failure(self, context: RequestContext, method: str) -> None:
        """What the client is not told: the exception behind a reply of 500 or more."""
        error = context.error
        if error is None:
            return
        # A program's own exception, or a mistake of it that one of ours found.
        while isinstance(error, InternalError | ObjectError) and error.__cause__ is not None:
            error = error.__cause__
        is_of_program = error is not context.error or not isinstance(error, DosqlError)
        line = {
            "ts": self._timestamp(),
            "level": "error",
            "event": "request_failed",
            "requestId": context.request_id,
            "name": type(error).__name__,
            "message": str(error),
            "path": context.route,
            "method": method,
            "traceback": "".join(traceback.format_exception(error)) if is_of_program else None,
        }
        if context.namespace is not None:
            line |= {"namespace": context.namespace, "object": context.object}
        self._write(_encode(line))

    def _timestamp(self) -> str:
        now_ms = self._clock.now_ms()
        second, ms = divmod(now_ms, 1000)
        if second != self._second:
            self._second, self._second_text = second, iso_from_ms(second * 1000)[:-4]
        return f"{self._second_text}{ms:03d}Z"


def _text(value: str | None) -> str:
    return "null" if value is None else f'"{value}"'
