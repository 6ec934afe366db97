"""The two WebSocket clients of the ``websockets`` library, under one pair of names.

The generated synchronous client takes the second of each. Loaded with the first socket: whoever
needs none does not pay for the import.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

__all__ = ["AsyncLine", "Line", "async_dial", "dial"]

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection as AsyncLine
    from websockets.sync.client import ClientConnection as Line

MESSAGE_BYTES_MAX = 32 * 1024 * 1024
"""Of one message from the object."""
_PING_S = 20.0
"""Between two pings, and for the answer to each: a server that is gone is noticed within 40 s."""


def _options(headers: Mapping[str, str], timeout_s: float) -> dict[str, Any]:
    return {
        "additional_headers": dict(headers),
        "user_agent_header": None,
        "compression": None,
        "open_timeout": timeout_s,
        "ping_interval": _PING_S,
        "ping_timeout": _PING_S,
        "max_size": MESSAGE_BYTES_MAX,
    }


async def async_dial(url: str, headers: Mapping[str, str], timeout_s: float) -> AsyncLine:
    """Connect. Raises what the library raises."""
    from websockets.asyncio.client import connect

    return await connect(url, **_options(headers, timeout_s))


def dial(url: str, headers: Mapping[str, str], timeout_s: float) -> Line:
    """Connect. Raises what the library raises."""
    from websockets.sync.client import connect

    # Entered, and not kept: `Line.close` does all that leaving it would do.
    line: Line = connect(url, **_options(headers, timeout_s)).__enter__()
    return line
