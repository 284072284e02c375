"""The fixture ``cli``: runs ``treehub-level`` in this process, in an empty folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import invoke


class Run:
    """The result of a command.

    Attributes:
        code: The exit code.
        out: stdout, as text.
        err: stderr, as text.
    """

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code = code
        self.out = out.decode("utf-8", "surrogateescape")
        self.err = err.decode()

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The JSON documents on stdout, one per line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> Any:
        """The JSON document on stderr."""
        return json.loads(self.err)


Cli = Callable[..., Run]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Return a function that runs a command with arguments and stdin, and checks its exit code.

    The exit code ``None`` stands for any.
    """
    monkeypatch.chdir(tmp_path)

    def run(*args: str, stdin: bytes | str = b"", code: int | None = 0) -> Run:
        result = invoke(*args, input=stdin, catch_exceptions=False)
        done = Run(result.exit_code, result.stdout_bytes, result.stderr_bytes)
        assert code is None or done.code == code, f"{args} ended with {done.code}: {done.out}{done.err}"
        return done

    return run
