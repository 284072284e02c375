"""The Python client and the HTTP server pass the scenarios of the exchange."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from treehub_level.testing.exchange import Outcome, run_client, run_server
from treehub_level.testing.exchange.clients import SUITE as CLIENT_SUITE
from treehub_level.testing.exchange.scenarios import ScenarioSuite
from treehub_level.testing.exchange.servers import SUITE as SERVER_SUITE

from .served import ServedDatabases

pytestmark = pytest.mark.once

BACKENDS = ["memory", "leveldb", "sqlite"]
DRIVER = [sys.executable, "-m", "treehub_level.testing.exchange.driver"]
#: Scenarios of a thousand exchanges, or of 65,536 changes: `make soak` plays them.
HEAVY = {"a-session-of-short-pages-ends", "a-push-from-too-far-behind-is-not-decided"}


def all_but_heavy(suite: ScenarioSuite[Any]) -> list[str]:
    """The names of the scenarios that take little time."""
    return [name for name in suite.scenarios if name not in HEAVY]


def failures(outcomes: Iterator[Outcome]) -> list[Outcome]:
    """The outcomes of scenarios that did not pass."""
    return [outcome for outcome in outcomes if outcome.result != "passed"]


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedDatabases]:
    with ServedDatabases(tmp_path_factory.mktemp("databases"), BACKENDS).running() as served:
        yield served


def test_the_http_server_passes_the_scenarios(databases: ServedDatabases) -> None:
    assert failures(run_server(databases.under_test("leveldb"), only=all_but_heavy(SERVER_SUITE))) == []


@pytest.mark.repeated
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_http_server_passes_all_scenarios_over_each_backend(databases: ServedDatabases, backend: str) -> None:
    assert failures(run_server(databases.under_test(backend))) == []


def test_the_python_client_passes_the_scenarios() -> None:
    assert failures(run_client([*DRIVER, "--asyncio", "--backend", "leveldb"], only=all_but_heavy(CLIENT_SUITE))) == []


@pytest.mark.repeated
@pytest.mark.parametrize("options", [[], ["--asyncio"]], ids=["blocking", "asyncio"])
@pytest.mark.parametrize("backend", ["leveldb", "sqlite"])
def test_the_python_client_passes_all_scenarios_in_both_apis(backend: str, options: list[str]) -> None:
    assert failures(run_client([*DRIVER, "--backend", backend, *options])) == []
