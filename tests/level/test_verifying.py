"""``blocking.verify``: it describes the faults of a store of any mode, and changes nothing."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backends.directories import contents, flip, only
from stores import dump

from treehub_level import CorruptionError, Level, LockedError, MemoryBackend, Mode, StateError, blocking
from treehub_level.backends.base import Row

HEX = b"0123456789abcdef" * 2


class StoredRows:
    """A store in memory whose rows a test can change."""

    def __init__(self) -> None:
        self.memory = MemoryBackend("store")

    def level(self, mode: Mode) -> blocking.Level:
        return blocking.Level("store", backend=self.backend, mode=mode)

    @property
    def backend(self) -> Callable[[str], MemoryBackend]:
        return lambda _: self.memory

    def write(self, *rows: tuple[bytes, bytes | None]) -> None:
        """Change rows of the closed store."""
        self.memory.open()
        self.memory.write(list(rows))
        self.memory.close()

    def verify(self) -> blocking.Verification:
        return blocking.verify("store", backend=self.backend)

    def faults_after(self, rows: list[Any], beginning: str) -> list[str]:
        """Change rows, and return the faults that begin with a text."""
        self.write(*rows)
        return [sentence for sentence in self.verify().faults if sentence.startswith(beginning)]


@pytest.fixture
def store() -> StoredRows:
    return StoredRows()


@pytest.fixture
def server(store: StoredRows) -> StoredRows:
    """A server at CID 5: ``a`` is 4, ``b`` is deleted, ``c`` is 3. A client pushed the last two."""
    client = blocking.Level("client", backend="memory", mode=Level.CLIENT)
    with store.level(Level.SERVER) as level, client:
        level.batch([{"type": "put", "key": key, "value": value} for key, value in (("a", 1), ("b", 2), ("c", 3))])
        client.sync(level)
        client.delete("b")
        client.put("a", 4)
        client.sync(level)
    return store


@pytest.fixture
def client(store: StoredRows) -> StoredRows:
    """A client with a conflict, and two dirty changes: ``a`` is 4, and ``b`` is deleted."""
    other = blocking.Level("server", backend="memory", mode=Level.SERVER)
    with store.level(Level.CLIENT) as level, other:
        other.put("lost", 1)
        level.put("lost", 2)
        level.sync(other)
        level.put("a", 4)
        level.delete("b")
    return store


def test_a_server_has_no_faults(server: StoredRows) -> None:
    before = dump(server.memory)
    found = server.verify()
    holds = ["2 records, CID 5", "5 changes in the log", "2 commits with a record"]
    assert found == blocking.Verification(Mode.SERVER, holds, [])
    assert found.ok
    assert dump(server.memory) == before


def test_the_gaps_of_a_compacted_log_are_no_faults(server: StoredRows) -> None:
    with server.level(Level.SERVER) as level:
        level.put("a", 5)
        level.compact_log(drop_deletes_before=6)
    found = server.verify()
    assert found.found[1:] == [
        "2 changes in the log, compacted up to CID 6",
        "1 commit with a record",
        "clients below CID 5 reset at their next sync",
    ]
    assert found.ok


def test_a_client_has_no_faults(client: StoredRows) -> None:
    found = client.verify()
    assert found.found == ["2 records, CID 1", "2 dirty changes, 1 conflict in the journal"]
    assert found.ok


def test_a_normal_store_may_hold_any_bytes(store: StoredRows) -> None:
    with blocking.Level("store", backend=store.backend, value_encoding="bytes") as level:
        level.put("a", b"\xff")
        level.put("b", b"1")
    found = store.verify()
    assert found.mode is Mode.NORMAL
    assert found.found == [
        "2 records, all readable",
        '1 value not in JSON: value_encoding="bytes" reads and writes such values',
    ]
    assert found.ok


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([(b"a", b"1")], "the value of 'a' differs from its last change in the log, CID 4"),
        ([(b"b", b"2")], "the value of 'b' differs from its last change in the log, CID 5"),
        ([(b"c", None)], "'c' has no value, but its last change in the log, CID 3, stores one"),
        ([(b"d", b"1")], "'d' has a value, but the log has no change of that key"),
        ([(b"a", b"{")], "the row under the key b'a' is damaged: "),
        ([(b"\xff", b"1")], "the row under the key b'\\xff' is damaged: "),
        ([(b"!2", None)], "the log lacks 1 change: CID 2"),
        ([(b"!1", None), (b"!2", None)], "the log lacks 2 changes: CIDs 1 to 2"),
        ([(b"!4", b'["b"')], "the row under the key b'!4' is damaged: "),
        ([(b"!4", b'["!"]')], "the row under the key b'!4' is damaged: "),
        ([(b"!05", b'["b"]')], "the row under the key b'!05' is damaged: "),
        ([(b"!x", b"1")], "the row under the key b'!x' is damaged: "),
        ([(b"!", b"4")], "the store's CID is 4, but its log ends at CID 5"),
        ([(b"!", b"x")], "the row under the key b'!' is damaged: "),
        ([(b"!!floor", b"[6,4]")], "the floor record is wrong: the floor is 4 and the log is compacted up to 6, but"),
        ([(b"!!floor", b"[3,4]")], "the row under the key b'!!floor' is damaged: "),
        ([(b"!!unknown", b"1")], "the row under the key b'!!unknown' is damaged: it is not a record of a server"),
        ([(b"!4", b'["b",1,2]')], "the row under the key b'!4' is damaged: "),
        ([(b"!!store", b'{"id":"%s","mode":"server","format":0}' % HEX)], "the record b'!!store' does not say what"),
        ([(b"!!store", None)], "the record b'!!store' is missing or damaged, and other records are those of a server"),
        ([(b"!!floor", b"x")], "the row under the key b'!!floor' is damaged: "),
        ([(b"!!epochs", b'[["%s",9]]' % HEX)], "the epochs record is wrong: the epochs must start below the CID 5"),
        ([(b"!!epochs", b'[["a",1]]')], "the row under the key b'!!epochs' is damaged: "),
        ([(b"!!epochs", b'[["%s",1],["%s",1]]' % (HEX, HEX))], "the row under the key b'!!epochs' is damaged: "),
        ([(b"!!epochs", b"[1]")], "the row under the key b'!!epochs' is damaged: "),
        ([(b"!!client/x", b"[1]")], "the row under the key b'!!client/x' is damaged: "),
        (
            [(b"!!client/x", b'[1,"%s",5,9,"e",null]' % HEX)],
            "the record of a client's push names CID 9, but the store's CID is 5",
        ),
    ],
)
def test_faults_of_a_server_are_described(server: StoredRows, rows: list[Any], fault: str) -> None:
    assert server.faults_after(rows, fault)


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([(b"a", b"1")], "the value of 'a' differs from its dirty change"),
        ([(b"a", None)], "the value of 'a' differs from its dirty change"),
        ([(b"b", b"1")], "the value of 'b' differs from its dirty change"),
        ([(b"!a", b'["a",4')], "the row under the key b'!a' is damaged: "),
        (
            [(b"!a", b'["b",4]')],
            "the row under the key b'!a' is damaged: the record b'!a' of a dirty change is a change of another key",
        ),
        ([(b"!!id", None)], "the row under the key b'!!id' is damaged: "),
        ([(b"!!conflict/1", b"{}")], "the row under the key b'!!conflict/1' is damaged: "),
        ([(b"!!own", b"[1,2]")], "the row under the key b'!!own' is damaged: "),
        ([(b"!!push", b"{}")], "the row under the key b'!!push' is damaged: "),
        ([(b"!!aside", b"{}")], "the row under the key b'!!aside' is damaged: "),
        ([(b"!!reset", b'{"common":0,"phase":"C","cursor":""}')], "the row under the key b'!!reset' is damaged: "),
        ([(b"!!holder", b"1")], "the row under the key b'!!holder' is damaged: "),
        ([(b"!!pusi", b"1")], "the row under the key b'!!pusi' is damaged: it is not a record of a client"),
    ],
)
def test_faults_of_a_client_are_described(client: StoredRows, rows: list[Any], fault: str) -> None:
    assert client.faults_after(rows, fault)


def test_a_long_list_of_faults_is_cut_and_counted(server: StoredRows) -> None:
    server.write(*((b"stray %03d" % number, b"1") for number in range(1000)))
    faults = server.verify().faults
    assert len(faults) == 6
    assert faults[-1] == "1,000 values that are not in the log, in all"


NPM_SERVER: list[Row] = [
    (b"!", b"2"),
    (b"!1", b'["a", 1]'),
    (b"!2", b'["b",\n"\\u00e9"]'),
    (b"a", b"1"),
    (b"b", '"é"'.encode()),
]


def test_stores_of_the_npm_package_are_recognised_by_their_rows(store: StoredRows) -> None:
    store.write(*NPM_SERVER)
    found = store.verify()
    assert (found.mode, found.faults) == (Mode.SERVER, [])
    store.write((b"b", b'"e"'))
    assert store.verify().faults == ["the value of 'b' differs from its last change in the log, CID 2"]


def test_a_client_of_the_npm_package_has_no_own_records(store: StoredRows) -> None:
    store.write((b"!", b"7"), (b"!a", b'["a",1]'), (b"!gone", b'["gone"]'), (b"a", b"1"))
    found = store.verify()
    assert (found.mode, found.faults) == (Mode.CLIENT, [])


def test_a_log_of_the_npm_package_in_text_order_needs_an_upgrade(store: StoredRows) -> None:
    rows = [(b"!%d" % cid, b'["k%d",1]' % cid) for cid in range(1, 12)]
    store.write((b"!", b"11"), *rows, *((b"k%d" % cid, b"1") for cid in range(1, 12)))
    assert "treehub-level upgrade" in store.verify().faults[0]


def test_an_interrupted_adoption_is_reported(store: StoredRows) -> None:
    store.write((b"a", b"1"), (b"!!adopting", b'{"id":"%s","mode":"server","after":null,"done":0}' % HEX))
    assert "adopt() to the mode server was interrupted: call it again" in store.verify().faults[0]


def test_a_later_format_is_reported(server: StoredRows) -> None:
    server.write((b"!!store", b'{"id":"00","mode":"server","format":2}'))
    assert "has format 2" in server.verify().faults[0]


def test_a_missing_store_is_an_error(engine: str, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="there is no store at"):
        blocking.verify(tmp_path / "absent", backend=engine)
    assert not (tmp_path / "absent").exists()


def test_verifying_changes_nothing_in_the_directory_or_beside_it(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "store"
    with blocking.Level(path, backend=engine, mode=Level.SERVER, write_buffer_size=64 * 1024) as level:
        level.load((f"{number:04}", "x" * 1000) for number in range(200))
    before = contents(path)
    log = (path / "LOG").read_bytes()
    assert blocking.verify(path, backend=engine).ok
    assert contents(path) == before
    assert (path / "LOG").read_bytes() == log
    assert [file.name for file in tmp_path.iterdir()] == ["store"]


def test_a_store_is_verified_beside_the_level_that_writes_to_it(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "store"
    with blocking.Level(path, backend=engine, mode=Level.SERVER, write_buffer_size=64 * 1024) as level:
        writing = threading.Event()
        stopping = threading.Event()

        def write() -> None:
            for number in itertools.count():
                level.batch([{"type": "put", "key": f"{number % 100:02}{n}", "value": "x" * 500} for n in range(5)])
                writing.set()
                if stopping.is_set():
                    return

        writer = threading.Thread(target=write)
        writer.start()
        try:
            assert writing.wait(20)
            for _ in range(5):
                found = blocking.verify(path, backend=engine)
                assert found.faults == []
                assert "it is open, in this process or another" in found.found[0]
        finally:
            stopping.set()
            writer.join()
    assert "it is open" not in blocking.verify(path, backend=engine).found[0]


def test_a_backend_that_is_not_read_beside_a_level_is_locked() -> None:
    memory = MemoryBackend("store")
    with blocking.Level("store", backend=lambda _: memory), pytest.raises(LockedError):
        blocking.verify("store", backend=lambda _: memory)


def test_a_directory_that_cannot_be_opened_is_a_fault_that_names_repair(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "store"
    with blocking.Level(path, backend=engine) as level:
        level.put("a", 1)
    flip(only(path, "MANIFEST-*"), 12)
    found = blocking.verify(path, backend=engine)
    assert found.mode is None
    assert f"`treehub-level repair {path}`" in found.faults[0]
    assert str(tmp_path / ".store") not in found.faults[0]


def test_a_table_that_cannot_be_read_is_a_fault(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "store"
    with blocking.Level(path, backend=engine) as level:
        level.put("a", "x" * 1000)
        level.compact_range()
    flip(only(path, "*.ldb"), 20)
    found = blocking.verify(path, backend=engine)
    assert f"the LevelDB store at {str(path)!r} is damaged" in found.faults[0]
    with blocking.Level(path, backend=engine) as level, pytest.raises(CorruptionError):
        level.get("a")


def test_a_log_with_a_damaged_end_is_a_fault_and_is_not_changed(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "store"
    with blocking.Level(path, backend=engine) as level:
        level.put("a", 1)
    with only(path, "*.log").open("ab") as log:
        log.write(b"rubb\x05\x00\x01ish!!")  # a record of five bytes with a wrong checksum
    before = contents(path)
    found = blocking.verify(path, backend=engine)
    assert found.found == ["1 record, all readable"]
    assert found.faults == [
        "the end of the log could not be read: the last writes are lost, all earlier ones are kept; "
        f"opening copies the damaged files to {path / 'lost'}"
    ]
    assert contents(path) == before


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([(b"!!commit/3", b"[1,null,null,1,[[1,9]]]")], "the row under the key b'!!commit/3' is damaged"),
        ([(b"!!commit/3", b"[1,null,null,1,[[2,2]]]")], "the row under the key b'!!commit/3' is damaged"),
        ([(b"!!commit/3", b'[1,null,null,"now",[]]')], "the row under the key b'!!commit/3' is damaged"),
        ([(b"!!commit/3", b"[1,null,null,1]")], "the row under the key b'!!commit/3' is damaged"),
        ([(b"!!commit/4", b"[3,null,null,1,[]]")], "the row under the key b'!!commit/4' is damaged"),
        ([(b"!!commit/x", b"[1,null,null,1,[]]")], "the row under the key b'!!commit/x' is damaged"),
        ([(b"!!commit/9", b"[6,null,null,1,[]]")], "the record of a commit ends at CID 9, but the store's CID is 5"),
    ],
)
def test_the_record_of_a_commit_is_checked(server: StoredRows, rows: list[Row], fault: str) -> None:
    assert "2 commits with a record" in server.verify().found
    assert server.faults_after(rows, fault)


def test_a_server_whose_last_commit_is_beyond_its_cid_does_not_open(server: StoredRows) -> None:
    server.write((b"!!commit/9", b"[6,null,null,1,[]]"))
    with pytest.raises(CorruptionError, match="commit/9"):
        server.level(Level.SERVER).open()
