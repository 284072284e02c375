"""The process of a contender in Python: ``python -m benchmarks.child WORKLOAD RECORDS ENGINE``.

`benchmarks.process` describes its input and output. The environment variable
``TREEHUB_LEVEL_CORE`` selects the core.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import AsyncExitStack

import orjson


async def serve(workload: str, records: int, engine: str) -> None:
    """Prepare the workload, then run it once for each line of stdin."""
    try:
        from .workloads import WORKLOADS, NotInstalledError  # not at the top: the core may be missing
    except ImportError as error:
        _reply(missing=str(error))
        return
    async with AsyncExitStack() as stack:
        try:
            measure = await stack.enter_async_context(WORKLOADS[workload](records, engine))
        except NotInstalledError as error:
            _reply(missing=str(error))
            return
        _reply(ready=True)
        for _ in sys.stdin:
            gc.collect()
            _reply(**await measure())


def _reply(**reply: object) -> None:
    print(orjson.dumps(reply).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
