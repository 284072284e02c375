"""``serve --temporary-token``, and servers that require no token."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from treehub_level import StorageError, blocking
from treehub_level.http.blocking import RemoteServer
from treehub_level.http.server.tokens import TemporaryToken

from .running import running

pytestmark = pytest.mark.once


def test_a_temporary_token_is_printed_and_required_until_the_server_stops(tmp_path: Path) -> None:
    with running(tmp_path, "--temporary-token") as server:
        assert server.process.stdout is not None
        variable, _, token = server.process.stdout.readline().strip().partition("=")
        assert variable == "TREEHUB_LEVEL_TOKEN"
        url = f"{server.url}/v1/notes"
        assert httpx.get(url).status_code == 401
        with (
            blocking.Level("client", backend="memory", mode=blocking.Level.CLIENT) as client,
            RemoteServer(url, token=token) as remote,
        ):
            client.put("a", 1)
            assert client.sync(remote).pushed == 1
        assert httpx.get(f"{server.url}/metrics", headers={"authorization": f"Bearer {token}"}).status_code == 200
        assert token not in server.log.read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"stderr", "stores"}


def test_each_run_has_another_temporary_token_of_the_same_principal() -> None:
    one, two = TemporaryToken(), TemporaryToken()
    assert one.find(two.credentials) is None
    first, second = one.find(one.credentials), two.find(two.credentials)
    assert first is not None
    assert second is not None
    assert first.access == second.access
    assert [token.id for token in one.all()] == [first.id]


def test_a_temporary_token_cannot_be_changed() -> None:
    token = TemporaryToken()
    with pytest.raises(StorageError, match="in no file"):
        token.add(databases=["*"])
    with pytest.raises(StorageError, match="in no file"):
        token.revoke(token.all()[0].id)
    assert token.find(token.credentials) is not None


def test_a_server_without_tokens_says_that_every_local_user_may_write(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        assert server.process.stdout is not None
        assert server.process.stdout.readline().startswith("every user and program of this machine can read and write")


def test_tokens_and_a_temporary_token_exclude_each_other(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "treehub_level.cli", "serve", str(tmp_path)]
    done = subprocess.run([*command, "--tokens", "tokens", "--temporary-token"], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"one of them" in done.stderr
