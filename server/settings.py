"""Settings: flags over environment over defaults, one frozen value; nobody else reads them.

Every setting is a field below: ``--max-open`` on the command line is ``DOSQL_MAX_OPEN`` in the
environment and ``max_open`` here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from dosql import limits
from dosql.errors import DosqlError, InvalidRequestError

PREFIX = "DOSQL_"
_BUCKETS = ("file:///", "s3://", "memory:", "none")
_CLIENT_VARIABLES = {"DOSQL_URL", "DOSQL_TOKEN", "DOSQL_UPDATE_DOCS"}

_LISTS = ("cors_origins", "sql_roles", "trusted_proxies")
"""Separated by commas in the environment."""

Positive = Annotated[int, msgspec.Meta(gt=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Days = Annotated[float, msgspec.Meta(ge=1)]
Hours = Annotated[float, msgspec.Meta(ge=limits.L0_RETENTION_S_MIN / 3600)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operator may choose."""

    listen: str = "127.0.0.1:8787"
    """Address and port; port 0 takes a free one."""
    data_dir: Path = Path("data")
    """Where everything is kept."""
    admin_token: str | None = None
    """Only in the environment. None: one is created and kept in the data directory."""
    migrations: Path | None = None
    """Folder of the tenants' schema; None: the one that comes with dosql."""
    default_tenant: str | None = None
    """Whom a request means that names no tenant."""
    tenant_creation: Literal["auto", "explicit"] = "auto"
    """Whether the admin token creates a tenant by using it."""
    base_domain: str | None = None
    """One label below it names a tenant: ``acme.db.example.com``."""
    cors_origins: tuple[str, ...] = ()
    """Origins of browsers that may call; separated by commas in the environment."""
    rate_limits: str | None = None
    """Policies as JSON, or ``none``. None: 100 requests a minute for each address on ``/api/*``."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks of proxies whose X-Forwarded-For counts; separated by commas."""
    admin_listen: str | None = None
    """Address and port that alone have the admin's routes and the metrics."""
    auth: Literal["on", "off"] = "on"
    """Whether tenants have users: the routes below ``/auth`` and ``/api/v1/users``."""
    signup: Literal["open", "closed"] = "open"
    """Who may make a user: anybody, or only who has a token of the tenant that may write."""
    sql_roles: tuple[str, ...] = ("admin",)
    """Users of these roles reach the SQL routes by their sessions; ``none`` for nobody."""
    session_seconds: Seconds = limits.SESSION_S_MAX
    """A session ends so long after its login in any case."""
    session_idle_seconds: Seconds = limits.SESSION_IDLE_S_MAX
    """A session ends when it was not used for so long."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """``warning`` logs refused requests only, ``error`` failed ones only."""
    max_open: Positive = limits.OPEN_OBJECTS_MAX
    """Objects awake at a time."""
    idle_seconds: Seconds = limits.IDLE_SECONDS_MAX
    """After so long without a call an object hibernates."""
    inline_ms: Positive = limits.INLINE_MS_MAX
    """What a statement may take on the event loop before it moves to a thread."""
    statement_ms: Positive = limits.STATEMENT_MS_MAX
    """Deadline of a statement or batch."""
    transaction_idle_seconds: Seconds = limits.TRANSACTION_IDLE_S_MAX
    """An interactive transaction is rolled back after so long without a statement."""
    transaction_seconds: Seconds = limits.TRANSACTION_S_MAX
    """An interactive transaction is rolled back after so long in any case."""
    rows_max: Positive = limits.ROWS_MAX
    """Rows in one answer."""
    result_bytes_max: Positive = limits.RESULT_BYTES_MAX
    """Bytes of values in one answer."""
    body_bytes_max: Positive = limits.REQUEST_BODY_BYTES_MAX
    """Bytes of one request body; imports may have ``database_bytes_max``."""
    websocket_bytes_max: Positive = limits.SOCKET_MESSAGE_BYTES_MAX
    """Bytes of one message that comes over a WebSocket; beyond it the socket is closed."""
    database_bytes_max: Positive = limits.DATABASE_BYTES_MAX
    """Bytes of one tenant's database."""
    log_bytes_max: Positive = limits.LOG_BYTES_MAX
    """Bytes of the commit log before it is cut."""
    shutdown_seconds: Seconds = 10.0
    """How long requests under way may take to finish after SIGTERM."""
    changes: Literal["auto", "on"] = "auto"
    """Whose changes are captured: ``auto`` from the first subscriber on, ``on`` everybody's."""
    changes_seconds: Seconds = limits.CHANGES_KEPT_S_MAX
    """For how long changes are kept for subscribers that come back."""
    changes_bytes_max: Positive = limits.CHANGES_KEPT_BYTES_MAX
    """Bytes of a tenant's database that they may take."""
    durability: Literal["local", "bucket"] = "local"
    """When a write is answered: when it is on the disk of this machine, or when it is in the
    bucket. For tenants, and classes that do not choose their own."""
    bucket: str | None = None
    """Where everything is copied to: ``file:///path``, ``s3://bucket/prefix``, or ``none``. None:
    the folder ``bucket`` in the data directory."""
    s3_endpoint: str | None = None
    """``http(s)://host:port`` of a store other than AWS."""
    accept_catalog_loss: Positive | None = None
    """Go on with the catalog as the bucket has it, if its newest batch is this one: the refusal
    ``catalog_incomplete`` tells the number."""
    retention_days: Days = limits.RETENTION_DAYS
    """How far back every object can be restored."""
    l0_retention_hours: Hours = limits.L0_RETENTION_HOURS
    """How far back to each single commit."""
    app: str | None = None
    """``module:app``: durable object classes of your own."""
    reload: bool = False
    """For development: run a new version of the app when one of its files changes."""

    def body_limit(self, path: str) -> int:
        """Bytes that the body of a request to this path may have."""
        if path.startswith("/admin/tenants/") and path.endswith("/import"):
            return self.database_bytes_max
        return self.body_bytes_max


