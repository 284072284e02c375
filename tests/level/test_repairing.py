"""``blocking.repair``: a repaired store is consistent, and converges with its clients or server.

LevelDB's own repair may lose any row, or bring back an older value of it.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from backends.directories import flip, only, tables
from stores import plyvel

from treehub_level import CorruptionError, Level, StateError, StoreMismatchError, blocking

Rows = dict[bytes, bytes]


def rows_in(path: Path) -> Rows:
    """Return all rows of a closed store."""
    with plyvel().DB(str(path)) as db:
        return dict(db)


def tamper(path: Path, changes: Mapping[bytes, bytes | None]) -> None:
    """Change rows of a closed store."""
    with plyvel().DB(str(path)) as db, db.write_batch() as batch:
        for key, value in changes.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)


@pytest.fixture
def server(engine: str, tmp_path: Path) -> blocking.Level:
    """A closed server at CID 6: ``a`` is 3, ``b`` is deleted, ``c`` and ``d`` are 1."""
    level = blocking.Level(tmp_path / "server", backend=engine, mode=Level.SERVER)
    with level:
        for key, value in (("a", 1), ("b", 1), ("c", 1), ("a", 3), ("d", 1)):
            level.put(key, value)
        level.delete("b")
    return level


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server"


@pytest.fixture
def repair_report(engine: str, path: Path) -> Callable[[], list[str]]:
    """A function that repairs the server, and returns the report without LevelDB's line."""

    def repair() -> list[str]:
        done = blocking.repair(path, backend=engine)
        assert done.verification.ok, done.verification.faults
        assert str(path / "lost") in done.done[0]
        return done.done[1:]

    return repair


CLIENTS_RESET = "the CID is now 7, in a new epoch: clients reset at their next sync"


def test_a_server_with_a_complete_log_is_not_changed(server: blocking.Level, path: Path, repair_report: Any) -> None:
    before = rows_in(path)
    assert repair_report() == ["the log is complete and agrees with the data: nothing else to repair"]
    assert rows_in(path) == before


def test_values_are_restored_from_the_log(server: blocking.Level, path: Path, repair_report: Any) -> None:
    tamper(path, {b"a": b"1", b"b": b"1", b"c": None})
    assert repair_report() == ["restored from the log: 3 keys", CLIENTS_RESET]
    with server:
        assert server.query() == [("a", 3), ("c", 1), ("d", 1)]


def test_values_stay_and_are_logged_again_if_the_log_has_a_gap_after_their_change(
    server: blocking.Level, path: Path, repair_report: Any
) -> None:
    tamper(path, {b"!4": None, b"b": b"1"})
    assert repair_report() == [
        "the log lacks 1 change",
        "restored from the log: 1 key",  # the log has no gap after the delete of b
        "appended to the log: 1 value whose last change the log may lack",
        CLIENTS_RESET,
    ]
    with server:
        assert server.query() == [("a", 3), ("c", 1), ("d", 1)]
        assert [(change.cid, change.key) for change in server.changes(0).changes][-2:] == [(6, "b"), (7, "a")]


def test_a_value_without_a_change_in_the_log_is_logged_again(
    server: blocking.Level, path: Path, repair_report: Any
) -> None:
    tamper(path, {b"!5": None})
    assert repair_report()[1:] == ["appended to the log: 1 value whose last change the log may lack", CLIENTS_RESET]


def test_unreadable_rows_are_deleted(server: blocking.Level, path: Path, repair_report: Any) -> None:
    rubbish = {b"\xff": b"1", b"x": b"{", b"!x": b"1", b"!!client/x": b"1", b"!!floor": b"1", b"!!epochs": b"1"}
    tamper(path, rubbish)
    assert repair_report() == ["deleted: 6 unreadable rows", CLIENTS_RESET]
    assert rubbish.items().isdisjoint(rows_in(path).items())


def test_a_server_without_its_id_gets_a_new_one_and_its_clients_must_rebind(
    server: blocking.Level, path: Path, repair_report: Any, engine: str, tmp_path: Path
) -> None:
    client = blocking.Level(tmp_path / "client", backend=engine, mode=Level.CLIENT)
    with client:
        with server:
            client.sync(server)
        tamper(path, {b"!!store": None})
        assert "its clients must call rebind()" in repair_report()[0]
        client.put("mine", 1)
        with server:
            with pytest.raises(StoreMismatchError):
                client.sync(server)
            client.rebind(server)
            client.sync(server)
            assert server.query() == client.query() == [("a", 3), ("c", 1), ("d", 1), ("mine", 1)]


