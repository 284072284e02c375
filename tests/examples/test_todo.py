"""``examples/todo.py`` on a pseudo-terminal: offline, killed, started again, and merged."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from server_process import ServerProcess

#: Seconds after which a test fails: a session that was offline tries again after a growing time.
PATIENCE = 180.0

PROGRAM = Path(__file__).parents[2] / "examples" / "todo.py"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")


class Terminal:
    """The program on a terminal of its own.

    Args:
        arguments: Those of the program.
    """

    def __init__(self, *arguments: object) -> None:
        import pty

        self._terminal, side = pty.openpty()
        command = [sys.executable, str(PROGRAM), *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=side, stdout=side, stderr=side, start_new_session=True)
        os.close(side)
        os.set_blocking(self._terminal, False)
        self._received = ""
        self._read = 0

    def type(self, line: str) -> None:
        os.write(self._terminal, f"{line}\n".encode())

    def wait_for(self, text: str) -> None:
        """Read until a text is shown that was not waited for before."""
        deadline = time.monotonic() + PATIENCE
        while (found := self._received.find(text, self._read)) < 0:
            assert time.monotonic() < deadline, f"{text!r} was not shown:\n{self._received}"
            with suppress(BlockingIOError, OSError):  # EIO: the program has ended
                self._received += os.read(self._terminal, 10_000).decode().replace("\r\n", "\n")
                continue
            time.sleep(0.01)
        self._read = found + len(text)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        os.close(self._terminal)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def test_two_lists_offline_and_killed_lose_nothing(tmp_path: Path, stack: ExitStack) -> None:
    server = ServerProcess(tmp_path / "stores")
    stack.callback(server.kill)

    def start(name: str) -> Terminal:
        terminal = Terminal(tmp_path / name, server.url)
        stack.callback(terminal.close)
        terminal.wait_for("> ")
        return terminal

    ada, ben = start("ada"), start("ben")
    ada.type("add buy milk")
    ben.wait_for("<- [ ] buy milk")
    ben.type("list")
    ben.wait_for("1 [ ] buy milk")

    server.kill()
    ada.wait_for("offline")
    ada.type("done 1")
    ada.wait_for("1 changes to send")  # confirmed
    ada.kill()
    ben.wait_for("offline")
    ben.type("edit 1 buy oat milk")
    ben.wait_for("1 changes to send")

    server.start()
    ben.type("list")  # tries again at once
    ben.wait_for("-> 1 sent")
    ada = start("ada")
    ben.wait_for("<- [x] buy oat milk")
    ada.type("list")
    ada.wait_for("1 [x] buy oat milk\n1 entries, 0 changes to send")
    ada.type("quit")
    assert ada.process.wait(PATIENCE) == 0


def test_a_list_of_one_is_usable_without_a_server(tmp_path: Path, stack: ExitStack) -> None:
    terminal = Terminal(tmp_path / "list")
    stack.callback(terminal.close)
    terminal.wait_for("0 entries")
    terminal.type("done 1")
    terminal.wait_for("there is no entry 1 in the list above")
    terminal.type("sing")
    terminal.wait_for("add TEXT, done N")
    terminal.type("add \x07bell")
    terminal.wait_for("[ ] ?bell")

    second = Terminal(tmp_path / "list")
    stack.callback(second.close)
    second.wait_for("todo: ")
    assert second.process.wait(PATIENCE) == 1
    terminal.type("\x04")
    assert terminal.process.wait(PATIENCE) == 0
