"""The process of one contender: ``python -m benchmarks.child WORKLOAD RECORDS``, the core chosen by the environment.

It prepares the workload, says ``{"ready": true}``, and answers each line of its input with one measurement,
``{"seconds": 0.0123}``, until its input ends. If something that it needs is not installed it says
``{"missing": "..."}`` instead, and ends.
"""

from __future__ import annotations

import asyncio
import gc
import sys

import orjson


async def serve(workload: str, records: int) -> None:
    """Prepare, then measure whenever asked."""
    try:
        from .workloads import WORKLOADS  # not above: it imports the core and plyvel, and either may be missing
    except ImportError as error:
        _answer(missing=str(error))
        return
    async with WORKLOADS[workload](records) as measure:
        _answer(ready=True)
        for _ in sys.stdin:
            gc.collect()
            _answer(seconds=await measure())


def _answer(**answer: object) -> None:
    print(orjson.dumps(answer).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
