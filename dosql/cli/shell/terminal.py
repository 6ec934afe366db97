"""The shell on a terminal: editing, history, statements over many lines."""

from __future__ import annotations

import os
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from dosql.cli.output import describe
from dosql.cli.shell.commands import COMMAND_NAMES, Quit
from dosql.cli.shell.script import Feeder
from dosql.cli.shell.session import Session
from dosql.cli.shell.statements import is_complete
from dosql.errors import DosqlError


def run_terminal(session: Session) -> bool:
    """Read, run and print until the user leaves. Always true: errors were seen and dealt with."""
    prompt: PromptSession[str] = PromptSession(
        history=_history(),
        multiline=Condition(lambda: not is_complete(get_app().current_buffer.text)),
        prompt_continuation="   ...> ",
        completer=WordCompleter(list(COMMAND_NAMES), sentence=True),
        complete_while_typing=False,
    )
    session.note(f"Tenant {session.tenant.name}. .help lists commands, Ctrl-D ends the session.")
    try:
        while True:
            try:
                text = prompt.prompt(_prompt_text(session))
            except KeyboardInterrupt:
                continue  # Ctrl-C drops the line
            except EOFError:
                break
            _run(session, text)
    except Quit:
        pass
    finally:
        session.close()
    return True


def _prompt_text(session: Session) -> str:
    """A star, as long as a transaction is open."""
    return f"{session.tenant.name}{'*' if session.in_transaction else ''}> "


def _run(session: Session, text: str) -> None:
    feeder = Feeder(session)
    try:
        for line in text.splitlines(keepends=True):
            feeder.feed(line)
        feeder.finish()
    except DosqlError as exc:
        session.note(f"dosql: {describe(exc)}")
    except OSError as exc:
        session.note(f"dosql: {exc.filename}: {exc.strerror}")
    except KeyboardInterrupt:
        session.note("Interrupted; if it was writing, look whether it did.")
        session.close()


def _history() -> History:
    """In the user's state directory, readable only by the user: statements may hold secrets."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    path = Path(state) / "dosql" / "history"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(path)
