"""Connect, count, and print what comes: ``python -m examples.counter_guide.client``.

The guide's few lines of JavaScript, in Python. Ends after ``--updates`` updates.
"""

from __future__ import annotations

import argparse
import json

from websockets.sync.client import connect


def main() -> None:
    """Returns when it has seen enough."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="ws://127.0.0.1:8787/api/counter/ws")
    parser.add_argument("--increments", type=int, default=1)
    parser.add_argument("--updates", type=int, default=2, help="the first is the value on arrival")
    arguments = parser.parse_args()
    with connect(arguments.url, proxy=None) as ws:
        for _ in range(arguments.increments):
            ws.send(json.dumps({"type": "increment"}))
        for _ in range(arguments.updates):
            print(json.loads(ws.recv()))


if __name__ == "__main__":
    main()
