"""The product under schedules: the real client and server code, over stores that crash (T2).

    python -m tests.simulation.product --schedules 5000
    python -m tests.simulation.product --schedules 1000 --without compare_and_clean
    python -m tests.simulation.product --schedules 1000 --without "order after CID 9"
    python -m tests.simulation.product --schedules 1000 --over sqlite
    python -m tests.simulation.product --seed 42

Sizes are patched to small values, so that schedules meet the limits of pages, pushes, sweeps and
compactions. A seed decides whether messages are sent as JSON, as NDJSON, or as objects in one
process.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial, partialmethod
from itertools import count
from typing import Any, Final
from unittest import mock

from treehub_level.engine import clock, log
from treehub_level.replication import (
    client,
    fill,
    following,
    limits,
    progress,
    push,
    reply_handler,
    retention,
    server,
    session,
    withdrawals,
)

from .configuration import Configuration
from .engines import DISKS, MakeDisk, crashing_disk
from .faults import FAILURES, FAULTS
from .processes import UNIT, Client, Server
from .runner import Run, main, run_seed
from .schedule import Trace
from .sides import ClientUnderTest, ServerUnderTest

#: Fewer bytes than are ever left in a page.
_NONE: Final = -(1 << 40)


def _all_values(exchange: Any, values: Any, keys: Any, left: int, *, enough: int) -> Any:
    """Return all present values: those of a group may not fit into the tiny pages of a schedule.

    If fewer bytes are left than ``enough``, only those that fit are returned.
    """
    return values(exchange, keys, 1 << 30 if left >= enough else left)


@contextmanager
def set_up(
    rng: random.Random, configuration: Configuration, make_disk: MakeDisk = crashing_disk
) -> Iterator[tuple[ServerUnderTest, Mapping[str, ClientUnderTest]]]:
    """Create a server and its clients, with small sizes and the faults of the configuration."""
    ticks = count()
    full_page = UNIT * configuration.page_weight
    patches: list[tuple[Any, str, Any]] = [
        (client, "PAGE_CHANGES", configuration.limit),
        (server, "MAX_DISTANCE", configuration.distance),
        (session, "MAX_DISTANCE", configuration.distance),
        (withdrawals, "MAX_DISTANCE", configuration.distance),
        (retention, "MAX_DISTANCE", configuration.distance),
        (push, "PUSH_CHANGES", configuration.push),
        (fill, "SWEEP_KEYS", 3),
        (fill, "_FETCH", 2),
        (following, "EVICTED_KEYS", 2),
        (reply_handler, "LOST_BYTES", UNIT * configuration.lost_weight),
        (client, "MAX_EPOCHS", 2),
        (reply_handler, "MAX_EPOCHS", 2),
        (session, "MAX_EPOCHS", 2),
        (limits, "_FETCH", 2),
        (progress, "MAX_STALE_REPLIES", 1000),  # schedules duplicate many messages
        (server, "MAX_BYTES", full_page),
        (server, "_READ", 2),
        (
            server._Exchange,
            "_values",
            partialmethod(_all_values, server._Exchange._values, enough=full_page if configuration.pressure else _NONE),
        ),
        (log, "MAX_READ_RECORDS", configuration.reads),
        (log, "COMPACTION_STEP", 3),
        (clock, "now", lambda: next(ticks)),
    ]
    for fault in configuration.without:
        patches += FAULTS.get(fault, [])
    with ExitStack() as stack:
        for target, name, value in patches:
            stack.enter_context(mock.patch.object(target, name, value))
        clients = {
            name: Client(name, rng, configuration, make_disk)
            for name in (f"c{i}" for i in range(configuration.clients))
        }
        server_side = Server("server", rng, configuration, make_disk)
        try:
            yield server_side, clients
        finally:
            for process in (server_side, *clients.values()):
                process.level.close()


def run(seed: int, without: str | None = None, focus: str | None = None, trace: Trace | None = None) -> Counter[str]:
    """Run the schedule of a seed on the product: see `run_seed`."""
    return run_seed(seed, set_up, without, focus, trace)


def run_over(make_disk: MakeDisk) -> Run:
    """Return a function that runs schedules over disks of one kind."""

    def run(
        seed: int, without: str | None = None, focus: str | None = None, trace: Trace | None = None
    ) -> Counter[str]:
        return run_seed(seed, partial(set_up, make_disk=make_disk), without, focus, trace)

    return run


@contextmanager
def _over(name: str) -> Iterator[Run]:
    with DISKS[name]() as make_disk:
        yield run_over(make_disk)


if __name__ == "__main__":
    main(run, __doc__ or "", faults=FAILURES, runs={name: partial(_over, name) for name in DISKS})
