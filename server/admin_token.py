"""The admin token: from the environment, or created once and kept beside the data."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from dosql.clock import Randomness
from dosql.errors import InvalidRequestError

FILE_NAME = "admin-token"
_SECRET_BYTES = 32


class AdminToken(msgspec.Struct, frozen=True):
    """The token in force."""

    text: str
    created: bool
    """It did not exist before: this is the time to print it."""


def load_admin_token(
    configured: str | None, data_dir: Path, randomness: Randomness, *, may_create: bool
) -> AdminToken:
    """The configured token, else the kept one, else a new one in a file only its owner reads.

    Raises:
        InvalidRequestError: ``admin_token_required``: there is none and none may be created.
    """
    if configured is not None:
        return AdminToken(configured, created=False)
    path = data_dir / FILE_NAME
    try:
        kept = path.read_text("ascii").strip()
    except FileNotFoundError:
        kept = ""
    if kept:
        return AdminToken(kept, created=False)
    if not may_create:
        raise InvalidRequestError(
            "Refusing to listen on an address that others can reach without a configured token. "
            "Set DOSQL_ADMIN_TOKEN, or start once on 127.0.0.1 to create one.",
            code="admin_token_required",
        )
    text = f"dsk_admin_{randomness.token_urlsafe(_SECRET_BYTES)}"
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, f"{text}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.replace(path)
    return AdminToken(text, created=True)
