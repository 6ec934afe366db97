"""What is said of an object that was reset: to whoever waits for it, and in the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from dosql import App, DurableObject, ObjectResetError, UnavailableError
from dosql.testing import harness
from tests.support.hosts import running_host

app = App()


@app.durable_object
class Steps(DurableObject):
    """Writes in two steps, with a wait in between that the test ends."""

    def __init__(self, ctx: Any, env: Any) -> None:
        super().__init__(ctx, env)
        self.go_on = asyncio.Event()

    async def two(self) -> None:
        self.ctx.storage.kv.put("first", 1)
        await self.go_on.wait()
        self.ctx.storage.kv.put("second", 2)

    def two_unexpectedly(self) -> Awaitable[None]:
        return self.two()

    def stored(self) -> list[str]:
        return [key for key, _ in self.ctx.storage.kv.list()]

    def give_up(self) -> None:
        self.ctx.abort("it has seen enough")


@pytest.mark.parametrize("method", ["two", "two_unexpectedly"])
async def test_a_failed_commit_says_what_is_undone_and_not_that_nothing_was_written(
    method: str,
) -> None:
    async with harness(app) as h:
        stub = h.env.STEPS.get_by_name("a")
        call = asyncio.ensure_future(getattr(stub, method)())
        await h.clock.settle()
        steps: Any = h.instance_of(stub)
        h.hold_writes()
        steps.go_on.set()
        await h.clock.settle()
        ground = h._host.ground(stub.id)
        assert ground is not None
        ground.break_(UnavailableError("The commit failed; nothing was written."))
        with pytest.raises(ObjectResetError) as caught:
            await call
        assert "what was not durable before is undone" in caught.value.message
        assert "The commit failed" in caught.value.message
        assert "nothing was written" not in caught.value.message
        assert not caught.value.retryable
        h.release_writes()
        assert await stub.stored() == ["first"]


async def test_a_reset_by_the_objects_own_code_is_a_warning_with_its_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_host(tmp_path, app=app) as host:
        stub: Any = host.objects.namespace("steps").get_by_name("a")
        with (
            caplog.at_level(logging.INFO, "dosql"),
            pytest.raises(ObjectResetError, match="seen enough"),
        ):
            await stub.give_up()
        (record,) = [each for each in caplog.records if "seen enough" in each.getMessage()]
        assert record.levelno == logging.WARNING
        assert "broke" not in record.getMessage()
        assert await stub.stored() == []
