"""``blocking.verify``: it finds what is wrong in a store of any mode, says it in words, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backends.directories import contents, flip, only
from stores import dump

from treehub_level import CorruptionError, Level, LockedError, MemoryBackend, Mode, StateError, blocking
from treehub_level.backends.base import Row


class Kept:
    """A store in memory, by its bytes."""

    def __init__(self) -> None:
        self.memory = MemoryBackend("store")

    def level(self, mode: Mode) -> blocking.Level:
        return blocking.Level("store", backend=self.backend, mode=mode)

    @property
    def backend(self) -> Callable[[str], MemoryBackend]:
        return lambda _: self.memory

    def write(self, *rows: tuple[bytes, bytes | None]) -> None:
        """Change bytes behind the store's back."""
        self.memory.open()
        self.memory.write(list(rows))
        self.memory.close()

    def verify(self) -> blocking.Verification:
        return blocking.verify("store", backend=self.backend)

    def faults_after(self, rows: list[Any], beginning: str) -> list[str]:
        """The faults that begin so, once these bytes were changed."""
        self.write(*rows)
        return [sentence for sentence in self.verify().faults if sentence.startswith(beginning)]


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def server(kept: Kept) -> Kept:
    """A server at CID 5: ``a`` is 4, ``b`` deleted, ``c`` 3; a client has pushed the last two changes."""
    client = blocking.Level("client", backend="memory", mode=Level.CLIENT)
    with kept.level(Level.SERVER) as level, client:
        level.batch([{"type": "put", "key": key, "value": value} for key, value in (("a", 1), ("b", 2), ("c", 3))])
        client.sync(level)
        client.delete("b")
        client.put("a", 4)
        client.sync(level)
    return kept


@pytest.fixture
def client(kept: Kept) -> Kept:
    """A client with a conflict in its journal, and two dirty changes: ``a`` is 4, and ``b`` deleted."""
    other = blocking.Level("server", backend="memory", mode=Level.SERVER)
    with kept.level(Level.CLIENT) as level, other:
        other.put("lost", 1)
        level.put("lost", 2)
        level.sync(other)
        level.put("a", 4)
        level.delete("b")
    return kept


def test_nothing_is_wrong_with_what_levels_write(server: Kept) -> None:
    before = dump(server.memory)
    found = server.verify()
    assert found == blocking.Verification(Mode.SERVER, ["2 records, CID 5", "5 changes in the log"], [])
    assert found.ok
    assert dump(server.memory) == before


def test_a_compacted_log_has_gaps_and_nothing_is_wrong_with_it(server: Kept) -> None:
    with server.level(Level.SERVER) as level:
        level.put("a", 5)
        level.compact_log(drop_deletes_before=6)
    found = server.verify()
    assert found.found[1:] == [
        "2 changes in the log, compacted up to CID 6",
        "clients below CID 5 reset at their next sync",
    ]
    assert found.ok


def test_nothing_is_wrong_with_a_client(client: Kept) -> None:
    found = client.verify()
    assert found.found == ["2 records, CID 1", "2 dirty changes, 1 conflict in the journal"]
    assert found.ok


def test_a_normal_store_may_hold_anything_that_can_be_read(kept: Kept) -> None:
    with blocking.Level("store", backend=kept.backend, value_encoding="bytes") as level:
        level.put("a", b"\xff")
        level.put("b", b"1")
    found = kept.verify()
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
        ([(b"!!floor", b"[3,4]")], "the floor record is wrong: the floor is 4 and the log is compacted up to 3, but"),
        ([(b"!!floor", b"x")], "the row under the key b'!!floor' is damaged: "),
        ([(b"!!epochs", b'[["a",9]]')], "the epochs record is wrong: the epochs must start at rising CIDs from 0 to 5"),
        ([(b"!!epochs", b"[1]")], "the row under the key b'!!epochs' is damaged: "),
        ([(b"!!client/x", b"[1]")], "the row under the key b'!!client/x' is damaged: "),
        (
            [(b"!!client/x", b'[1,"n",5,9,"e",null]')],
            "the record of a client's push names CID 9, but the store's CID is 5",
        ),
    ],
)
def test_what_is_wrong_with_a_server_is_said(server: Kept, rows: list[Any], fault: str) -> None:
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
            "the row under the key b'!a' is damaged: the dirty change under b'!a' is a change of another key",
        ),
        ([(b"!!id", None)], "the row under the key b'!!id' is damaged: "),
        ([(b"!!conflict/1", b"{}")], "the row under the key b'!!conflict/1' is damaged: "),
    ],
)
def test_what_is_wrong_with_a_client_is_said(client: Kept, rows: list[Any], fault: str) -> None:
    assert client.faults_after(rows, fault)


