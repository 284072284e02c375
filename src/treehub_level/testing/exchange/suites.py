"""The scenarios of the exchange as test suites for pytest: a test for each scenario."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from .clients import SUITE as CLIENT_SUITE
from .clients import ClientProcess, ClientScene
from .runs import PATIENCE, run_server
from .scenarios import ConformanceError, Outcome, play_all
from .servers import SUITE as SERVER_SUITE
from .servers import ServerUnderTest


def _report(outcome: Outcome) -> None:
    """Skip the test, or let it fail, as a scenario did."""
    if outcome.result == "skipped":
        pytest.skip(outcome.reason)
    if outcome.result == "failed":
        error = ConformanceError(outcome.reason, sent=outcome.sent, received=outcome.received)
        pytest.fail(f"docs/protocol.md, {outcome.section}\n{error}", pytrace=False)


class ExchangeServerConformance:
    """The scenarios for a server. A subclass overrides the fixture ``server_under_test``."""

    @pytest.fixture
    def server_under_test(self) -> ServerUnderTest:
        """Return a database of the running server: subclasses must override this."""
        raise NotImplementedError("define the fixture server_under_test in your subclass")

    @pytest.mark.parametrize("scenario", SERVER_SUITE.scenarios)
    def test_scenario(self, server_under_test: ServerUnderTest, scenario: str) -> None:
        """Play one scenario."""
        _report(*run_server(server_under_test, only=[scenario]))


class ExchangeClientConformance:
    """The scenarios for a client. A subclass sets ``client_command``."""

    #: The program that drives the client, and its arguments.
    client_command: ClassVar[Sequence[str]]
    _process: ClassVar[ClientProcess]

    @classmethod
    def setup_class(cls) -> None:
        """Start the program, which runs for all scenarios."""
        cls._process = ClientProcess(cls.client_command, PATIENCE)

    @classmethod
    def teardown_class(cls) -> None:
        """End the program."""
        cls._process.close()

    @pytest.mark.parametrize("scenario", CLIENT_SUITE.scenarios)
    def test_scenario(self, tmp_path: Path, scenario: str) -> None:
        """Play one scenario."""
        scenes = play_all(CLIENT_SUITE.chosen([scenario]), lambda _: ClientScene(self._process, tmp_path, scenario))
        _report(*scenes)
