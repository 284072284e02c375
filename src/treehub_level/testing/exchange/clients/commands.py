"""The client under test: a program that runs commands, one line of JSON each.

``docs/testing.md`` lists the commands.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from ..scenarios import ConformanceError


class ClientCommandError(Exception):
    """The client's answer to a command is an error.

    Attributes:
        code: The code of the error.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class CommandRunner(Protocol):
    """A client under test.

    Attributes:
        abilities: The optional abilities that the client declares.
    """

    abilities: frozenset[str]

    def call(self, command: str, **arguments: Any) -> Any:
        """Run a command, and return its result.

        Raises:
            ClientCommandError: The client answers with an error.
        """

    def send(self, command: str, **arguments: Any) -> None:
        """Send a command, without waiting for its answer."""

    def kill(self) -> None:
        """Kill the client, and start it anew."""


class ClientProcess:
    """A process of the client under test.

    Args:
        command: The program and its arguments.
        patience: Seconds to wait for the answer to a command.

    Attributes:
        name: The name of the client, as it tells it.
        abilities: The optional abilities that the client declares.

    Raises:
        OSError: The program cannot be started.
        ConformanceError: It does not answer the first command.
    """

    def __init__(self, command: Sequence[str], patience: float) -> None:
        self._command = [*command]
        self._patience = patience
        self._start()
        try:
            hello = self.call("hello", protocol=2)
        except BaseException:
            self.close()
            raise
        self.name = str(hello["name"])
        self.abilities = frozenset(hello.get("abilities", []))

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", errors="replace", bufsize=1
        )
        self._count = 0
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, args=(self._process, self._lines), daemon=True).start()

    @staticmethod
    def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        process.stdout.close()
        lines.put("")

    def call(self, command: str, **arguments: Any) -> Any:
        """Run a command, and return its result.

        Raises:
            ClientCommandError: The client answers with an error.
            ConformanceError: It answers otherwise, too late, or not at all.
        """
        self.send(command, **arguments)
        return self.result()

    def send(self, command: str, **arguments: Any) -> None:
        """Send a command, without waiting for its answer."""
        self._count += 1
        self._sent = {"id": self._count, "command": command, **arguments}
        assert self._process.stdin is not None
        with suppress(OSError):  # if the process has ended, its output has, too
            self._process.stdin.write(json.dumps(self._sent) + "\n")
            self._process.stdin.flush()

    def result(self) -> Any:
        """Return the result of the command that was sent last: see `call`."""
        try:
            line = self._lines.get(timeout=self._patience)
        except queue.Empty:
            raise self._error(f"an answer within {self._patience:g} seconds", "nothing") from None
        if not line:
            raise self._error("an answer", "the end of the output: the client's process has ended")
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or answer.get("id") != self._count or not {"result", "error"} & answer.keys():
            raise self._error('{"id": …, "result": …} or {"id": …, "error": {"code", "message"}} in a line', line)
        if "error" in answer:
            error = answer["error"]
            raise ClientCommandError(str(error.get("code")), str(error.get("message")))
        return answer["result"]

    def _error(self, expected: str, received: str) -> ConformanceError:
        return ConformanceError(expected, sent=self._sent, received=received)

    def kill(self) -> None:
        """Kill the process, and start it anew."""
        self._end(kill=True)
        self._start()
        self.call("hello", protocol=2)

    def close(self) -> None:
        """End the process."""
        self._end(kill=False)

    def _end(self, *, kill: bool) -> None:
        process = self._process
        assert process.stdin is not None
        if kill:
            process.kill()
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(self._patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
