"""Row T16: a hostile client neither stops nor fills the server.

The controls of all attacks take minutes: ``python -m tests.http.hostile --control`` runs them, and
the suite those of `CONTROLS`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from certificates import CAN_MAKE_CERTIFICATES

from .attacks import attack, names
from .harness import measure

pytestmark = pytest.mark.once

#: The attacks whose control breaks a bound at once.
CONTROLS = ["long_header", "stalled_bodies_of_a_reader"]

#: Seconds of each attack in the ordinary suite.
SECONDS = 1.0


@pytest.fixture(params=names())
def name(request: pytest.FixtureRequest) -> str:
    """The name of an attack."""
    name: str = request.param
    if attack(name).tls and not CAN_MAKE_CERTIFICATES:
        pytest.skip("openssl makes the certificate")
    return name


async def test_honest_clients_are_served_and_memory_is_bounded_under(name: str, tmp_path: Path) -> None:
    figures = await measure(name, tmp_path, SECONDS)
    assert figures.latencies
    assert figures.violations(attack(name)) == []


@pytest.mark.parametrize("name", CONTROLS)
async def test_without_its_defence_a_bound_is_broken_under(name: str, tmp_path: Path) -> None:
    figures = await measure(name, tmp_path, SECONDS, defended=False)
    assert figures.violations(attack(name))
