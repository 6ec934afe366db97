"""Feeding lines to a session: from a pipe, a file, or the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from dosql.cli.output import describe
from dosql.cli.shell.commands import Quit, run_command
from dosql.cli.shell.session import Session
from dosql.cli.shell.statements import is_blank, split_statements
from dosql.errors import DosqlError, InvalidRequestError

FILES_DEEP_MAX = 10
"""`.read` within `.read`: deeper is a file that reads itself."""


class Feeder:
    """Collects lines until they make a statement or a dot command, and runs it."""

    def __init__(self, session: Session, depth: int = 0) -> None:
        self._session = session
        self._depth = depth
        self._pending = ""

    def feed(self, line: str) -> None:
        """Take one line, with its line end; runs all that is complete now.

        Raises:
            DosqlError: something failed; what was collected is dropped.
            Quit: the session is to end.
        """
        if line.lstrip().startswith(".") and is_blank(self._pending):
            self._pending = ""
            run_command(self._session, line.strip(), self._read_file)
            return
        self._pending += line
        if ";" not in line:
            return
        statements, rest = split_statements(self._pending)
        self._pending = ""
        for statement in statements:
            self._session.execute(statement)
        self._pending = rest

    def finish(self) -> None:
        """The input is over: run what lacks only its semicolon."""
        rest, self._pending = self._pending, ""
        if not is_blank(rest):
            self._session.execute(rest.strip())

    def _read_file(self, name: str) -> None:
        if self._depth >= FILES_DEEP_MAX:
            raise InvalidRequestError(".read is nested too deeply.", code="shell_command")
        with open(name, encoding="utf-8-sig", newline="") as file:
            feed_all(Feeder(self._session, self._depth + 1), file, name)


def feed_all(feeder: Feeder, lines: Iterable[str], name: str) -> None:
    """Feed a whole file; an error says at which line of it the statement ended."""
    number = 0
    try:
        for line in lines:
            number += 1
            feeder.feed(line)
        feeder.finish()
    except DosqlError as exc:
        exc.message = f"{name}, line {number}: {exc.message}"
        raise
    except UnicodeDecodeError:
        raise InvalidRequestError(
            f"{name}, after line {number}: not UTF-8 text.", code="invalid_encoding"
        ) from None


def run_script(session: Session, lines: Iterable[str], name: str) -> bool:
    """Run everything up to the first error, which is printed. Returns whether there was none."""
    try:
        feed_all(Feeder(session), lines, name)
    except Quit:
        return True
    except DosqlError as exc:
        session.note(f"dosql: {describe(exc)}")
        return False
    except BrokenPipeError:
        raise
    except OSError as exc:
        session.note(f"dosql: {exc.filename or name}: {exc.strerror}")
        return False
    return True