def test_a_server_without_records_is_repaired_too(server: blocking.Level, path: Path, repair_report: Any) -> None:
    tamper(path, dict.fromkeys(rows_in(path).keys() - {b"!!store", b"!!epochs"}))
    tamper(path, {b"!3": b"["})
    assert repair_report()[-1] == "the CID is now 1, in a new epoch: clients reset at their next sync"
    with server:
        assert server.query() == []


def test_a_repaired_client_resets_and_keeps_its_dirty_changes(engine: str, tmp_path: Path, server: Any) -> None:
    path = tmp_path / "client"
    client = blocking.Level(path, backend=engine, mode=Level.CLIENT)
    with client, server:
        client.sync(server)
        client.put("mine", 1)
        client.delete("c")
        client.put("a", 9)
    before = rows_in(path)
    # Its state is from before the sync, a record is lost, and a record that the server has deleted
    # is back.
    tamper(path, {b"!!server": None, b"!": b"2", b"mine": b"0", b"d": None, b"b": b"1", b"x": b"{"})
    done = blocking.repair(path, backend=engine)
    assert done.verification.ok, done.verification.faults
    assert done.done[1:] == [
        "deleted: 1 unreadable row",
        "restored from dirty changes: 1 key",
        "the next sync resets this client and pulls everything again; it has 3 dirty changes, "
        "and those that conflict with the server's data lose and are kept in the conflict journal",
    ]
    with client, server:
        client.sync(server)
        assert client.query() == server.query() == [("a", 3), ("c", 1), ("d", 1), ("mine", 1)]
        kinds = {conflict.key: conflict.kind for conflict in client.conflicts()}
        assert kinds == {"a": "conflict", "b": "reset", "c": "conflict"}
    assert rows_in(path)[b"!!id"] != before[b"!!id"]


def test_a_repaired_client_keeps_no_clean_key_outside_of_its_ranges(
    engine: str, tmp_path: Path, server: blocking.Level
) -> None:
    """The damaged record named another range: the keys of the lost one would stay as they were."""
    path = tmp_path / "client"
    with blocking.Level(path, backend=engine, mode=Level.CLIENT) as client, server:
        client.sync(server)
        client.put("mine", 1)
    record = b'{"ranges":[["d","checked"]],"fill":["","c"],"resetting":true,"evicting":false}'
    tamper(path, {b"!!follow": record})
    blocking.repair(path, backend=engine)
    with blocking.Level(path, backend=engine, mode=Level.CLIENT) as client, server:
        client.sync(server)
        assert client.query() == [("d", 1)]
        assert server.get("mine") == 1


