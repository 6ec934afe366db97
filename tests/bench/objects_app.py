"""Objects of a class, for the workloads that call methods."""

from __future__ import annotations

from dosql import App, DurableObject, Env, ObjectState

app = App()


@app.durable_object
class Journal(DurableObject):
    """Inserts a row per call, as the insert of the SQL face does."""

    def __init__(self, ctx: ObjectState, env: Env) -> None:
        super().__init__(ctx, env)
        self.sql = ctx.storage.sql
        self.sql.exec("CREATE TABLE IF NOT EXISTS items(id INTEGER PRIMARY KEY, value TEXT)")

    def add(self, value: str) -> int:
        """The number of the new row."""
        return int(
            self.sql.exec("INSERT INTO items(value) VALUES (?) RETURNING id", value).one()["id"]
        )

    def value(self, number: int) -> str | None:
        """What was added as this row."""
        found = self.sql.exec("SELECT value FROM items WHERE id = ?", number).to_list()
        return found[0]["value"] if found else None
