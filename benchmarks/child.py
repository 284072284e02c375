"""A contender in Python, as `benchmarks.process` wants it: ``python -m benchmarks.child WORKLOAD RECORDS ENGINE``.

The core is chosen by the environment.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import AsyncExitStack

import orjson


async def serve(workload: str, records: int, engine: str) -> None:
    """Prepare, then measure whenever asked."""
    try:
        from .workloads import WORKLOADS, NotInstalledError  # not above: the core that it imports may be missing
    except ImportError as error:
        _answer(missing=str(error))
        return
    async with AsyncExitStack() as stack:
        try:
            measure = await stack.enter_async_context(WORKLOADS[workload](records, engine))
        except NotInstalledError as error:
            _answer(missing=str(error))
            return
        _answer(ready=True)
        for _ in sys.stdin:
            gc.collect()
            _answer(**await measure())


def _answer(**answer: object) -> None:
    print(orjson.dumps(answer).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
