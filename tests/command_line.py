"""Runs ``treehub-level`` in this process, with its table of commands built once."""

from __future__ import annotations

from typing import Any
from unittest import mock

from typer.main import get_command
from typer.testing import CliRunner, Result

from treehub_level.cli.application import app

#: Building it takes ten times as long as most commands, and `CliRunner` builds it for each call.
COMMAND: Any = get_command(app)


def invoke(*args: str, env: dict[str, str] | None = None, **options: Any) -> Result:
    """Run a command with arguments. The options are those of `CliRunner.invoke`."""
    with mock.patch("typer.testing._get_command", return_value=COMMAND):
        return CliRunner(env=env).invoke(app, args, **options)
