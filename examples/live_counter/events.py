"""What travels between the live counter and its clients, and the rules for what comes in."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from dosql import InvalidRequestError

Operation = Literal["increment", "decrement", "setValue", "reset"]

VALUE_MAX = 2**53 - 1
"""Beyond it JavaScript rounds."""
HISTORY_MAX = 1_000
"""Operations that a counter remembers."""
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
PING = '{"type":"ping"}'
PONG = '{"type":"pong","timestamp":"{timestamp}"}'


class CounterMetadata(msgspec.Struct, rename="camel"):
    """The counter at one moment. ``operation_count`` has no gaps: it orders events."""

    id: int
    name: str
    value: int
    created_at: str
    updated_at: str
    operation_count: int


class CounterUpdateEvent(msgspec.Struct, rename="camel"):
    """One operation, as everybody hears of it and as its caller is answered."""

    type: Operation
    value: int
    previous_value: int
    metadata: CounterMetadata
    timestamp: str


class WebSocketSessionData(msgspec.Struct, rename="camel"):
    """Kept with each socket, over hibernation too."""

    id: str
    subscribed_at: str


def check_name(name: object) -> str:
    """The name of a counter.

    Raises:
        InvalidRequestError: it cannot be one.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidRequestError("name must be 1 to 63 of a-z, 0-9, _ and -.")
    return name


def check_value(value: int) -> int:
    """Raises InvalidRequestError beyond what JavaScript can count."""
    if not -VALUE_MAX <= value <= VALUE_MAX:
        raise InvalidRequestError(f"The value must stay within {VALUE_MAX} of 0.")
    return value


def frame(message: msgspec.Struct | dict[str, Any]) -> str:
    """A message as the text of a frame."""
    return msgspec.json.encode(message).decode()