def test_of_many_faults_of_a_kind_some_are_named_and_all_are_counted(server: Kept) -> None:
    server.write(*((b"stray %03d" % number, b"1") for number in range(1000)))
    faults = server.verify().faults
    assert len(faults) == 6
    assert faults[-1] == "1,000 values that are not in the log, in all"


ORIGINAL_SERVER: list[Row] = [
    (b"!", b"2"),
    (b"!1", b'["a", 1]'),
    (b"!2", b'["b",\n"\\u00e9"]'),
    (b"a", b"1"),
    (b"b", '"é"'.encode()),
]


def test_stores_of_the_original_are_looked_at_by_their_shape(kept: Kept) -> None:
    kept.write(*ORIGINAL_SERVER)
    found = kept.verify()
    assert (found.mode, found.faults) == (Mode.SERVER, [])
    kept.write((b"b", b'"e"'))
    assert kept.verify().faults == ["the value of 'b' differs from its last change in the log, CID 2"]


def test_a_client_of_the_original_has_no_records_of_its_own(kept: Kept) -> None:
    kept.write((b"!", b"7"), (b"!a", b'["a",1]'), (b"!gone", b'["gone"]'), (b"a", b"1"))
    found = kept.verify()
    assert (found.mode, found.faults) == (Mode.CLIENT, [])


def test_a_log_of_the_original_in_wrong_order_asks_for_its_upgrade(kept: Kept) -> None:
    rows = [(b"!%d" % cid, b'["k%d",1]' % cid) for cid in range(1, 12)]
    kept.write((b"!", b"11"), *rows, *((b"k%d" % cid, b"1") for cid in range(1, 12)))
    assert "treehub-level upgrade" in kept.verify().faults[0]


def test_a_store_that_is_half_way_to_another_mode_is_said_to_be(kept: Kept) -> None:
    kept.write((b"a", b"1"), (b"!!adopting", b'{"id":"00","mode":"server","after":null,"done":0}'))
    assert "adopt() to the mode server was interrupted: call it again" in kept.verify().faults[0]


def test_a_store_of_a_later_format_is_not_judged(server: Kept) -> None:
    server.write((b"!!store", b'{"id":"00","mode":"server","format":2}'))
    assert "has format 2" in server.verify().faults[0]


def test_there_must_be_a_store(engine: str, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="there is no store at"):
        blocking.verify(tmp_path / "absent", backend=engine)
    assert not (tmp_path / "absent").exists()


def test_looking_at_a_directory_changes_nothing_in_it_nor_beside_it(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "store"
    with blocking.Level(path, backend=engine, mode=Level.SERVER, write_buffer_size=64 * 1024) as level:
        level.load((f"{number:04}", "x" * 1000) for number in range(200))
    before = contents(path)
    log = (path / "LOG").read_bytes()
    assert blocking.verify(path, backend=engine).ok
    assert contents(path) == before
    assert (path / "LOG").read_bytes() == log
    assert [file.name for file in tmp_path.iterdir()] == ["store"]


def test_a_directory_that_is_open_is_not_looked_at(engine: str, tmp_path: Path) -> None:
    with blocking.Level(tmp_path / "store", backend=engine), pytest.raises(LockedError):
        blocking.verify(tmp_path / "store", backend=engine)


def test_a_directory_that_cannot_be_opened_is_a_fault_that_names_its_repair(engine: str, tmp_path: Path) -> None:
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


def test_a_log_that_ends_in_rubbish_is_a_fault_and_stays_as_it_is(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "store"
    with blocking.Level(path, backend=engine) as level:
        level.put("a", 1)
    with only(path, "*.log").open("ab") as log:
        log.write(b"rubb\x05\x00\x01ish!!")  # what could be a record of five bytes, but for its checksum
    before = contents(path)
    found = blocking.verify(path, backend=engine)
    assert found.found == ["1 record, all readable"]
    assert found.faults == [
        "the end of the log could not be read: the last writes are lost, all earlier ones are kept; "
        f"opening copies the damaged files to {path / 'lost'}"
    ]
    assert contents(path) == before
