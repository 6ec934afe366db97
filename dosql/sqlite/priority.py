"""Priority: threads that compute beside the event loop give way to it.

On a machine with few cores a long statement, or the hash of a password, would else take every
second slice of time from the thread that serves all others. A lower priority costs it nothing
where a core is free.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading

STEPS = 5
"""Of Linux's nice values: about a third of the time, where two threads want all of it. Much more
would starve it on a busy machine until its deadline."""


def give_way() -> None:
    """The calling thread has a lower priority than the process from now on. Nothing where the
    system knows no priorities of threads."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            normal = os.getpriority(os.PRIO_PROCESS, os.getpid())
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), normal + STEPS)
