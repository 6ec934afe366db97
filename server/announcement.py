"""What the server says when it begins to listen."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

from server.admin_token import FILE_NAME, AdminToken
from server.listen import url_of
from server.settings import Settings, unknown_variables

if TYPE_CHECKING:
    from server.program import Program


def announce(
    settings: Settings,
    url: str,
    token: AdminToken,
    program: Program | None,
    admin_listener: socket.socket | None,
) -> None:
    """What a newcomer needs; the token only when it was just made."""
    shown = token.text if token.created else "$DOSQL_ADMIN_TOKEN"
    lines = [f"dosql listens on {url}", f"data directory: {settings.data_dir.resolve()}"]
    if token.created:
        lines.append(f"admin token:    {token.text}  (shown once; kept in {FILE_NAME} there)")
    elif settings.admin_token is None:
        shown = f"$(cat {settings.data_dir.resolve() / FILE_NAME})"
        lines.append(f"admin token:    in {settings.data_dir.resolve() / FILE_NAME}")
    if admin_listener is not None:
        lines.append(f"admin:          {url_of(admin_listener)}")
    if program is not None:
        lines.append(f"app:            {program}")
    lines += [
        "try:",
        f"  curl {url}/query -H 'X-Tenant-ID: acme' -H 'Content-Type: application/json' \\",
        f'    -H "Authorization: Bearer {shown}" -d \'{{"sql": "SELECT 1 AS one"}}\'',
    ]
    print("\n".join(lines), flush=True)
    for name in unknown_variables(os.environ):
        print(f"dosql: {name} is not a setting; is it misspelt?", file=sys.stderr)
