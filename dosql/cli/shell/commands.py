"""The dot commands."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dosql.cli.formats import MODES
from dosql.cli.shell.dump import dump
from dosql.cli.shell.importer import import_csv
from dosql.cli.shell.session import Session
from dosql.errors import ForbiddenError, InvalidRequestError

ReadFile = Callable[[str], None]
"""Runs a file's content as if it had been typed."""

_OWN_OBJECTS = r"name NOT LIKE 'sqlite\_%' ESCAPE '\' AND tbl_name NOT LIKE '\_dosql\_%' ESCAPE '\'"
_SHADOW = "name NOT IN (SELECT name FROM pragma_table_list WHERE type = 'shadow')"


class Quit(Exception):
    """The session is to end."""


@dataclass(frozen=True, slots=True)
class Command:
    """One dot command; takes ``words_min`` to ``words_max`` words after its name."""

    usage: str
    summary: str
    words_min: int
    words_max: int
    run: Callable[[Session, list[str], ReadFile], None]


def run_command(session: Session, line: str, read_file: ReadFile) -> None:
    """Run one line that starts with a dot.

    Raises:
        InvalidRequestError: ``shell_command``: unknown, or wrong words.
        DosqlError: what the command itself met.
        Quit: it was ``.quit``.
    """
    try:
        name, *words = shlex.split(line.rstrip(";"))
    except ValueError as exc:
        raise _wrong(f"{exc}.") from None
    command = _COMMANDS.get(name)
    if command is None:
        raise _wrong(f"There is no command {name}; .help lists them.")
    if not command.words_min <= len(words) <= command.words_max:
        raise _wrong(f"Usage: {command.usage}")
    command.run(session, words, read_file)


def _wrong(sentence: str) -> InvalidRequestError:
    return InvalidRequestError(sentence, code="shell_command")


def _names(session: Session, sql: str, words: list[str]) -> list[str]:
    rows = session.guard(lambda: session.database.query_rows(sql, words))
    return [str(row[0]) for row in rows.rows]


def _print_lines(session: Session, lines: list[str]) -> None:
    for line in lines:
        print(line, file=session.out)
    session.out.flush()


def _tables(session: Session, words: list[str], read_file: ReadFile) -> None:
    pattern = " AND name LIKE ?" if words else ""
    sql = (
        "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') "
        f"AND {_OWN_OBJECTS} AND {_SHADOW}{pattern} ORDER BY name"
    )
    _print_lines(session, _names(session, sql, words))


def _indexes(session: Session, words: list[str], read_file: ReadFile) -> None:
    table = " AND lower(tbl_name) = lower(?)" if words else ""
    sql = (
        "SELECT name FROM sqlite_schema WHERE type = 'index' "
        f"AND {_OWN_OBJECTS}{table} ORDER BY name"
    )
    _print_lines(session, _names(session, sql, words))


def _schema(session: Session, words: list[str], read_file: ReadFile) -> None:
    table = " AND lower(tbl_name) = lower(?)" if words else ""
    sql = (
        "SELECT sql || ';' FROM sqlite_schema WHERE sql IS NOT NULL "
        f"AND {_OWN_OBJECTS} AND {_SHADOW}{table} ORDER BY tbl_name, type DESC, name"
    )
    _print_lines(session, _names(session, sql, words))


def _mode(session: Session, words: list[str], read_file: ReadFile) -> None:
    if not words:
        _print_lines(session, [session.mode])
    elif words[0] in MODES:
        session.mode = words[0]
    else:
        raise _wrong(f"The modes are {', '.join(MODES)}.")


def _timer(session: Session, words: list[str], read_file: ReadFile) -> None:
    if words[0] not in ("on", "off"):
        raise _wrong("Usage: .timer on|off")
    session.timer = words[0] == "on"


def _read(session: Session, words: list[str], read_file: ReadFile) -> None:
    read_file(words[0])


def _import(session: Session, words: list[str], read_file: ReadFile) -> None:
    path, table = words
    count = session.guard(
        lambda: import_csv(session.tenant, session.transaction, Path(path), table)
    )
    session.note(f"{count} row{'' if count == 1 else 's'} imported into {table}")


def _dump(session: Session, words: list[str], read_file: ReadFile) -> None:
    def write(line: str) -> None:
        session.out.write(line)

    if session.in_transaction:
        session.guard(lambda: dump(session.database, write))
    else:
        _dump_one_moment(session, write)
    session.out.flush()


def _dump_one_moment(session: Session, write: Callable[[str], None]) -> None:
    transaction = session.tenant.transaction()
    try:
        transaction.open()
    except ForbiddenError:
        session.note("-- This token only reads, so writes of others may show half-way.")
        dump(session.tenant, write)
        return
    try:
        dump(transaction, write)
    finally:
        transaction.rollback()


def _help(session: Session, words: list[str], read_file: ReadFile) -> None:
    width = max(len(command.usage) for command in _COMMANDS.values())
    shown = {command.usage: command.summary for command in _COMMANDS.values()}
    _print_lines(
        session, [f"{usage:<{width}}  {summary}" for usage, summary in sorted(shown.items())]
    )


def _quit(session: Session, words: list[str], read_file: ReadFile) -> None:
    raise Quit


_QUIT = Command(".quit", "End the session (.exit too)", 0, 0, _quit)
_COMMANDS = {
    ".dump": Command(".dump", "Print the database as SQL", 0, 0, _dump),
    ".exit": _QUIT,
    ".help": Command(".help", "Print this list", 0, 0, _help),
    ".import": Command(
        ".import FILE TABLE",
        "Add a CSV file's rows; makes the table, named by the first line, if there is none",
        2,
        2,
        _import,
    ),
    ".indexes": Command(".indexes [TABLE]", "Print names of indexes", 0, 1, _indexes),
    ".mode": Command(f".mode {'|'.join(MODES)}", "How rows are printed", 0, 1, _mode),
    ".quit": _QUIT,
    ".read": Command(".read FILE", "Run the statements and commands in a file", 1, 1, _read),
    ".schema": Command(".schema [TABLE]", "Print CREATE statements", 0, 1, _schema),
    ".tables": Command(".tables [PATTERN]", "Print names of tables and views", 0, 1, _tables),
    ".timer": Command(".timer on|off", "Print how long statements take", 1, 1, _timer),
}
COMMAND_NAMES = tuple(_COMMANDS)
