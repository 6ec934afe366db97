"""The result for people: conditions first, then two tables."""

from __future__ import annotations

from typing import Any

_HEAD = (
    "workload",
    "conn",
    "req/s",
    "p50 ms",
    "p99 ms",
    "uvicorn bare",
    "APSW unsynced",
    "APSW synced",
    "syncs/1000",
)


def text_of(result: dict[str, Any]) -> str:
    """Everything that was measured."""
    conditions = result["conditions"]
    lines = [f"{name}: {value}" for name, value in conditions.items()]
    lines += ["", *_table([_HEAD, *map(_row, result["workloads"])]), ""]
    lines += [
        "uvicorn bare: same uvicorn, constant answer, nothing else: the ceiling of the stack.",
        "APSW: the same statement in a loop in one process, without HTTP; synced: SQLite itself",
        "syncs every commit. In brackets: dosql divided by that peer. syncs/1000: syncs of the",
        "commit log per 1,000 acknowledged writes.",
        "",
    ]
    return "\n".join(lines + [f"{name}: {_flat(found)}" for name, found in _probes(result)])


def _probes(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    names = {
        "start": "process start to first answer",
        "idle": "open tenants",
        "wake": "wake of a database that is not open",
        "redo": "redo of the commit log after a kill",
    }
    return [(names[key], found) for key, found in result["process"].items()]


def _flat(found: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:,}" for name, value in found.items())


def _row(line: dict[str, Any]) -> tuple[str, ...]:
    peers, ratios = line["peersPerSecond"], line["ratios"]
    syncs = line.get("syncsPer1000Writes")
    failed = f" ({line['errors']} errors!)" if line["errors"] else ""
    return (
        line["name"] + failed,
        str(line["connections"]),
        f"{line['requestsPerSecond']:,.0f}",
        f"{line['p50Ms']:.2f}",
        f"{line['p99Ms']:.2f}",
        *(
            f"{peers[name]:,.0f} ({ratios[name]:.2f})" if peers[name] else ""
            for name in ("bareUvicorn", "apswUnsynced", "apswSynced")
        ),
        "" if syncs is None else f"{syncs:,.1f}",
    )


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
