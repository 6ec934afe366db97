"""Whose call goes next at one stub; the generated synchronous client takes the second.

``AnyCall`` and ``AsyncAnyCall`` are what an attribute of a stub is to a type checker.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

AsyncTurn = asyncio.Lock
"""First come, first served."""
Turn = threading.Lock
"""One at a time; threads that call at the same moment have no order among them anyway."""

AsyncAnyCall = Callable[..., Coroutine[Any, Any, Any]]
AnyCall = Callable[..., Any]
