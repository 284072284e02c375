"""Runs of the scenarios: for a server at a URL, and for a client that is a program."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from .clients import SUITE as CLIENT_SUITE
from .clients import ClientProcess, ClientScene
from .scenarios import Outcome, Scenario, play_all
from .servers import SUITE as SERVER_SUITE
from .servers import ServerScene, ServerUnderTest

#: Seconds to wait for a response of a server, or for the answer to a command of a client.
PATIENCE = 60.0


def run_server(server: ServerUnderTest, *, only: Sequence[str] = ()) -> Iterator[Outcome]:
    """Play the scenarios for a server.

    Args:
        server: The server. The scenarios write to its database, under keys of their own.
        only: The names of the scenarios to play; all if empty.

    Yields:
        The outcome of each scenario.

    Raises:
        ValueError: There is no scenario of a name, or the URL is not one of HTTP.
    """
    yield from play_all(SERVER_SUITE.chosen(only), lambda _: ServerScene(server))


def run_client(command: Sequence[str], *, only: Sequence[str] = (), patience: float = PATIENCE) -> Iterator[Outcome]:
    """Play the scenarios for a client.

    Args:
        command: The program that drives the client, and its arguments. ``docs/testing.md`` lists
            the commands that it gets on its standard input.
        only: The names of the scenarios to play; all if empty.
        patience: Seconds to wait for the answer to a command.

    Yields:
        The outcome of each scenario.

    Raises:
        ValueError: There is no scenario of a name.
        OSError: The program cannot be started.
        ConformanceError: It does not answer the first command.
    """
    scenarios = CLIENT_SUITE.chosen(only)
    with tempfile.TemporaryDirectory(prefix="treehub-level-") as folder:
        process = ClientProcess(command, patience)

        def scene(scenario: Scenario[ClientScene]) -> ClientScene:
            return ClientScene(process, Path(folder), scenario.name)

        try:
            yield from play_all(scenarios, scene)
        finally:
            process.close()
