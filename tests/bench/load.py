"""Putting load on a server: with wrk where it is installed, else with our own generator."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

Tool = Literal["wrk", "own"]

_GENERATOR = Path(__file__).with_name("generator.py")
_GRACE_S = 30.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run of the load found. Times are those of a closed loop."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int
    """Answers with a status other than 2xx."""

    @property
    def per_second(self) -> float:
        """Requests answered per second."""
        return self.requests / self.seconds


def available_tool() -> Tool:
    """wrk costs less processor time per request, and so leaves more of it to the server."""
    return "wrk" if shutil.which("wrk") else "own"


def render(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """The bytes of one POST request."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def put_load(
    tool: Tool, url: str, requests: list[bytes], *, connections: int, seconds: float, scratch: Path
) -> Measured:
    """Send the requests round and round for ``seconds``.

    Raises:
        RuntimeError: the generator failed.
    """
    if tool == "wrk":
        return _with_wrk(url, requests, connections, max(1, round(seconds)), scratch)
    return _with_own(url, requests, connections, seconds)


def _with_own(url: str, requests: list[bytes], connections: int, seconds: float) -> Measured:
    where = urlsplit(url)
    plan = {
        "host": where.hostname,
        "port": where.port,
        "connections": connections,
        "seconds": seconds,
        "requests": [base64.b64encode(each).decode() for each in requests],
    }
    command = [sys.executable, str(_GENERATOR)]
    return _result(_run(command, json.dumps(plan), seconds))


def _with_wrk(
    url: str, requests: list[bytes], connections: int, seconds: int, scratch: Path
) -> Measured:
    script = scratch / "load.lua"
    script.write_text(_lua(requests), "ascii")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url]
    return _result(_run(command, "", seconds).rpartition("RESULT")[2])


def _lua(requests: list[bytes]) -> str:
    """A script for wrk: the same requests in the same order, and the result as JSON."""
    rendered = ",\n".join(
        '"' + "".join(f"\\{byte:03d}" for byte in each) + '"' for each in requests
    )
    return f"""
local requests = {{ {rendered} }}
local at = 0
function request()
  at = at % #requests + 1
  return requests[at]
end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'RESULT{{"requests": %d, "seconds": %f, "p50Ms": %f, "p99Ms": %f, "errors": %d}}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
"""


def _run(command: list[str], text: str, seconds: float) -> str:
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=seconds + _GRACE_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the load generator failed: {done.stderr or done.stdout}")
    return done.stdout


def _result(text: str) -> Measured:
    found = json.loads(text)
    return Measured(
        int(found["requests"]),
        found["seconds"],
        found["p50Ms"],
        found["p99Ms"],
        int(found["errors"]),
    )
