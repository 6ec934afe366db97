"""`ctx.abort(retry_alarm=False)`: a running alarm is given up with the life that ran it."""

from __future__ import annotations

import asyncio
from typing import Any

from dosql import AlarmInfo, App, DurableObject
from dosql.testing import Harness, harness


class Bell(DurableObject):
    """Its alarm does what ``env.DO`` says."""

    def set(self, **when: Any) -> None:
        self.ctx.storage.alarms.schedule("tea", **when)

    def get(self) -> int | None:
        alarm = self.ctx.storage.alarms.get("tea")
        return None if alarm is None else alarm.time

    def end(self, retry_alarm: bool) -> None:
        self.ctx.abort("another event", retry_alarm=retry_alarm)

    async def alarm(self, info: AlarmInfo) -> None:
        self.env.RUNS.append(info.retry_count)
        if self.env.HANGS:
            await asyncio.Event().wait()
        self.ctx.storage.put("undone", True)
        self.ctx.abort("itself", retry_alarm=self.env.RETRIES)


def bell_app(*, retries: bool = False, hangs: bool = False) -> tuple[App, list[int]]:
    runs: list[int] = []
    app = App(vars={"RUNS": runs, "RETRIES": retries, "HANGS": hangs})
    app.durable_object(Bell)
    return app, runs


async def all_retries_pass(h: Harness) -> None:
    await h.advance(300)


async def test_an_alarm_that_aborts_without_a_retry_has_run_for_the_last_time() -> None:
    app, runs = bell_app()
    async with harness(app) as h:
        bell = h.env.BELL.get_by_name("a")
        await bell.set(after=1)
        await all_retries_pass(h)
        assert runs == [0]
        assert await bell.get() is None


async def test_an_alarm_that_aborts_is_tried_again_unless_it_says_otherwise() -> None:
    app, runs = bell_app(retries=True)
    async with harness(app) as h:
        await h.env.BELL.get_by_name("a").set(after=1)
        await all_retries_pass(h)
        assert runs == [0, 1, 2, 3, 4, 5, 6]


async def test_another_event_can_give_up_the_alarm_that_runs() -> None:
    for retry_alarm in (True, False):
        app, runs = bell_app(hangs=True)
        async with harness(app) as h:
            bell = h.env.BELL.get_by_name("a")
            await bell.set(after=1)
            await h.advance(1)
            assert runs == [0]
            ending = asyncio.ensure_future(bell.end(retry_alarm))
            await asyncio.wait([ending])
            await h.advance(10)
            assert runs == ([0, 1] if retry_alarm else [0])


async def test_a_cron_alarm_that_is_given_up_goes_on_with_its_next_time() -> None:
    app, runs = bell_app()
    async with harness(app) as h:
        await h.env.BELL.get_by_name("a").set(cron="0 * * * *")
        await h.advance(2 * 3600)
        assert runs == [0, 0]


async def test_an_alarm_that_does_not_run_is_not_given_up() -> None:
    app, runs = bell_app()
    async with harness(app) as h:
        bell = h.env.BELL.get_by_name("a")
        await bell.set(after=60)
        ending = asyncio.ensure_future(bell.end(False))
        await asyncio.wait([ending])
        assert ending.exception() is not None
        assert await bell.get() is not None
        await h.advance(60)
        assert runs == [0]
