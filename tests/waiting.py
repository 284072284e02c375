"""Waiting for what happens beside a test, with a bound so generous that no verdict depends on timing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

#: Seconds.
PATIENCE = 20.0


async def until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds, which may have to be awaited."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = condition()
        if asyncio.iscoroutine(found) or asyncio.isfuture(found):
            found = await found
        if found:
            return
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.005)
