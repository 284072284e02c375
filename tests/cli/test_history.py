"""`history`, and `--at`: a server as of an earlier CID."""

from __future__ import annotations

import pytest

from treehub_level import Level, Put, blocking

from .conftest import Cli


@pytest.fixture
def server(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> str:
    """A server store: ``a`` was written three times, the second time in a batch."""
    monkeypatch.setattr("treehub_level.engine.clock.now", lambda: 1_700_000_000_123)
    cli("put", "server", "a", "1", "--mode", "server")
    with blocking.Level("server", mode=Level.SERVER) as level:
        level.batch([Put("a", 2), Put("b", 2)])
        level.delete("a")
    return "server"


def test_history_prints_the_changes_of_a_key(cli: Cli, server: str) -> None:
    assert cli("history", server, "a").out.splitlines() == [
        "1\t-\t-\tput\ta\t1",
        "2\t2023-11-14T22:13:20.123+00:00\t-\tput\ta\t2",
        "4\t-\t-\tdel\ta",
    ]
    assert cli("history", server, "a", "--json").lines == [
        {"cid": 1, "key": "a", "value": 1},
        {"cid": 2, "key": "a", "value": 2, "at": "2023-11-14T22:13:20.123+00:00"},
        {"cid": 4, "key": "a", "deleted": True},
    ]
    assert cli("history", server, "none").out == ""


def test_history_names_the_client_that_pushed(cli: Cli, server: str) -> None:
    cli("put", "client", "c", "3", "--mode", "client")
    cli("sync", "client", server)
    [change] = cli("history", server, "c", "--json").lines
    assert len(change["by"]) == 32


def test_a_server_is_read_as_of_a_cid(cli: Cli, server: str) -> None:
    assert cli("get", server, "a", "--at", "1").out == "1\n"
    assert cli("query", server, "--at", "3").out == "a\t2\nb\t2\n"
    assert cli("dump", server, "--at", "1").out == '{"key":"a","value":1}\n'
    assert cli("query", server, "--at", "0").out == ""
    assert cli("get", server, "b", "--at", "1", code=1).err == "error: server has no key 'b' as of CID 1\n"


def test_a_cid_that_the_log_does_not_cover_is_an_error(cli: Cli, server: str) -> None:
    assert cli("get", server, "a", "--at", "9", "--json", code=1).error["code"] == "LEVEL_HISTORY"
    cli("compact", server)
    assert "compacted up to CID 4" in cli("query", server, "--at", "3", code=1).err
    cli("put", "normal", "a", "1")
    assert cli("query", "normal", "--at", "0", "--json", code=1).error["code"] == "LEVEL_MODE"


def test_loaded_records_are_no_batch(cli: Cli) -> None:
    cli("load", "server", "--mode", "server", stdin='{"key":"a","value":1}\n{"key":"b","value":2}\n')
    assert [line for line in cli("changes", "server", "--json").lines if "at" in line] == []
