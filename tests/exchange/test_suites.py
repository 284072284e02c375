"""The scenarios as suites for pytest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

#: A server whose replies have no `values`. The suite of a client is an example of docs/testing.md.
MODULE = """
import pytest
from treehub_level.testing import ExchangeServerConformance
from treehub_level.testing.exchange import ServerUnderTest
from treehub_level.testing.exchange.clients.played_server import PlayedServer, reply_response


def without_values(turn):
    return reply_response({k: v for k, v in turn.answer().items() if k not in ("values", "value_count")})


class TestServer(ExchangeServerConformance):
    @pytest.fixture
    def server_under_test(self):
        with PlayedServer().running() as server:
            server.usual = without_values
            yield ServerUnderTest(server.url)
"""
CHOSEN = "read-returns or a-pull-returns or an-unknown-token"


def test_each_scenario_is_a_test(tmp_path: Path) -> None:
    (tmp_path / "test_programs.py").write_text(MODULE)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rs",
        "-W",
        "error",
        "-p",
        "no:asyncio",
        "-p",
        "no:cacheprovider",
        "-k",
        CHOSEN,
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 passed, 1 skipped" in done.stdout
    assert "docs/protocol.md, Reply\nexpected: the value of one key, and two absent ones" in done.stdout
    assert "needs --token" in done.stdout
