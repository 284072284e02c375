"""``changes dirty sync conflicts``: replication of two local stores."""

from __future__ import annotations

import re
import shutil

import pytest

from treehub_level import blocking

from .conftest import Cli


@pytest.fixture
def pair(cli: Cli) -> tuple[str, str]:
    """Create a client and a server with equal records."""
    cli("put", "server", "a", "1", "--mode", "server")
    cli("put", "server", "b", "2")
    cli("sync", "client", "server")
    return "client", "server"


@pytest.fixture
def conflicting(cli: Cli, pair: tuple[str, str]) -> tuple[str, str]:
    """Create a client with conflicts: two changes of "a" and a delete of "b"."""
    client, server = pair
    for number in (10, 20):
        cli("put", client, "a", str(number))
        cli("put", server, "a", str(number + 1))
        cli("sync", client, server)
    cli("delete", client, "b")
    cli("put", server, "b", "22")
    cli("sync", client, server)
    return pair


def test_changes_prints_the_log_in_order(cli: Cli) -> None:
    cli("put", "server", "a", '{"x": 1}', "--mode", "server")
    cli("delete", "server", "b")
    assert cli("changes", "server").out == '1\tput\ta\t{"x":1}\n2\tdel\tb\n'
    assert cli("changes", "server", "--json").lines == [
        {"cid": 1, "key": "a", "value": {"x": 1}},
        {"cid": 2, "key": "b", "deleted": True},
    ]


def test_changes_has_a_first_cid_and_a_limit(cli: Cli) -> None:
    lines = "".join(f'{{"key": "{number:04}", "value": {number}}}\n' for number in range(1, 2346))
    cli("load", "server", "--mode", "server", stdin=lines)
    assert len(cli("changes", "server", "--json").lines) == 2345
    assert [change["cid"] for change in cli("changes", "server", "--since", "2300", "--json").lines] == [
        *range(2301, 2346)
    ]
    run = cli("changes", "server", "--since", "7", "--limit", "1500", "--json")
    assert [change["cid"] for change in run.lines] == [*range(8, 1508)]
    assert cli("changes", "server", "--limit", "0").out == ""


def test_changes_after_a_future_cid_is_an_error(cli: Cli, pair: tuple[str, str]) -> None:
    assert cli("changes", "server", "--since", "3", "--json", code=1).error["code"] == "LEVEL_CID_MISMATCH"
    for since in ("-1", "1.5", str(2**53)):
        cli("changes", "server", "--since", since, code=2)


def test_dirty_prints_the_changes_that_are_not_pushed(cli: Cli, pair: tuple[str, str]) -> None:
    cli("put", "client", "c", "3")
    cli("delete", "client", "a")
    assert cli("dirty", "client").out == "del\ta\nput\tc\t3\n"
    assert cli("dirty", "client", "--json", "--limit", "1").lines == [{"key": "a", "deleted": True}]


def test_a_verb_of_another_mode_is_an_error(cli: Cli, pair: tuple[str, str]) -> None:
    for command in (("dirty", "server"), ("conflicts", "server"), ("changes", "client")):
        assert cli(*command, "--json", code=1).error["code"] == "LEVEL_MODE"


def test_sync_creates_the_client_and_synchronises_both(cli: Cli) -> None:
    cli("put", "server", "a", "1", "--mode", "server")
    assert cli("sync", "new", "server", "--json").json == {
        "pulled": 1,
        "filled": 1,
        "pushed": 0,
        "conflicts": [],
        "rejected": [],
        "refused": [],
        "consistent": True,
        "cid": 1,
        "rounds": 1,
        "reset": False,
    }
    cli("put", "new", "ключ", "2")
    assert cli("sync", "new", "server", "--json").json["pushed"] == 1
    assert cli("dump", "new").out == cli("dump", "server").out == '{"key":"a","value":1}\n{"key":"ключ","value":2}\n'


def test_sync_prints_its_report_and_the_conflicts(cli: Cli, pair: tuple[str, str]) -> None:
    cli("put", "client", "a", '"mine"')
    cli("put", "client", "c", "3")
    cli("put", "server", "a", '"yours"')
    run = cli("sync", "client", "server")
    facts = dict(line.split(maxsplit=1) for line in run.out.splitlines()[:10])
    assert (facts["pulled"].strip(), facts["pushed"].strip(), facts["conflicts"].strip()) == ("1", "1", "1")
    assert run.out.endswith('a\tlost: "mine"\tkept: "yours"\n')


def test_sync_can_only_pull_or_only_push(cli: Cli, pair: tuple[str, str]) -> None:
    cli("put", "client", "mine", "1")
    cli("put", "server", "yours", "1")
    assert cli("sync", "client", "server", "--no-push", "--json").json["pushed"] == 0
    assert cli("keys", "client").out == "a\nb\nmine\nyours\n"
    assert cli("keys", "server").out == "a\nb\nyours\n"
    cli("sync", "client", "server", "--no-pull")
    assert cli("keys", "server").out == "a\nb\nmine\nyours\n"
    cli("sync", "client", "server", "--no-pull", "--no-push", code=2)


