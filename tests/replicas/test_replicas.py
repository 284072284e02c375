"""T9: replicas of a server over one database, with fault injection. `soak` has longer runs."""

from __future__ import annotations

import pytest
from databases import open_folder

from .faults import CACHES_CID, READS_COMMITTED, SKIPS_COMMITS
from .soak import EVERY_FAULT, Soak

pytestmark = pytest.mark.once

#: Clients in the suite; the long run has 50.
CLIENTS = 25


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
