"""The Python client, asynchronous and synchronous.

``AsyncClient`` and ``Client`` have the same methods; the second is generated from the first.
Both raise only the errors of `dosql.errors`, except for wrong types of arguments and for
``OSError`` where the caller's own files are read or written.
"""

from dosql.client import operations
from dosql.client._async.client import AsyncClient
from dosql.client._async.objects import AsyncNamespace, AsyncStub
from dosql.client._async.past import AsyncPastTenant
from dosql.client._async.sockets import AsyncObjectSocket
from dosql.client._async.tenant import AsyncTenant
from dosql.client._async.transaction import AsyncTransaction
from dosql.client._sync.client import Client
from dosql.client._sync.objects import Namespace, Stub
from dosql.client._sync.past import PastTenant
from dosql.client._sync.sockets import ObjectSocket
from dosql.client._sync.tenant import Tenant
from dosql.client._sync.transaction import Transaction
from dosql.client.changes import Change, ChangeEvent, Reset, SchemaChange
from dosql.client.operations import Operation
from dosql.client.points import Point
from dosql.client.reconnect import Reconnect
from dosql.client.responses import SyncResponse
from dosql.client.rows import Row, Rows, RunResult

__all__ = [
    "AsyncClient",
    "AsyncNamespace",
    "AsyncObjectSocket",
    "AsyncPastTenant",
    "AsyncStub",
    "AsyncTenant",
    "AsyncTransaction",
    "Change",
    "ChangeEvent",
    "Client",
    "Namespace",
    "ObjectSocket",
    "Operation",
    "PastTenant",
    "Point",
    "Reconnect",
    "Reset",
    "Row",
    "Rows",
    "RunResult",
    "SchemaChange",
    "Stub",
    "SyncResponse",
    "Tenant",
    "Transaction",
    "operations",
]
