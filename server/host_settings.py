"""What the settings say of the objects: where they are kept, copied to, and what they may use."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlencode

from dosql.clock import Randomness
from dosql.host.changes import ChangeSettings
from dosql.host.cold_settings import ColdTierSettings
from dosql.host.host import HostSettings
from dosql.replica.bucket_url import open_bucket
from dosql.replica.probe import probe
from dosql.replica.retention import RetentionSettings
from dosql.sqlite.change_log import Retention
from dosql.sqlite.database import DatabaseLimits
from dosql.sqlite.migrations import load_migrations
from server.settings import Settings


def cold_tier(settings: Settings, randomness: Randomness) -> ColdTierSettings | None:
    """The bucket, tried out. Raises what is wrong with it."""
    if settings.bucket == "none":
        return None
    url = settings.bucket or (settings.data_dir.absolute() / "bucket").as_uri()
    bucket = open_bucket(url, endpoint=settings.s3_endpoint)
    directory = url.startswith("file:")
    if not directory:  # what a directory can do is known
        probe(bucket, randomness)
    return ColdTierSettings(
        bucket,
        directory=directory,
        durability=settings.durability,
        url_options=_url_options(settings.s3_endpoint) if not directory else "",
        accept_catalog_at=settings.accept_catalog_loss,
        retention=RetentionSettings(
            history_ms=round(settings.retention_days * 24 * 3600 * 1000),
            commits_ms=round(settings.l0_retention_hours * 3600 * 1000),
        ),
    )


def _url_options(endpoint: str | None) -> str:
    """What Litestream must know beside the URL of a bucket of S3."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    options = {"region": region}
    if endpoint is not None:
        options = {"endpoint": endpoint, "forcePathStyle": "true", **options}
    return f"?{urlencode(options, safe=':/')}"


def host_settings(settings: Settings, cold: ColdTierSettings | None) -> HostSettings:
    """Raises InvalidRequestError for migrations that cannot be read."""
    return HostSettings(
        cold=cold,
        data_dir=settings.data_dir,
        migrations=load_migrations(settings.migrations or default_migrations()),
        open_objects_max=settings.max_open,
        idle_seconds=settings.idle_seconds,
        inline_ms=settings.inline_ms,
        statement_ms=settings.statement_ms,
        transaction_idle_s=settings.transaction_idle_seconds,
        transaction_s=settings.transaction_seconds,
        log_bytes_max=settings.log_bytes_max,
        changes=ChangeSettings(
            settings.changes == "on",
            Retention(
                age_ms=int(settings.changes_seconds * 1000),
                size_bytes=settings.changes_bytes_max,
            ),
        ),
        limits=DatabaseLimits(
            settings.rows_max, settings.result_bytes_max, settings.database_bytes_max
        ),
    )


def default_migrations() -> Path:
    """The schema that comes with dosql: beside this package in a checkout, inside it installed."""
    here = Path(__file__).resolve().parent
    installed = here / "migrations"
    return installed if installed.is_dir() else here.parent / "migrations"
