"""``info compact upgrade verify repair adopt --version``."""

from __future__ import annotations

import shutil
from pathlib import Path

import orjson
import pytest
from stores import NATIVE, plyvel

from treehub_level import Backend, BackendNotFoundError, Level, __version__, _core, blocking

from .conftest import Cli

ENGINE = "LevelDBBackend" if NATIVE else "PlyvelBackend"


def test_version_names_the_core_and_the_engine(cli: Cli) -> None:
    assert cli("--version").out == f"treehub-level {__version__} (core: {_core.CORE}, engine: {ENGINE})\n"


def test_version_prints_none_without_an_engine(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> Backend:
        raise BackendNotFoundError("neither plyvel nor plyvel-next is installed")

    monkeypatch.setattr("treehub_level.cli.application.create", missing)
    assert cli("--version").out.endswith("engine: none)\n")


def test_without_a_command_the_commands_are_listed(cli: Cli) -> None:
    listed = cli("--help").out
    names = (
        "get put delete query keys count load dump info changes history dirty sync compact upgrade verify repair adopt"
    )
    assert [command for command in [*names.split(), "conflicts"] if f" {command} " not in listed] == []


def test_info_prints_the_facts_of_a_store(cli: Cli) -> None:
    cli("put", "server", "a", "1", "--mode", "server")
    cli("put", "server", "a", "2")
    facts = cli("info", "server", "--json").json
    assert facts.pop("bytes") > 0
    assert len(facts.pop("store")) == 32
    assert facts == {
        "name": "server",
        "backend": ENGINE,
        "mode": "server",
        "prefix": "!",
        "format": 1,
        "cid": 2,
        "core": _core.CORE,
        "records": 1,
        "log": 2,
        "snapshots": 0,
        "cursors": 0,
    }


def test_info_counts_dirty_changes_and_conflicts_of_a_client(cli: Cli) -> None:
    cli("put", "server", "a", "1", "--mode", "server")
    cli("put", "client", "a", "2", "--mode", "client")
    cli("sync", "client", "server")
    cli("put", "client", "b", "1")
    facts = cli("info", "client", "--json").json
    assert (facts["records"], facts["dirty"], facts["conflicts"], facts["cid"]) == (2, 1, 1, 1)


def test_info_prints_a_fact_a_line(cli: Cli) -> None:
    cli("put", "plain", "a", "1")
    facts = dict(line.split(maxsplit=1) for line in cli("info", "plain").out.splitlines())
    assert facts["mode"].strip() == "normal"
    assert facts["records"].strip() == "1"
    assert "cid" not in facts


def test_info_does_not_fold_long_paths(cli: Cli) -> None:
    name = "/".join(["a-folder-with-a-long-name"] * 8)
    cli("put", name, "a", "1")
    assert name in cli("info", name).out


def test_compact_drops_superseded_changes_of_a_server(cli: Cli) -> None:
    for number in range(5):
        cli("put", "server", "a", str(number), "--mode", "server")
    run = cli("compact", "server", "--json")
    assert run.json.keys() == {"dropped", "bytes_before", "bytes_after"}
    assert run.json["dropped"] == 4
    assert cli("changes", "server", "--json").lines == [{"cid": 5, "key": "a", "value": 4}]
    assert cli("compact", "server").out.startswith("dropped 0 changes from the log\n")


def test_compact_can_drop_deletes(cli: Cli) -> None:
    cli("delete", "server", "gone", "--mode", "server", code=1)  # a delete makes no store
    cli("put", "server", "gone", "1", "--mode", "server")
    cli("delete", "server", "gone")
    cli("put", "server", "kept", "1")
    assert cli("compact", "server", "--drop-deletes-before", "3", "--json").json["dropped"] == 2
    assert [change["key"] for change in cli("changes", "server", "--json").lines] == ["kept"]


def test_compact_of_a_client_keeps_all_changes(cli: Cli) -> None:
    cli("put", "client", "a", "1", "--mode", "client")
    assert cli("compact", "client", "--json").json["dropped"] == 0
    assert "is for server stores" in cli("compact", "client", "--drop-deletes-before", "1", code=2).err


@pytest.fixture
def npm_store(cli: Cli) -> str:
    """A server store as @treehub/level writes it: change ids without padding."""
    db = plyvel().DB("npm_store", create_if_missing=True)
    for cid in range(1, 13):
        key = f"key {cid}"
        db.put(f"!{cid}".encode(), orjson.dumps([key, cid]))
        db.put(key.encode(), orjson.dumps(cid))
    db.put(b"!", b"12")
    db.close()
    return "npm_store"


def test_a_store_of_the_npm_package_asks_for_an_upgrade_which_sorts_its_log(cli: Cli, npm_store: str) -> None:
    assert f"upgrade {npm_store}" in cli("changes", npm_store, code=1).err
    assert cli("upgrade", npm_store).out == "rewrote 3 changes\n"
    assert [change["cid"] for change in cli("changes", npm_store, "--json").lines] == [*range(1, 13)]
    assert cli("upgrade", npm_store).out == "there was nothing to do\n"


def test_upgrade_prints_its_result_as_json(cli: Cli, npm_store: str) -> None:
    assert cli("upgrade", npm_store, "--json").json == {"rewritten": 3}
    assert cli("upgrade", npm_store, "--json").json == {"rewritten": 0}


def damage(store: str) -> None:
    """Delete the file ``CURRENT``: the store does not open, but all its data can be read."""
    Path(store, "CURRENT").unlink()


@pytest.mark.parametrize("mode", ["normal", "server", "client"])
def test_repair_makes_a_damaged_store_open_and_prints_a_report(cli: Cli, mode: str) -> None:
    cli("put", "store", "a", "1", "--mode", mode)
    damage("store")
    assert "run `treehub-level repair " in cli("get", "store", "a", code=1).err
    said = cli("repair", "store").out.splitlines()
    assert said[0] == "store opens again; records may be lost, and older values be back"
    assert said[1].startswith(
        "  LevelDB rebuilt its tables from the data that it could read; the files that it replaced are in "
    )
    assert f"store is a {mode} store" in said
    assert said[-1] == "nothing is wrong"
    assert cli("get", "store", "a").json == 1


def test_repair_prints_its_report_as_json(cli: Cli) -> None:
    cli("put", "store", "a", "1", "--mode", "server")
    damage("store")
    told = cli("repair", "store", "--json", "--backend", "plyvel").json
    assert (told["mode"], len(told["done"])) == ("server", 2)
    assert told["verified"] == cli("verify", "store", "--json").json


def test_verify_prints_the_rows_it_has_checked(cli: Cli) -> None:
    cli("put", "store", "a", "1", "--mode", "server")
    assert cli("verify", "store").out.splitlines() == [
        "store is a server store",
        "  1 record, CID 1",
        "  1 change in the log",
        "nothing is wrong",
    ]
    assert cli("verify", "store", "--json").json == {
        "ok": True,
        "mode": "server",
        "found": ["1 record, CID 1", "1 change in the log"],
        "faults": [],
    }


def test_verify_prints_faults_and_fails(cli: Cli) -> None:
    cli("put", "store", "a", "1", "--mode", "server")
    with plyvel().DB("store") as db:
        db.put(b"a", b"2")
        db.put(b"b", b"1")
    said = cli("verify", "store", code=1)
    assert said.out.splitlines()[3:] == [
        "2 faults:",
        "  the value of 'a' differs from its last change in the log, CID 1",
        "  'b' has a value, but the log has no change of that key",
    ]
    assert said.err == ""
    assert cli("verify", "store", "--json", code=1).json["ok"] is False


def test_verify_of_a_store_that_cannot_be_opened_fails_and_names_repair(cli: Cli) -> None:
    cli("put", "store", "a", "1")
    damage("store")
    said = cli("verify", "store", code=1).out.splitlines()
    assert said[:2] == ["store cannot be opened", "1 fault:"]
    assert "run `treehub-level repair " in said[2]


def test_verify_reads_an_open_store_and_refuses_an_absent_one(cli: Cli) -> None:
    assert cli("verify", "absent", "--json", code=1).error["code"] == "CLI_NO_STORE"
    assert not Path("absent").exists()
    with blocking.Level("store"):
        assert "it is open" in cli("verify", "store", "--json").json["found"][0]
    assert "--metadata-prefix" in cli("verify", "store", "--metadata-prefix", "a", code=2).err


def test_repair_refuses_an_open_store_and_other_directories(cli: Cli) -> None:
    with blocking.Level("store") as level:
        level.put("a", 1)
        assert cli("repair", "store", "--json", code=1).error["code"] == "LEVEL_LOCKED"
    Path("notes").mkdir()
    Path("notes", "note.txt").write_text("precious")
    assert "there is none in that directory" in cli("repair", "notes", code=1).err
    assert "cannot repair" in cli("repair", "absent", code=1).err
    assert cli("repair", "store", "--backend", "memory", "--json", code=1).error["code"] == "LEVEL_STATE"
    assert cli("get", "store", "a").json == 1


def test_adopt_makes_a_store_with_data_a_server_or_a_client(cli: Cli) -> None:
    cli("put", "store", "a", "1")
    shutil.copytree("store", "copy")
    assert cli("adopt", "store", "--mode", "server").out == "store is a server now\n"
    assert cli("adopt", "copy", "--mode", "client", "--json").json == {"mode": "client"}
    assert cli("changes", "store", "--json").lines == [{"cid": 1, "key": "a", "value": 1}]
    assert cli("dirty", "copy", "--json").lines == [{"key": "a", "value": 1}]


def test_adopt_refuses_keys_that_the_mode_cannot_hold(cli: Cli) -> None:
    with blocking.Level("store", mode=Level.NORMAL) as level:
        level.put("!", 1)
    assert cli("adopt", "store", "--mode", "server", "--json", code=1).error["code"] == "LEVEL_INVALID_KEY"
    assert cli("get", "store", "!").json == 1
    cli("adopt", "store", "--mode", "normal", code=2)
    assert Path("store").exists()
