"""Servers and clients with one fault each are found by the scenario that is named for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from treehub_level.testing.exchange import Outcome, run_client, run_server
from treehub_level.testing.exchange.clients import SUITE as CLIENT_SUITE
from treehub_level.testing.exchange.clients import ClientScene
from treehub_level.testing.exchange.clients.commands import CommandRunner
from treehub_level.testing.exchange.scenarios import play_all
from treehub_level.testing.exchange.servers import SUITE as SERVER_SUITE

from .client_faults import CLIENT_FAULTS, ClientFault, faulty_client
from .server_faults import FURTHER_SERVER_FAULTS, SERVER_FAULTS, ServerFault, faulty_server

pytestmark = pytest.mark.once

#: Scenarios that need processes; they have tests of their own here.
OF_PROCESSES = {"a-client-that-is-killed-goes-on"}
#: Scenarios of a thousand exchanges, or of 65,536 changes.
HEAVY = {"a-session-of-short-pages-ends", "a-push-from-too-far-behind-is-not-decided"}


def play_client(name: str, client: CommandRunner, folder: Path) -> Outcome:
    """Play one scenario for a client in this process."""
    scenarios = CLIENT_SUITE.chosen([name])
    (outcome,) = play_all(scenarios, lambda scenario: ClientScene(client, folder, scenario.name))
    return outcome


def test_every_scenario_has_a_control() -> None:
    assert {*SERVER_FAULTS} == {*SERVER_SUITE.scenarios}
    assert {*CLIENT_FAULTS} == {*CLIENT_SUITE.scenarios} - OF_PROCESSES


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *(pytest.param(name, fault, id=name) for name, fault in SERVER_FAULTS.items()),
        *(pytest.param(name, fault, id=f"{name} (further)") for name, fault in FURTHER_SERVER_FAULTS.items()),
    ],
)
def test_the_fault_of_a_server_is_found(name: str, fault: ServerFault) -> None:
    with faulty_server(fault) as server:
        (outcome,) = run_server(server, only=[name])
    assert outcome.result == "failed"
    assert outcome.reason
    if name not in HEAVY:
        with faulty_server(ServerFault()) as server:
            (outcome,) = run_server(server, only=[name])
        assert outcome.result != "failed"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.repeated) if name in HEAVY else name for name in CLIENT_FAULTS]
)
def test_the_fault_of_a_client_is_found(name: str, tmp_path: Path) -> None:
    with faulty_client(CLIENT_FAULTS[name]) as client:
        outcome = play_client(name, client, tmp_path)
    assert outcome.result == "failed"
    assert outcome.reason
    with faulty_client(ClientFault()) as client:
        assert play_client(name, client, tmp_path).result == "passed"


@pytest.mark.parametrize("name", OF_PROCESSES)
def test_a_client_that_forgets_its_store_when_it_is_killed_is_found(name: str) -> None:
    program = (
        "from treehub_level.testing.exchange import driver\n"
        "driver.ABILITIES.append('persistent')\n"
        "driver.main([])\n"  # its stores are in memory
    )
    (outcome,) = run_client([sys.executable, "-c", program], only=[name])
    assert outcome.result == "failed"
