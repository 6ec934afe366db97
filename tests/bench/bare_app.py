"""The ceiling of the stack: uvicorn as dosql runs it, and an application that answers constants.

Run as a program; prints its URL, and serves until it is stopped.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn
import uvloop

_ANSWERS = {
    "/query": b'{"rows":[{"id":777,"value":"value 777"}]}',
    "/run": b'{"changes":1,"lastInsertRowid":77777}',
    "/rpc": b'{"result":77777}',
}
_MESSAGES = {
    path: (
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
            ],
        },
        {"type": "http.response.body", "body": body},
    )
    for path, body in _ANSWERS.items()
}


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Read the request, look at nothing but its path, answer."""
    path = scope["path"]
    start, body = _MESSAGES["/rpc" if path.startswith("/rpc/") else path]
    while (await receive()).get("more_body", False):
        pass
    await send(start)
    await send(body)


def main() -> None:
    """Serve on a free port of the loopback interface."""
    config = uvicorn.Config(
        application,
        lifespan="off",
        ws="none",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
    )
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        print(f"listens on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    main()
