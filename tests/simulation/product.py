"""The product under schedules: the real client and server code, over stores that crash (T2).

    python -m tests.simulation.product --schedules 5000
    python -m tests.simulation.product --schedules 1000 --without casclean
    python -m tests.simulation.product --schedules 1000 --without "order after CID 9"
    python -m tests.simulation.product --seed 42

Sizes are patched down, so that pages, pushes, sweeps and compactions end early. Messages cross as JSON in some
worlds, as NDJSON in others, and as they are within a process in the rest.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from unittest import mock

from treehub_level.replication import allowance, client, log, server, session

from .configuration import Configuration
from .faults import FAILURES, FAULTS
from .processes import UNIT, Client, Server
from .runner import main
from .sides import ClientUnderTest, ServerUnderTest


@contextmanager
def world(
    rng: random.Random, configuration: Configuration
) -> Iterator[tuple[ServerUnderTest, Mapping[str, ClientUnderTest]]]:
    """A server and its clients, all sizes patched down, faults put in."""
    patches = [
        (client, "PAGE_CHANGES", configuration.limit),
        (client, "PUSH_CHANGES", configuration.push),
        (client, "SWEEP_KEYS", configuration.sweep),
        (allowance, "_FETCH", 2),
        (session, "PATIENCE", 1000),  # messages are repeated at will here
        (server, "MAX_BYTES", UNIT * configuration.page_weight),
        (server, "_READ", 2),
        (log, "COMPACTION_STEP", 3),
    ]
    for fault in configuration.without:
        patches += FAULTS.get(fault, [])
    with ExitStack() as stack:
        for target, name, value in patches:
            stack.enter_context(mock.patch.object(target, name, value))
        clients = {name: Client(name, rng, configuration) for name in (f"c{i}" for i in range(configuration.clients))}
        yield Server("server", rng, configuration), clients


if __name__ == "__main__":
    main(world, __doc__ or "", faults=FAILURES)
