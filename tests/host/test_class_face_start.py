"""The class face of a real host: there only with an app, and with a time that a test may bring."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dosql import App, DurableObject, NotFoundError
from dosql.host.host import Host
from dosql.testing import ManualClock
from tests.support.hosts import running_host, settings, until

app = App()


@app.durable_object
class Bell(DurableObject):
    async def set(self, seconds: float) -> None:
        self.ctx.storage.set_alarm(self.ctx.clock.now_ms() + int(seconds * 1000))

    async def alarm(self, info: Any) -> None:
        self.ctx.storage.kv.put("rung_at", self.ctx.clock.now_ms())

    def rung_at(self) -> int | None:
        return self.ctx.storage.kv.get("rung_at")  # type: ignore[no-any-return]


def test_a_server_without_an_app_does_not_load_the_class_face() -> None:
    program = "import sys, server.run; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = set(done.stdout.decode().split())
    assert "dosql.host.host" in loaded
    assert not loaded & {"dosql.host.objects", "dosql.objects.activation", "cronsim"}


async def test_a_host_without_an_app_has_no_namespaces(tmp_path: Path) -> None:
    async with running_host(tmp_path) as host:
        with pytest.raises(NotFoundError) as caught:
            host.objects.namespace("bell")
        assert caught.value.code == "namespace_not_found"


async def test_alarms_of_a_real_host_follow_the_timers_it_was_given(tmp_path: Path) -> None:
    clock = ManualClock()
    host = await Host.start(settings(tmp_path), clock=clock, timers=clock, app=app)
    try:
        bell: Any = host.objects.namespace("bell").get_by_name("a")
        await bell.set(60)
        due_ms = clock.now_ms() + 60_000
        await clock.pass_time(59)
        assert await bell.rung_at() is None
        await clock.pass_time(1)
        await until(lambda: host.objects._alarm_clock.deliveries == 0)
        assert await bell.rung_at() == due_ms
    finally:
        await host.close()
