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
        ObjectError,
        ObjectResetError,
        OutcomeUnknownError,
        OverloadedError,
        QuotaError,
        RateLimitedError,
        RequestError,
        SqlError,
        UnavailableError,
    )
    from dosql.fetch import Request, Response
    from dosql.host.namespace import Namespace
    from dosql.host.stub import Stub
    from dosql.ids import ObjectId
    from dosql.objects.alarms import AlarmInfo
    from dosql.objects.app import App, Env, FetchContext
    from dosql.objects.auto_response import WebSocketRequestResponsePair
    from dosql.objects.connections import MessageEvent
    from dosql.objects.durable_object import DurableObject
    from dosql.objects.state import ObjectState
    from dosql.objects.storage import Transaction
    from dosql.objects.websocket import WebSocket, WebSocketPair

__version__ = "0.1.0"

__all__ = [
    "AlarmInfo",
    "App",
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
    "DurableObject",
    "Env",
    "FetchContext",
    "ForbiddenError",
    "InternalError",
    "InvalidRequestError",
    "LimitError",
    "MessageEvent",
    "Namespace",
    "NotFoundError",
    "ObjectError",
    "ObjectId",
    "ObjectResetError",
    "ObjectState",
    "OutcomeUnknownError",
    "OverloadedError",
    "QuotaError",
    "RateLimitedError",
    "Request",
    "RequestError",
    "Response",
    "SqlError",
    "Stub",
    "Transaction",
    "UnavailableError",
    "WebSocket",
    "WebSocketPair",
    "WebSocketRequestResponsePair",
]

_HOMES = {
    "AlarmInfo": "dosql.objects.alarms",
    "App": "dosql.objects.app",
    "AsyncClient": "dosql.client",
    "Bookmark": "dosql.bookmarks",
    "Client": "dosql.client",
    "DurableObject": "dosql.objects.durable_object",
    "Env": "dosql.objects.app",
    "FetchContext": "dosql.objects.app",
    "MessageEvent": "dosql.objects.connections",
    "Namespace": "dosql.host.namespace",
    "ObjectId": "dosql.ids",
    "ObjectState": "dosql.objects.state",
    "Request": "dosql.fetch",
    "Response": "dosql.fetch",
    "Stub": "dosql.host.stub",
    "Transaction": "dosql.objects.storage",
    "WebSocket": "dosql.objects.websocket",
    "WebSocketPair": "dosql.objects.websocket",
    "WebSocketRequestResponsePair": "dosql.objects.auto_response",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'dosql' has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "dosql.errors")), name)
    globals()[name] = value
    return value