def test_sync_with_another_server_is_an_error(cli: Cli, pair: tuple[str, str]) -> None:
    cli("put", "other", "z", "1", "--mode", "server")
    assert cli("sync", "client", "other", "--json", code=1).error["code"] == "LEVEL_STORE_MISMATCH"
    assert cli("keys", "client").out == "a\nb\n"


def test_sync_of_stores_of_the_wrong_modes_is_an_error(cli: Cli, pair: tuple[str, str]) -> None:
    cli("put", "plain", "z", "1")
    for stores in (("plain", "server"), ("client", "plain"), ("server", "client")):
        assert cli("sync", *stores, "--json", code=1).error["code"] == "LEVEL_MODE_MISMATCH"
    assert "same store" in cli("sync", "server", "./server", code=2).err


def test_conflicts_lists_overwritten_changes_oldest_first(cli: Cli, conflicting: tuple[str, str]) -> None:
    lines = cli("conflicts", "client").out.splitlines()
    assert [line.rpartition("\t")[0] for line in lines] == [
        "a\tlost: 10\tkept: 11",
        "a\tlost: 20\tkept: 21",
        "b\tlost: delete\tkept: 22",
    ]
    assert re.fullmatch(r"noticed: 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", lines[0].rpartition("\t")[2])
    listed = cli("conflicts", "client", "--json").lines
    assert [conflict["key"] for conflict in listed] == ["a", "a", "b"]
    names = {"id", "key", "kind", "local", "remote", "base", "reason", "by", "at", "noticed_at"}
    assert listed[2].keys() == names
    assert (listed[2]["kind"], listed[2]["base"], listed[2]["reason"]) == ("conflict", None, None)
    assert f"noticed: {listed[0]['noticed_at']}" in lines[0]
    assert listed[2]["local"] == {"key": "b", "deleted": True}
    assert listed[2]["remote"]["value"] == 22


def test_conflicts_can_be_selected_by_a_prefix(cli: Cli, conflicting: tuple[str, str]) -> None:
    assert [found["key"] for found in cli("conflicts", "client", "--prefix", "b", "--json").lines] == ["b"]
    cli("conflicts", "client", "--prefix", "b", "--dismiss", "a", "--json", code=1)


def test_commands_keep_base_values_if_a_program_did(cli: Cli, pair: tuple[str, str]) -> None:
    client, server = pair
    with blocking.Level(client, mode=blocking.Level.CLIENT, keep_base=True) as level:
        level.put("new", 1)
    cli("put", client, "a", "10")
    cli("put", server, "a", "11")
    cli("put", server, "new", "2")
    out = cli("sync", client, server).out
    assert "a\tlost: 10\tkept: 11\tbase: 1\n" in out
    assert "new\tlost: 1\tkept: 2\tbase: nothing\n" in out
    assert [found["base"] for found in cli("conflicts", client, "--json").lines] == [
        {"key": "a", "value": 1},
        {"key": "new", "deleted": True},
    ]


def test_restoring_a_key_writes_its_newest_overwritten_change_again(cli: Cli, conflicting: tuple[str, str]) -> None:
    assert len(cli("conflicts", "client", "--restore", "a", "--json").lines) == 2
    assert cli("dirty", "client").out == "put\ta\t20\n"
    assert [conflict["key"] for conflict in cli("conflicts", "client", "--json").lines] == ["b"]
    cli("sync", "client", "server")
    assert cli("get", "server", "a").json == 20


def test_dismissing_a_key_removes_its_conflicts(cli: Cli, conflicting: tuple[str, str]) -> None:
    cli("conflicts", "client", "--dismiss", "a")
    assert [conflict["key"] for conflict in cli("conflicts", "client", "--json").lines] == ["b"]
    assert cli("dirty", "client").out == ""


def test_resolving_a_key_without_conflicts_is_an_error(cli: Cli, conflicting: tuple[str, str]) -> None:
    run = cli("conflicts", "client", "--restore", "c", "--json", code=1)
    assert run.error["code"] == "CLI_NO_CONFLICT"
    cli("conflicts", "client", "--restore", "a", "--dismiss", "a", code=2)


def test_sync_detects_a_server_restored_from_a_backup(cli: Cli, pair: tuple[str, str]) -> None:
    shutil.copytree("server", "backup")
    cli("put", "server", "after the backup", "3")
    cli("sync", "client", "server")
    shutil.rmtree("server")
    shutil.copytree("backup", "server")
    cli("put", "server", "a", "100")

    run = cli("sync", "client", "server", "--on-reset", "raise", "--json", code=1)
    assert run.error["code"] == "LEVEL_STORE_MISMATCH"
    run = cli("sync", "client", "server")
    assert re.search("reset +yes", run.out)
    assert run.out.endswith("after the backup\tlost: 3\tkept: nothing (removed by a reset)\n")
    assert cli("dump", "client").out == cli("dump", "server").out
    assert cli("conflicts", "client", "--json").lines[-1]["remote"] is None
