"""T9: replicas of a server over one database, while everything fails. See ``soak.py`` for longer runs."""

from __future__ import annotations

import pytest
from databases import open_folder

from .soak import EACH, Soak

pytestmark = pytest.mark.once

#: A replica that takes the CID that it wrote last for the present one.
DECIDES_FROM_MEMORY = """
from treehub_level.engine.store import Store

read = Store.cid_in
Store.cid_in = lambda store, reader: read(store, reader) if store._cid is None else store._cid
"""

#: A replica whose snapshots are none: each statement reads what is committed by then, be it a moment later.
READS_WHAT_IS_COMMITTED = """
import time

from treehub_level.backends.postgres import PostgresBackend


class Now:
    def __init__(self, backend):
        self.get, self.get_many, self._scan = backend.get, backend.get_many, backend.scan

    def scan(self, *bounds, **options):
        time.sleep(0.05)
        return self._scan(*bounds, **options)

    def close(self):
        pass


PostgresBackend.snapshot = lambda backend: Now(backend)
"""

#: A replica that acknowledges what it does not commit, one time in twenty.
ACKNOWLEDGES_TOO_EARLY = """
from itertools import count

from treehub_level.backends.postgres.transaction import Transaction

commit, commits = Transaction._commit, count(1)
Transaction._commit = lambda transaction, connection: next(commits) % 20 and commit(transaction, connection)
"""


async def test_nothing_is_lost_and_all_are_equal_whatever_failed() -> None:
    with open_folder() as path:
        soak = Soak(path, seed=9)
        assert await soak.run(EACH) == []
    assert {*EACH} <= {*soak.counts}
    assert soak.counts["acknowledged"] > 500
    assert soak.counts["resets"] > 0


@pytest.mark.parametrize(
    "prelude",
    [DECIDES_FROM_MEMORY, READS_WHAT_IS_COMMITTED, ACKNOWLEDGES_TOO_EARLY],
    ids=["decides from memory", "reads what is committed", "acknowledges too early"],
)
async def test_a_faulty_replica_is_found_out_though_nothing_else_fails(prelude: str) -> None:
    with open_folder() as path:
        assert await Soak(path, seed=9, prelude=prelude, healed=4).run([]) != []
