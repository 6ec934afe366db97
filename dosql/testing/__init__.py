"""Testing kit: durable objects in memory, with their time, disk and crashes in the test's hands.

`harness` runs an app's objects; `SimpleState` is a ``ctx`` for one object that a test makes itself.
"""

from dosql.testing.clock import ManualClock
from dosql.testing.harness import Harness, harness
from dosql.testing.simple_state import SimpleState
from dosql.testing.sockets import MemorySocket, SocketClosed

__all__ = ["Harness", "ManualClock", "MemorySocket", "SimpleState", "SocketClosed", "harness"]
