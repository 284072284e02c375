"""Fixtures of the tests of the HTTP server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from served import Served


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """A server in this process, with tokens."""
    server = Served(tmp_path)
    await server.start()
    yield server
    await server.stop()
