"""A program with a class for each durability mode, and one of the server's.

``dosql serve --app tests.support.durable_app:app``.
"""

from __future__ import annotations

from dosql import App, DurableObject

app = App()


class Book(DurableObject):
    """Keeps lines."""

    def add(self, line: str) -> int:
        """The number of lines."""
        self.ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS lines (line TEXT)")
        self.ctx.storage.sql.exec("INSERT INTO lines VALUES (?)", line)
        return len(self.lines())

    def lines(self) -> list[str]:
        """All of them."""
        return [str(row["line"]) for row in self.ctx.storage.sql.exec("SELECT line FROM lines")]


@app.durable_object(durability="bucket")
class Ledger(Book):
    """What must survive the loss of the machine."""


@app.durable_object(durability="local")
class Notes(Book):
    """What need not."""


@app.durable_object
class Diary(Book):
    """What the server decides."""
