"""The server of each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from served import Served


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """A server in this process, with tokens."""
    made = Served(tmp_path)
    await made.start()
    yield made
    await made.stop()
