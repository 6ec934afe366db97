"""Real servers on a real MinIO: their settings, and clients whose writes are counted."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from dosql.bookmarks import Bookmark
from tests.support.minio import ACCESS_KEY, SECRET_KEY, MinioServer
from tests.support.server import ADMIN_TOKEN, ServerProcess

ENVIRON = {
    "DOSQL_ADMIN_TOKEN": ADMIN_TOKEN,
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


def cold_server(
    data_dir: Path, minio: MinioServer, bucket: str, *, prelude: str = "", **settings: Any
) -> ServerProcess:
    """A server whose objects go to this bucket of MinIO."""
    return ServerProcess(
        data_dir,
        environ=ENVIRON,
        prelude=prelude,
        bucket=f"s3://{bucket}/node",
        s3_endpoint=minio.url,
        **settings,
    )


@dataclass
class Answers:
    """What clients were told."""

    acknowledged: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    """Value to the side that said so and the TXID it named."""
    codes: dict[str, int] = field(default_factory=dict[str, int])
    not_written: set[str] = field(default_factory=set[str])
    """Values of which a reply said that nothing was written."""
    at: dict[str, float] = field(default_factory=dict[str, float])
    """When each value was acknowledged, on the loop's clock."""


UNKNOWN = {"bucket_unavailable", "outcome_unknown", "request_timeout"}


class WritingClient:
    """Inserts values that no other client has, each once, until told to stop."""

    def __init__(self, side: str, number: int, url: Callable[[], str], answers: Answers) -> None:
        self._name = f"{side}{number}"
        self._side = side
        self._url = url
        self._answers = answers
        self._count = itertools.count()

    async def run(self, ended: asyncio.Event, pause_s: float = 0.0) -> None:
        """Write until it is ended."""
        while not ended.is_set():
            async with httpx2.AsyncClient(timeout=30, trust_env=False) as http:
                while not ended.is_set():
                    try:
                        await self._write(http)
                    except (httpx2.HTTPError, OSError):
                        self._answers.codes["gone"] = self._answers.codes.get("gone", 0) + 1
                        await asyncio.sleep(0.05)
                        break
                    if pause_s:
                        await asyncio.sleep(pause_s)

    async def _write(self, http: httpx2.AsyncClient) -> None:
        value = f"{self._name}-{next(self._count):06d}"
        body = {"sql": "INSERT INTO ledger(value) VALUES (?)", "params": [value]}
        reply = await http.post(
            f"{self._url()}/run",
            json=body,
            headers={"Authorization": f"Bearer {ADMIN_TOKEN}", "X-Tenant-ID": "acme"},
        )
        answers = self._answers
        if reply.status_code == 200:
            bookmark = Bookmark.parse(reply.headers["dosql-bookmark"])
            answers.acknowledged[value] = (self._side, bookmark.txid)
            answers.at[value] = asyncio.get_running_loop().time()
            return
        code = str(json.loads(reply.content).get("code"))
        answers.codes[code] = answers.codes.get(code, 0) + 1
        if code not in UNKNOWN:
            answers.not_written.add(value)
        await asyncio.sleep(0.02)
