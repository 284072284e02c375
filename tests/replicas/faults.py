"""Faults to put into a replica: Python statements that its process runs first."""

from typing import Final

#: A faulty replica that caches the CID of its last write instead of reading the current one.
CACHES_CID: Final = """
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
READS_COMMITTED: Final = """
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

#: A faulty replica that acknowledges one in five transactions without committing it.
SKIPS_COMMITS: Final = """
from itertools import count

from treehub_level.backends.postgres.transaction import PostgresTransaction

commit, commits = PostgresTransaction._commit, count(1)
PostgresTransaction._commit = lambda transaction, connection: next(commits) % 5 and commit(transaction, connection)
"""
