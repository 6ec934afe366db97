"""Fixtures for all tests: real servers."""

import pytest

from tests.support.canaries import Report
from tests.support.minio import minio, pytest_collection_finish
from tests.support.server import server, shared_server, start_server

__all__ = ["minio", "pytest_collection_finish", "server", "shared_server", "start_server"]


def pytest_configure(config: pytest.Config) -> None:
    """What was searched for secrets is told at the end."""
    config.pluginmanager.register(Report(), "canaries")