def test_a_normal_store_is_repaired_by_leveldb_alone(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "store"
    with blocking.Level(path, backend=engine, value_encoding="bytes") as level:
        level.put("a", b"\xff")
    (path / "CURRENT").unlink()
    done = blocking.repair(path, backend=engine)
    assert (done.mode, len(done.done), done.verification.ok) == (Level.NORMAL, 1, True)
    with level:
        assert level.get("a") == b"\xff"


def test_an_interrupted_repair_must_be_run_again(
    server: blocking.Level, path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    tamper(path, {b"c": None})
    with monkeypatch.context() as patched:
        patched.setattr("treehub_level.maintenance.repair.Repairer.repair", interrupt)
        with pytest.raises(KeyboardInterrupt):
            blocking.repair(path, backend=engine)
    with pytest.raises(CorruptionError, match=f"was interrupted: run `treehub-level repair {path}` again"):
        server.open()
    assert "was interrupted" in blocking.verify(path, backend=engine).faults[0]
    assert blocking.repair(path, backend=engine).verification.ok
    with server:
        assert server.get("c") == 1


def test_only_directories_of_leveldb_can_be_repaired() -> None:
    with pytest.raises(StateError, match="MemoryBackend cannot be repaired"):
        blocking.repair("store", backend="memory")


def test_a_server_that_has_lost_a_table_converges_with_its_clients(engine: str, tmp_path: Path) -> None:
    server = blocking.Level(
        tmp_path / "server", backend=engine, mode=Level.SERVER, write_buffer_size=64 * 1024, max_file_size=1
    )
    client = blocking.Level(tmp_path / "client", backend=engine, mode=Level.CLIENT)
    with client:
        for turn in range(3):
            with server:
                server.load((f"k{number:03}", [turn, "x" * 500]) for number in range(300))
                server.compact_range()
                client.sync(server)
        for table in tables(tmp_path / "server")[1:3]:
            table.unlink()
        done = blocking.repair(tmp_path / "server", backend=engine)
        assert done.verification.ok, done.verification.faults
        with server:
            client.sync(server)
            assert client.query() == server.query()


def test_a_flipped_bit_in_the_middle_of_a_log_is_repaired(engine: str, tmp_path: Path) -> None:
    server = blocking.Level(tmp_path / "server", backend=engine, mode=Level.SERVER)
    with server:
        for number in range(300):
            server.put(f"k{number:03}", "x" * 500)
    flip(only(tmp_path / "server", "*.log"), 50_000)
    with pytest.raises(CorruptionError, match="treehub-level repair"):
        server.open()
    done = blocking.repair(tmp_path / "server", backend=engine)
    assert done.verification.ok, done.verification.faults


# -------------------------------------------------------------------------------- lost or old rows


class Fleet:
    """A server, and clients that have synchronised with it at different times."""

    def __init__(self, folder: Path, engine: str, seed: int) -> None:
        self.rng = random.Random(seed)
        self.folder = folder
        self.server = blocking.Level(folder / "server", backend=engine, mode=Level.SERVER)
        self.clients = [blocking.Level(f"client {number}", backend="memory", mode=Level.CLIENT) for number in range(3)]

    def run(self) -> Rows:
        """Run random writes and syncs. Return the rows of the server at a random point."""
        for client in self.clients:
            client.open()
        old_rows: Rows = {}
        chosen_turn = self.rng.randrange(12)
        for turn in range(12):
            with self.server as server:
                for _ in range(self.rng.randrange(6)):
                    self.write(server)
                if self.rng.random() < 0.15:
                    server.compact_log(drop_deletes_before=self.rng.choice([0, server.cid]))
                for client in self.clients:
                    for _ in range(self.rng.randrange(3)):
                        self.write(client)
                    if self.rng.random() < 0.3:
                        client.sync(server)
            if turn == chosen_turn:
                old_rows = rows_in(self.folder / "server")
        return old_rows

    def write(self, level: blocking.Level) -> None:
        key = f"k{self.rng.randrange(12)}"
        if self.rng.random() < 0.3:
            level.delete(key)
        else:
            level.put(key, self.rng.random())

    def converge(self) -> None:
        """Sync all clients until all stores are equal."""
        with self.server:
            for _ in range(2):
                for client in self.clients:
                    client.sync(self.server)
            for client in self.clients:
                assert client.query() == self.server.query()
                assert (client.cid, client.pending()) == (self.server.cid, 0)

    def close(self) -> None:
        for client in self.clients:
            client.close()


@pytest.mark.parametrize("seed", range(12))
def test_clients_of_a_repaired_server_converge_with_it(tmp_path: Path, engine: str, seed: int) -> None:
    fleet = Fleet(tmp_path, engine, seed)
    old_rows, new_rows = fleet.run(), rows_in(tmp_path / "server")
    stale: dict[bytes, bytes | None] = {}
    share = fleet.rng.choice([0.05, 0.3, 0.8])
    for key in {**new_rows, **old_rows}.keys() - {b"!!store"}:
        if fleet.rng.random() < share:
            stale[key] = fleet.rng.choice([None, old_rows.get(key)])
    tamper(tmp_path / "server", stale)
    done = blocking.repair(tmp_path / "server", backend=engine)
    assert done.verification.ok, done.verification.faults
    fleet.converge()
    fleet.close()


def test_without_the_floor_clients_do_not_converge(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treehub_level.maintenance.repair.Repairer._repair_server", lambda *_: None)
    for seed in range(40):
        folder = tmp_path / str(seed)
        try:
            test_clients_of_a_repaired_server_converge_with_it(folder, engine, seed)
        except (AssertionError, CorruptionError):
            return
        shutil.rmtree(folder)
    pytest.fail("no run has failed without the floor")
