"""JavaScript clients under the schedules of `simulation`: see `js.simulated`."""

from __future__ import annotations

import pytest
from simulation.runner import first_violation

from js.simulated import run_with, simulated_node

pytestmark = pytest.mark.once

#: A seed among whose successors a schedule fails without the mechanism.
CONTROLS = {
    "compare_and_clean": 2,
    "own_range": 4,
    "absent_in_piece": 12,
    "piece_beats_unchecked": 0,
    "uncompared": 13,
    "unchecked_freeze": 5,
    "refusals_heal": 5,
}
#: The most schedules of a control.
MOST = 200


def test_no_schedule_breaks_an_invariant(node_executable: str) -> None:
    with simulated_node(node_executable) as node:
        assert first_violation(range(20), run_with(node)) is None


@pytest.mark.parametrize("mechanism", CONTROLS)
def test_the_schedules_find_the_removal_of(mechanism: str, node_executable: str) -> None:
    first = CONTROLS[mechanism]
    with simulated_node(node_executable, mechanism) as node:
        found = first_violation(range(first, first + MOST), run_with(node), mechanism, mechanism)
    assert found is not None
