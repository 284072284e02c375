"""T19: histories of real processes have no anomaly, and those of faulty ones have."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.http.fault_proxy import Faults

from .checker import check
from .faults import CLIENT_FAULTS, SERVER_FAULTS
from .workload import Workload

pytestmark = pytest.mark.once

#: The faults of the network without those that only cost time.
BRISK = Faults(swallow=0, part=0)


async def test_histories_have_no_anomaly(tmp_path: Path) -> None:
    workload = Workload(tmp_path, operations=300, pace=0.004, disturb=0.4, faults=BRISK)
    verdict = check(await workload.run())
    assert verdict.anomalies == []
    assert verdict.accepted > 60
    assert verdict.edges > 1000
    assert {"cut", "late"} <= set(workload.counts)


async def test_faulty_clients_and_servers_are_found(tmp_path: Path) -> None:
    faults = [
        CLIENT_FAULTS["applies half a page"],
        CLIENT_FAULTS["drops its dirty changes at a pull"],
        SERVER_FAULTS["judges each change of a group"],
    ]
    workload = Workload(
        tmp_path,
        operations=400,
        pace=0.004,
        preludes={"sync0": faults[0].prelude, "live0": faults[1].prelude},
        server_prelude=faults[2].prelude,
        faults=BRISK,
    )
    names = check(await workload.run()).names
    assert [fault.anomalies for fault in faults if not fault.anomalies & names] == []