def load_settings(overrides: Mapping[str, object], environ: Mapping[str, str]) -> Settings:
    """``overrides`` (None: not given) win over the environment.

    Raises:
        InvalidRequestError: ``invalid_settings``, naming the setting and what it must be.
    """
    values: dict[str, object] = {}
    for name in Settings.__struct_fields__:
        value = overrides.get(name)
        if value is None:
            value = environ.get(PREFIX + name.upper()) or None
        if value is not None:
            values[name] = _plain(name, value)
    unknown = overrides.keys() - set(Settings.__struct_fields__)
    if unknown:
        raise _invalid(f"unknown setting {min(unknown)}")
    try:
        settings = msgspec.convert(values, Settings, strict=False, dec_hook=_path)
    except msgspec.ValidationError as exc:
        raise _invalid(str(exc).replace("`$.", "`")) from None
    _check(settings)
    return settings


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Variables that look like settings and are none: probably misspelt."""
    known = {PREFIX + name.upper() for name in Settings.__struct_fields__} | _CLIENT_VARIABLES
    return sorted(name for name in environ if name.startswith(PREFIX) and name not in known)


def _plain(name: str, value: object) -> object:
    if name in _LISTS and isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return str(value) if isinstance(value, Path) else value


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError


def _check(settings: Settings) -> None:
    """What one setting cannot tell by itself."""
    if settings.bucket is not None and not settings.bucket.startswith(_BUCKETS):
        raise _invalid("bucket must be file:///path, s3://bucket/prefix or none")
    if settings.s3_endpoint is not None and not (settings.bucket or "").startswith("s3://"):
        raise _invalid("s3_endpoint needs a bucket that is s3://...")
    if settings.reload and settings.app is None:
        raise _invalid("reload needs an app")
    if settings.durability == "bucket" and settings.bucket == "none":
        raise _invalid("durability cannot be bucket without a bucket")
    if settings.session_idle_seconds > settings.session_seconds:
        raise _invalid("session_idle_seconds must not be more than session_seconds")
    if settings.inline_ms >= settings.statement_ms:
        raise _invalid("inline_ms must be less than statement_ms")
    if settings.admin_token is not None and not settings.admin_token.isascii():
        raise _invalid("admin_token must be ASCII")
    if settings.rate_limits is not None or settings.trusted_proxies:
        from server.client_address import ClientAddress
        from server.rate_policies import parse_policies

        parse_policies(settings.rate_limits)
        ClientAddress(settings.trusted_proxies)
    if "*" in settings.cors_origins:
        raise _invalid("cors_origins must name the origins; * would let every web page in")
    if settings.default_tenant is not None:
        from dosql.host.names import check_tenant_name

        try:
            check_tenant_name(settings.default_tenant)
        except DosqlError as exc:
            raise _invalid(f"default_tenant: {exc.message}") from None


def _invalid(what: str) -> InvalidRequestError:
    return InvalidRequestError(f"Settings: {what}.", code="invalid_settings")
