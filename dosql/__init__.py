"""dosql: self-hosted Durable Objects for Python, with a SQLite database in each object.

The public API. Names are imported when first used, so that a server starts without the client's
dependencies and a client without the server's.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dosql.bookmarks import Bookmark
    from dosql.client import AsyncClient, Client
    from dosql.errors import (
        AuthenticationError,
        BudgetError,
        ConflictError,
        ConnectionFailedError,
        ConstraintError,
        CorruptError,
        DosqlError,
        ForbiddenError,
        InternalError,
        InvalidRequestError,
        LimitError,
        NotFoundError,
        OutcomeUnknownError,
        OverloadedError,
        QuotaError,
        RateLimitedError,
        RequestError,
        SqlError,
        UnavailableError,
    )

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "AuthenticationError",
    "Bookmark",
    "BudgetError",
    "Client",
    "ConflictError",
    "ConnectionFailedError",
    "ConstraintError",
    "CorruptError",
    "DosqlError",
    "ForbiddenError",
    "InternalError",
    "InvalidRequestError",
    "LimitError",
    "NotFoundError",
    "OutcomeUnknownError",
    "OverloadedError",
    "QuotaError",
    "RateLimitedError",
    "RequestError",
    "SqlError",
    "UnavailableError",
]

_HOMES = {"Bookmark": "dosql.bookmarks", "AsyncClient": "dosql.client", "Client": "dosql.client"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'dosql' has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "dosql.errors")), name)
    globals()[name] = value
    return value
