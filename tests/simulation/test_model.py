"""The model of the protocol under random schedules (T1). See ``model.py`` for longer runs."""

from __future__ import annotations

import os

import pytest

from . import model
from .configuration import FOCUS, MECHANISMS
from .controls import control_is_found
from .runner import first_violation

pytestmark = pytest.mark.once

SCHEDULES = int(os.environ.get("TREEHUB_LEVEL_MODEL_SCHEDULES", "400"))
PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_the_protocol_holds_in_random_configurations(part: int) -> None:
    size = SCHEDULES // PARTS
    assert first_violation(range(part * size, (part + 1) * size), model.run) is None


@pytest.mark.parametrize("focus", sorted(FOCUS))
def test_the_protocol_holds_where_one_mechanism_is_stressed(focus: str) -> None:
    assert first_violation(range(SCHEDULES // 25), model.run, focus=focus) is None


@pytest.mark.parametrize("mechanism", sorted(MECHANISMS))
def test_the_protocol_breaks_without(mechanism: str) -> None:
    assert control_is_found("model", mechanism)


def test_a_seed_replays_the_same_schedule() -> None:
    assert model.run(11) == model.run(11)
