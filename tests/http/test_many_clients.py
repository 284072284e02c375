"""T13: many clients of one server. See ``many_clients.py`` for longer runs: they judge latency, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from .many_clients import IMPATIENT, Crowd, Outcome, come

pytestmark = pytest.mark.once

#: A server that takes bodies of any size, and keeps every body that it ever began to read.
FAULTY = (
    IMPATIENT + "from treehub_level.http import bodies, limits; "
    "limits.Limits.__init__.__kwdefaults__['body_bytes'] = 1 << 40; "
    "kept = []; bodies.bytearray = lambda: kept.append(bytearray()) or kept[-1]; "
)


async def test_honest_clients_get_along_among_some_that_misbehave(tmp_path: Path) -> None:
    outcome = await come(Crowd(rest=0.2), tmp_path)
    assert outcome.faults() == []
    assert len(outcome.latencies) > 50


async def test_needless_requests_a_missing_limit_and_a_leak_are_found_out(tmp_path: Path) -> None:
    outcome = await come(Crowd(seconds=1, rest=0, prelude=FAULTY, greedy=True), tmp_path)
    faults = outcome.faults()
    assert any("requests for" in fault for fault in faults)
    assert any("flooding was let pass" in fault for fault in faults)
    assert outcome.grown is None or any("has grown by" in fault for fault in faults)


def test_clients_that_differ_and_writes_that_are_lost_are_found_out() -> None:
    faults = Outcome(written={"a": 2}, stores=[{"a": 1}, {}], latencies=[0.1, 0.1]).faults()
    assert "clients differ" in faults
    assert "1 of 1 keys are not as they were written, a among them" in faults
