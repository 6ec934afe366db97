"""Metrics: plain integers while requests run, Prometheus text when somebody asks.

Labels are route templates, methods and statuses: their number does not grow with tenants.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sized
from typing import TYPE_CHECKING

from dosql.host.host import HostStatistics

if TYPE_CHECKING:
    from prometheus_client.core import Metric

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_COUNTERS = {
    "wakes": "Objects woken.",
    "evictions": "Objects put to sleep.",
    "broken": "Objects given up after a failure and rebuilt.",
    "flushes": "Syncs of the commit log.",
    "batches": "Commit batches written to the log.",
    "files_shipped": "Files that the bucket took.",
    "bytes_shipped": "Bytes of these files.",
    "compactions": "Merged files written to the bucket.",
    "snapshots": "Snapshots written to the bucket.",
    "files_deleted": "Files of the bucket removed by retention.",
    "compaction_failures": "Objects whose files could not be merged.",
}
_GAUGES = {
    "awake_objects": "Objects awake now.",
    "log_bytes": "Size of the commit log.",
    "turn_waiters": "Calls that wait for an object's turn.",
    "open_transactions": "Interactive transactions open now.",
    "objects_behind": "Objects of which the bucket lacks something.",
    "spool_bytes": "Bytes that wait for the bucket.",
    "bucket_stalled_seconds": "For how long the bucket has not answered; 0: it does.",
    "objects_refusing_writes": "Objects that refuse writes, because their replies wait for it.",
}


class Metrics:
    """Counts of one server."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, int], int] = {}
        self._durations: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}
        self.in_progress = 0
        self.rate_limit_failures = 0
        """Requests that a rate limit could not count."""
        self.open_sockets: Sized = ()
        """The WebSockets of objects that are open now."""

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one finished request."""
        key = (route, method, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        counts = self._durations.get(route)
        if counts is None:
            counts = self._durations[route] = [0] * (len(BUCKETS_S) + 1)
            self._seconds[route] = 0.0
        counts[bisect_left(BUCKETS_S, seconds)] += 1
        self._seconds[route] += seconds

    def render(self, statistics: HostStatistics, log_lines_dropped: int) -> bytes:
        """All metrics as Prometheus text."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(_Once(lambda: self._collect(statistics, log_lines_dropped)))
        return generate_latest(registry)

    def _collect(self, statistics: HostStatistics, dropped: int) -> Iterable[Metric]:
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        requests = CounterMetricFamily(
            "dosql_requests", "Requests answered.", labels=["route", "method", "status"]
        )
        for (route, method, status), count in sorted(self._requests.items()):
            requests.add_metric([route, method, str(status)], count)
        yield requests
        durations = HistogramMetricFamily(
            "dosql_request_seconds", "Time from request to reply.", labels=["route"]
        )
        for route, counts in sorted(self._durations.items()):
            total = 0
            buckets: list[tuple[str, float]] = []
            for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), counts, strict=True):
                total += count
                buckets.append((bound, total))
            durations.add_metric([route], buckets, self._seconds[route])
        yield durations
        yield GaugeMetricFamily("dosql_requests_in_progress", "Under way.", self.in_progress)
        sockets = len(self.open_sockets)
        yield GaugeMetricFamily("dosql_open_websockets", "WebSockets of objects open now.", sockets)
        yield CounterMetricFamily("dosql_log_lines_dropped", "Log lines lost.", dropped)
        yield CounterMetricFamily(
            "dosql_rate_limit_failures",
            "Requests that a rate limit could not count.",
            self.rate_limit_failures,
        )
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"dosql_{name}", text, getattr(statistics, name))
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"dosql_{name}", text, getattr(statistics, name))


class _Once:
    """A collector for one scrape."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self.collect = collect
