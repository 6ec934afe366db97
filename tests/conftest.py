"""Fixtures for all tests: real servers."""

from tests.support.minio import minio, pytest_collection_finish
from tests.support.server import server, shared_server, start_server

__all__ = ["minio", "pytest_collection_finish", "server", "shared_server", "start_server"]
