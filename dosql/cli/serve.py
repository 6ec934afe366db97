"""``dosql serve``: hands its flags to the server, which checks them."""

from __future__ import annotations

from typing import Annotated

import typer

from dosql.cli.start import start


def _flag(name: str, value: str, help_text: str) -> object:
    return typer.Option(name, metavar=value, help=help_text, show_default=False)


Flag = str | None


def serve(
    listen: Annotated[
        Flag, _flag("--listen", "HOST:PORT", "Where to listen [default: 127.0.0.1:8787]")
    ] = None,
    data_dir: Annotated[
        Flag, _flag("--data-dir", "DIR", "Where everything is kept [default: ./data]")
    ] = None,
    bucket: Annotated[
        Flag, _flag("--bucket", "URL", "Copy to file:///path or s3://bucket/prefix")
    ] = None,
    s3_endpoint: Annotated[
        Flag, _flag("--s3-endpoint", "URL", "URL of an S3-compatible store; keys from AWS_...")
    ] = None,
    durability: Annotated[
        Flag,
        _flag("--durability", "MODE", "What a reply waits for: local or bucket [default: local]"),
    ] = None,
    accept_catalog_loss: Annotated[
        Flag,
        _flag("--accept-catalog-loss", "N", "Go on with a damaged catalog as the bucket has it"),
    ] = None,
    max_open: Annotated[Flag, _flag("--max-open", "N", "Objects awake at once")] = None,
    idle_seconds: Annotated[
        Flag, _flag("--idle-seconds", "S", "Seconds after which an object hibernates")
    ] = None,
    app: Annotated[Flag, _flag("--app", "MODULE:APP", "Durable object classes of your own")] = None,
    reload: Annotated[
        bool,
        typer.Option("--reload", help="For development: reload the app when its files change"),
    ] = False,
    migrations: Annotated[
        Flag, _flag("--migrations", "DIR", "Directory of NNN_name.sql files")
    ] = None,
    default_tenant: Annotated[
        Flag, _flag("--default-tenant", "NAME", "Tenant of requests that name none")
    ] = None,
    tenant_creation: Annotated[
        Flag, _flag("--tenant-creation", "MODE", "auto or explicit [default: auto]")
    ] = None,
    base_domain: Annotated[
        Flag, _flag("--base-domain", "DOMAIN", "Take the tenant from one label below this domain")
    ] = None,
    changes: Annotated[
        Flag,
        _flag("--changes", "MODE", "Capture changes: auto (when followed) or on [default: auto]"),
    ] = None,
    rate_limits: Annotated[
        Flag,
        _flag("--rate-limits", "JSON", "Rate limit policies, or none [default: 100/min on /api/*]"),
    ] = None,
    admin_listen: Annotated[
        Flag, _flag("--admin-listen", "HOST:PORT", "Serve /admin and /metrics here only")
    ] = None,
    log_level: Annotated[
        Flag, _flag("--log-level", "LEVEL", "debug, info, warning or error [default: info]")
    ] = None,
) -> None:
    """Start the server.

    Every flag can also be set as DOSQL_..., for example DOSQL_DATA_DIR; a flag wins.
    """
    given: dict[str, str | None] = {
        "listen": listen,
        "data_dir": data_dir,
        "bucket": bucket,
        "s3_endpoint": s3_endpoint,
        "durability": durability,
        "accept_catalog_loss": accept_catalog_loss,
        "max_open": max_open,
        "idle_seconds": idle_seconds,
        "app": app,
        "reload": "true" if reload else None,
        "migrations": migrations,
        "default_tenant": default_tenant,
        "tenant_creation": tenant_creation,
        "base_domain": base_domain,
        "changes": changes,
        "rate_limits": rate_limits,
        "admin_listen": admin_listen,
        "log_level": log_level,
    }
    start({name: value for name, value in given.items() if value is not None})
