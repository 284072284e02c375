"""T19: histories of real processes have no anomaly, and those of faulty ones have."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fault_proxy import Faults

from .checker import check
from .faults import CLIENT_FAULTS, SERVER_FAULTS
from .workload import Workload

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(
        sys.platform == "win32", reason="Windows cannot pause a process, and locks files of killed ones"
    ),
]

#: The faults of the network without those that only cost time.
BRISK = Faults(swallow=0, part=0)
#: No faults of the network but late messages.
CALM = Faults(refuse=0, swallow=0, delay=0, duplicate=0, cut=0, part=0)


async def test_histories_have_no_anomaly(tmp_path: Path) -> None:
    workload = Workload(tmp_path, operations=240, pace=0.004, disturb=80, faults=BRISK)
    verdict = check(await workload.run())
    assert verdict.anomalies == []
    assert verdict.accepted > 30
    assert verdict.edges > 500
    assert {"cut", "late"} <= set(workload.counts)


async def test_faulty_clients_and_servers_are_found(tmp_path: Path) -> None:
    half, dropped = CLIENT_FAULTS["applies half a page"], CLIENT_FAULTS["drops its dirty changes at a pull"]
    divided = SERVER_FAULTS["judges each change of a group"]
    missed = [half, dropped, divided]
    for attempt in range(3):  # a fault shows only if two sessions meet in it
        folder = tmp_path / str(attempt)
        folder.mkdir()
        workload = Workload(
            folder,
            operations=250,
            styles=("sync", "live", "live"),
            pace=0.004,
            client_prelude=half.prelude + dropped.prelude,
            server_prelude=divided.prelude,
            faults=CALM,
        )
        names = check(await workload.run()).names
        missed = [fault for fault in missed if not fault.anomalies & names]
        if not missed:
            break
    assert missed == []
