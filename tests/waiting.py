"""Polling for a condition, with a timeout so long that no test result depends on timing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

#: Seconds after which a test that waits for a condition fails.
PATIENCE = 20.0


async def until(condition: Callable[[], Any]) -> None:
    """Wait until ``condition()`` is true. It may return an awaitable.

    Raises:
        AssertionError: The condition was not true in time.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        result = condition()
        if asyncio.iscoroutine(result) or asyncio.isfuture(result):
            result = await result
        if result:
            return
        assert time.monotonic() < deadline, f"{condition} was not true within {PATIENCE:.0f} seconds"
        await asyncio.sleep(0.005)
