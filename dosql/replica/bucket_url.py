"""Opening a bucket by its URL, as ``dosql serve --bucket`` takes it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from dosql.errors import InvalidRequestError
from dosql.replica.bucket import Bucket, check_key
from dosql.replica.s3_requests import S3Options

_S3_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)


def open_bucket(
    url: str,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    options: S3Options | None = None,
) -> Bucket:
    """``file:///absolute/path``, ``s3://bucket/prefix`` or ``memory:``.

    ``endpoint``, ``region`` and ``options`` are for S3 only; the endpoint of a store other than
    AWS is an ``http(s)://host:port``. Sends no request. Raises InvalidRequestError
    ``invalid_bucket_url``, and what the bucket's own class raises.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _invalid(url, "it is not a URL") from None
    if parts.query or parts.fragment:
        raise _invalid(url, "nothing may follow the path")
    if parts.scheme == "s3":
        return _open_s3(url, parts, endpoint, region, options)
    if endpoint is not None:
        raise _invalid(url, "an endpoint goes with s3:// only")
    if parts.scheme == "file":
        return _open_local(url, parts)
    if parts.scheme == "memory" and not parts.netloc and not parts.path:
        from dosql.replica.memory_bucket import MemoryBucket

        return MemoryBucket()
    raise _invalid(url, "it must be file:///path, s3://bucket/prefix or memory:")


def _open_local(url: str, parts: SplitResult) -> Bucket:
    from dosql.replica.local_bucket import LocalBucket

    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
        raise _invalid(url, "file: takes an absolute path, with three slashes before it")
    return LocalBucket(Path(path))


def _open_s3(
    url: str,
    parts: SplitResult,
    endpoint: str | None,
    region: str | None,
    options: S3Options | None,
) -> Bucket:
    if not _S3_NAME.fullmatch(parts.netloc):
        raise _invalid(url, "the bucket's name is 3 to 63 of a-z 0-9 . -")
    prefix = parts.path.strip("/")
    if prefix:
        try:
            check_key(prefix)
        except InvalidRequestError:
            raise _invalid(url, "the prefix is names of A-Z a-z 0-9 _ . = + @ ~ , -") from None
    if endpoint is not None:
        _check_endpoint(endpoint)
    try:
        from dosql.replica.s3_bucket import S3Bucket

        return S3Bucket(parts.netloc, prefix, endpoint=endpoint, region=region, options=options)
    except ModuleNotFoundError as error:
        raise _invalid(url, f"{error.name} is not installed: pip install 'dosql[s3]'") from error


def _check_endpoint(endpoint: str) -> None:
    if not _is_endpoint(endpoint):
        # Not shown: somebody may have put a password into it.
        raise InvalidRequestError(
            "The S3 endpoint must be http(s)://host:port, and nothing else.",
            code="invalid_bucket_url",
        )


def _is_endpoint(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        named = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return False
    return bool(named) and not (parts.username or parts.path.strip("/") or parts.query)


def _invalid(url: str, reason: str) -> InvalidRequestError:
    shown = re.sub(r"//[^/@]*@", "//...@", url)
    return InvalidRequestError(
        f"{shown!r} is not the URL of a bucket: {reason}.", code="invalid_bucket_url"
    )
