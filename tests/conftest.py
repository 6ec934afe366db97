"""Fixtures for all tests: real servers."""

from tests.support.server import server, shared_server, start_server

__all__ = ["server", "shared_server", "start_server"]
