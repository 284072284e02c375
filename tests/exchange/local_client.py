"""The Python client as a client under test in this process, in which tests can put faults."""

from __future__ import annotations

from typing import Any

from treehub_level.errors import LevelError
from treehub_level.testing.exchange.clients.commands import ClientCommandError
from treehub_level.testing.exchange.driver import PythonDriver


class LocalClient:
    """Runs commands by a driver, without a process.

    Args:
        driver: The driver; the one of the blocking API over memory if not given.
    """

    def __init__(self, driver: PythonDriver | None = None) -> None:
        self._driver = driver or PythonDriver("memory", None)
        self.abilities = frozenset(self._driver.hello(protocol=2)["abilities"])

    def call(self, command: str, **arguments: Any) -> Any:
        """Run a command, and return its result."""
        try:
            return getattr(self._driver, command)(**arguments)
        except LevelError as error:
            raise ClientCommandError(error.code, str(error)) from error

    def send(self, command: str, **arguments: Any) -> None:
        """Fail: this client has no process."""
        raise NotImplementedError

    def kill(self) -> None:
        """Fail: this client has no process."""
        raise NotImplementedError
