"""``sync DIR URL``: over HTTP, with a token from the environment or a file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from scripted_server import ScriptedHandler, running

from treehub_level import Level, blocking

from .conftest import Cli


@pytest.fixture
def served() -> Iterator[Any]:
    """Serve a server level over HTTP: its ``url``, and the ``tokens`` of the requests."""
    with blocking.Level("server", backend="memory", mode=Level.SERVER) as level:

        class Handler(ScriptedHandler):
            def answer(self) -> None:
                made.tokens.append(self.headers["Authorization"])
                answer = orjson.dumps(level.exchange(orjson.loads(self.read_body())))
                self.respond(200, {"Content-Type": "application/json"}, answer)

        with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as made:
            made.level = level
            made.tokens = []
            made.url += "/v1/notes"
            yield made


def test_sync_accepts_a_url(cli: Cli, served: Any) -> None:
    served.level.put("yours", 1)
    cli("put", "client", "mine", "2", "--mode", "client")
    report = cli("sync", "client", served.url, "--json").json
    assert (report["pulled"], report["pushed"]) == (1, 1)
    assert served.level.query() == [("mine", 2), ("yours", 1)]
    assert set(served.tokens) == {None}


def test_the_token_comes_from_the_environment(cli: Cli, served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREEHUB_LEVEL_TOKEN", "id.secret")
    cli("sync", "client", served.url)
    assert set(served.tokens) == {"Bearer id.secret"}


def test_the_token_comes_from_a_file_that_other_users_cannot_read(
    cli: Cli, served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TREEHUB_LEVEL_TOKEN", "another")
    file = Path("token")
    file.write_text("id.secret\n")
    file.chmod(0o600)
    cli("sync", "client", served.url, "--token-file", "token")
    assert set(served.tokens) == {"Bearer id.secret"}
    if sys.platform != "win32":
        file.chmod(0o644)
        run = cli("sync", "client", served.url, "--token-file", "token", "--json", code=1)
        assert run.error["code"] == "CLI_TOKEN_FILE"
        assert "chmod 600" in run.err
        assert "secret" not in run.err


def test_a_file_without_a_token_is_an_error(cli: Cli, served: Any) -> None:
    Path("empty").touch(mode=0o600)
    run = cli("sync", "client", served.url, "--token-file", "empty", "--json", code=1)
    assert run.error["code"] == "CLI_TOKEN_FILE"
    assert cli("sync", "client", served.url, "--token-file", "nowhere", "--json", code=1).error["code"] == "CLI_IO"


def test_an_invalid_url_or_token_is_a_usage_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "/v1/NAME" in cli("sync", "client", "http://localhost/notes", code=2).err.replace("\n", "")
    monkeypatch.setenv("TREEHUB_LEVEL_TOKEN", "id.secret")
    run = cli("sync", "client", "http://example.org/v1/notes", code=2)
    assert "--insecure" in run.err
    assert "secret" not in run.err


def test_an_unreachable_server_is_an_error(cli: Cli) -> None:
    cli("put", "client", "mine", "2", "--mode", "client")
    run = cli("sync", "client", "http://127.0.0.1:9/v1/notes", "--json", code=1)
    assert run.error["code"] == "LEVEL_TRANSPORT"
    assert cli("get", "client", "mine").json == 2


@pytest.mark.parametrize("proxy", ["socks4://127.0.0.1:9", "http://[::1", "http://127.0.0.1:port"])
def test_a_proxy_of_the_environment_that_cannot_be_used_is_an_error(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    error = cli("sync", "client", "http://127.0.0.1:9/v1/notes", "--json", code=1).error
    assert error["code"] == "LEVEL_TRANSPORT"
    assert "HTTP_PROXY" in error["message"]


def test_networks_and_brackets_in_no_proxy_are_understood(
    cli: Cli, served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "[::1],fd00::/8,127.0.0.0/8")
    served.level.put("yours", 1)
    assert cli("sync", "client", served.url, "--json").json["pulled"] == 1
