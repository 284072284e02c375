"""T9: replicas of a server over one database, with fault injection. `soak` has longer runs."""

from __future__ import annotations

import pytest
from databases import open_folder

from .soak import EVERY_FAULT, Soak

pytestmark = pytest.mark.once

#: Clients in the suite; the long run has 50.
CLIENTS = 25

#: A faulty replica that caches the CID of its last write instead of reading the current one.
CACHES_CID = """
from treehub_level.engine.store import Store

execute = Store._execute_in


def execute_and_cache(store, transaction, step, durable):
    plan = execute(store, transaction, step, durable)
    if plan.cid is not None:
        store._cid = plan.cid
    return plan


Store._execute_in = execute_and_cache
"""

#: A faulty replica without snapshots: each statement sees the commits before it (READ COMMITTED).
READS_COMMITTED = """
import time

from treehub_level.backends.postgres import PostgresBackend


class NoSnapshot:
    def __init__(self, backend):
        self.get, self.get_many, self._scan = backend.get, backend.get_many, backend.scan

    def scan(self, *bounds, **options):
        time.sleep(0.05)
        return self._scan(*bounds, **options)

    def close(self):
        pass


PostgresBackend.snapshot = lambda backend: NoSnapshot(backend)
"""

#: A faulty replica that acknowledges one in twenty transactions without committing it.
SKIPS_COMMITS = """
from itertools import count

from treehub_level.backends.postgres.transaction import PostgresTransaction

commit, commits = PostgresTransaction._commit, count(1)
PostgresTransaction._commit = lambda transaction, connection: next(commits) % 20 and commit(transaction, connection)
"""


async def test_no_write_is_lost_and_all_clients_are_equal_after_each_kind_of_fault() -> None:
    with open_folder() as path:
        soak = Soak(path, seed=9, clients=CLIENTS)
        assert await soak.run(EVERY_FAULT) == []
    assert {*EVERY_FAULT} <= {*soak.counts}
    assert soak.counts["acknowledged"] > 200
    assert soak.counts["resets"] > 0


@pytest.mark.parametrize(
    "prelude",
    [CACHES_CID, READS_COMMITTED, SKIPS_COMMITS],
    ids=["caches the CID", "reads committed", "skips commits"],
)
async def test_a_faulty_replica_is_detected_without_other_faults(prelude: str) -> None:
    with open_folder() as path:
        assert await Soak(path, seed=9, prelude=prelude, recovery_seconds=4, clients=CLIENTS).run([]) != []
