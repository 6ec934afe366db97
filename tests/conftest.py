"""Fixtures for all tests: real servers."""

from tests.support.minio import minio
from tests.support.server import server, shared_server, start_server

__all__ = ["minio", "server", "shared_server", "start_server"]
