"""Log lines as JSON on stderr, written by a thread: a stalled pipe never stalls requests."""

from __future__ import annotations

import logging
import os
import threading
from queue import SimpleQueue

import msgspec

from dosql.clock import Clock, iso_from_ms

_FLUSH_LINES = 4_096
"""Lines in one write."""
_BACKLOG_MAX = 20_000
"""Lines that may wait for a slow reader; beyond it they are dropped and counted."""
_WAIT_S = 0.05
"""How long a line may wait for company: one write for many lines."""

_encode = msgspec.json.Encoder().encode


class LogWriter:
    """Takes lines from any thread; `close` writes out what is left."""

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closing = threading.Event()
        self.dropped = 0
        """Lines lost because the reader of stderr was too slow."""

    def write(self, line: bytes) -> None:
        """Queue one line, without its line feed."""
        if self._queue.qsize() >= _BACKLOG_MAX:
            self.dropped += 1
            return
        self._queue.put(line)
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dosql-log", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            self._closing.wait(_WAIT_S)  # let more lines gather; not once it closes
            if not self._put_out_queued([first]):
                return

    def _put_out_queued(self, lines: list[bytes]) -> bool:
        """Write these lines and all that are queued; False at the end."""
        while not self._queue.empty():
            line = self._queue.get()
            if line is None:
                self._put_out(lines)
                return False
            lines.append(line)
            if len(lines) >= _FLUSH_LINES:
                self._put_out(lines)
                lines = []
        self._put_out(lines)
        return True

    def _put_out(self, lines: list[bytes]) -> None:
        lines.append(b"")
        rest = memoryview(b"\n".join(lines))
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            self.dropped += len(lines) - 1

    def close(self) -> None:
        """Write what is queued; waits for a stalled reader one second at most."""
        self._closing.set()
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout=1)


class JsonHandler(logging.Handler):
    """What the standard library's loggers say, in the shape of our own lines."""

    def __init__(self, writer: LogWriter, clock: Clock) -> None:
        super().__init__()
        self._writer = writer
        self._clock = clock

    def emit(self, record: logging.LogRecord) -> None:
        """Never raises: a log line must not fail what it tells of."""
        try:
            line: dict[str, object] = {
                "ts": iso_from_ms(self._clock.now_ms()),
                "level": record.levelname.lower(),
                "event": "log",
                "logger": record.name,
                "message": record.getMessage(),
            }
            if record.exc_info and record.exc_info[1] is not None:
                line["traceback"] = logging.Formatter().formatException(record.exc_info)
            self._writer.write(_encode(line))
        except Exception:
            self.handleError(record)
