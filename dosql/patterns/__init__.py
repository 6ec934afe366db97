"""Ready-made durable objects: subclass them, or register them as they are.

They use the public API of dosql only, so whatever they do, a class of yours can do too.
"""

from __future__ import annotations

from dosql.patterns.base import BaseDurableObject, origin_allowed
from dosql.patterns.counter import Counter
from dosql.patterns.rate_limiter import RateLimiter
from dosql.patterns.websocket_room import WebSocketRoom

__all__ = ["BaseDurableObject", "Counter", "RateLimiter", "WebSocketRoom", "origin_allowed"]
