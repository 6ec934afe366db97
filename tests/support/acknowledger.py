"""A process with a host of its own that writes, and says on stdout what was acknowledged.

Arguments: the data directory, a number that no earlier process there had, and optionally
``--skip-syncs``. A line ``acme 7000012`` says that this tenant's row is acknowledged, ``ready``
that writing begins. It writes until it is killed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from dosql.errors import DosqlError
from dosql.host.host import Host, HostSettings
from dosql.log.disk import Disk, RealDisk
from dosql.sqlite.database import Database
from tests.support.recording import LooseDisk

TENANTS = 4
WRITERS_PER_TENANT = 4
_CREATE = "CREATE TABLE IF NOT EXISTS items(id INTEGER PRIMARY KEY, data BLOB)"


async def write(host: Host, tenant: str, first: int, step: int) -> None:
    """Insert the ids first, first + step, ...; every tenth goes with its neighbour, or not."""
    id = first
    while True:
        ids = [id, id + step] if id // step % 10 == 0 else [id]

        def work(db: Database, ids: list[int] = ids) -> bytes:
            with db.transaction():
                for each in ids:
                    db.run("INSERT INTO items VALUES (?, ?)", [each, os.urandom(300)])
            return b""

        try:
            await host.tenants.get(tenant).call(work)
        except DosqlError:  # the power is gone
            await asyncio.sleep(0.01)
            continue
        os.write(1, "".join(f"{tenant} {each}\n" for each in ids).encode())
        id += step * len(ids)


async def main(data_dir: str, number: int, disk: Disk) -> None:
    settings = HostSettings(
        Path(data_dir), log_segment_bytes=1024 * 1024, log_bytes_max=4 * 1024 * 1024
    )
    host = await Host.start(settings, disk=disk)
    names = [f"t{each}" for each in range(TENANTS)]
    for name in [*names, f"new{number}"]:
        tenant = await host.tenants.ensure(name)
        await tenant.call(lambda db: (db.run(_CREATE), b"")[1])
    os.write(1, b"ready\n")
    writers = [
        write(host, name, number * 1_000_000 + writer, WRITERS_PER_TENANT)
        for name in names
        for writer in range(WRITERS_PER_TENANT)
    ]
    await asyncio.gather(*writers, write(host, f"new{number}", number * 1_000_000, 1))


if __name__ == "__main__":
    chosen: Disk = LooseDisk() if "--skip-syncs" in sys.argv else RealDisk()
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), chosen))
