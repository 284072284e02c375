"""T13: many clients of one server. ``many_clients.py`` runs longer, and checks the latency too."""

from __future__ import annotations

from pathlib import Path

import pytest

from .many_clients import SHORT_STALL, Load, Outcome, apply

pytestmark = pytest.mark.once

#: The prelude of a server without a limit on request bodies, which leaks each body.
FAULTY = (
    SHORT_STALL + "from treehub_level.http.server import bodies, limits; "
    "limits.Limits.__init__.__kwdefaults__['body_bytes'] = 1 << 40; "
    "leaked = []; bodies.bytearray = lambda: leaked.append(bytearray()) or leaked[-1]; "
)


async def test_hostile_clients_do_not_disturb_the_others(tmp_path: Path) -> None:
    outcome = await apply(Load(pause=0.2), tmp_path)
    assert outcome.violations() == []
    assert len(outcome.latencies) > 50


async def test_needless_requests_a_missing_limit_and_a_leak_are_detected(tmp_path: Path) -> None:
    outcome = await apply(Load(seconds=1, pause=0, prelude=FAULTY, pull_first=True), tmp_path)
    found = outcome.violations()
    assert any("requests for" in violation for violation in found)
    assert any("flooding was tolerated" in violation for violation in found)
    assert outcome.growth is None or any("memory grew by" in violation for violation in found)


def test_differences_between_clients_and_lost_writes_are_detected() -> None:
    found = Outcome(written={"a": 2}, stores=[{"a": 1}, {}], latencies=[0.1, 0.1]).violations()
    assert "clients differ" in found
    assert "1 of 1 keys lack their last value, for example a" in found
