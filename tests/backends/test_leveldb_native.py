"""The LevelDB backend that is linked against LevelDB."""

from __future__ import annotations

import os
import random
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from backends.directories import KIB, Engine, Opened, fill, flip, only, run_python, tables
from sanitizers import IS_SANITIZED
from stores import plyvel

from treehub_level import (
    CorruptionError,
    InvalidKeyError,
    InvalidValueError,
    LockedError,
    NotOpenError,
    StateError,
    StorageError,
)

pytest.importorskip("treehub_level._store_c", reason="the package was built without LevelDB")

from treehub_level._store_c import DB
from treehub_level.backends.leveldb import LevelDBBackend
from treehub_level.backends.leveldb.plyvel import PlyvelBackend

pytestmark = pytest.mark.once


@pytest.fixture
def engine() -> str:
    return "leveldb"


# ----------------------------------------------------------------------------- together with plyvel


def test_each_backend_reads_a_store_of_the_other(path: Path) -> None:
    rng = random.Random(5)
    written: dict[bytes, bytes] = {}
    engines: list[Engine] = [LevelDBBackend, PlyvelBackend]
    for round_number in range(6):
        backend = engines[round_number % 2](path)
        backend.open()
        assert dict(backend.scan(None, None).fetch(10_000)) == written
        batch = {rng.randbytes(rng.randrange(20)): rng.randbytes(rng.randrange(300)) for _ in range(500)}
        backend.write(list(batch.items()))
        written |= batch
        if round_number > 2:
            backend.compact()
        backend.close()
    with plyvel().DB(str(path)) as bare:
        assert dict(bare) == written


def test_both_backends_work_in_one_process_at_once(tmp_path: Path) -> None:
    script = (
        "import sys, threading\n"
        "from treehub_level.backends.leveldb import LevelDBBackend\n"
        "from treehub_level.backends.leveldb.plyvel import PlyvelBackend\n"
        "engines = [make(f'{sys.argv[1]}/{number}', write_buffer_size=65536)\n"
        "           for number, make in enumerate([LevelDBBackend, PlyvelBackend] * 2)]\n"
        "rows = [(b'%05d' % number, b'v' * 200) for number in range(5000)]\n"
        "def work(backend):\n"
        "    backend.open()\n"
        "    for start in range(0, 5000, 50):\n"
        "        backend.write(rows[start:start + 50])\n"
        "        assert backend.get(rows[start][0]) == rows[start][1]\n"
        "    backend.compact()\n"
        "    cursor, found = backend.scan(None, None), []\n"
        "    while fetched := cursor.fetch(1000): found += fetched\n"
        "    cursor.close()\n"
        "    backend.close()\n"
        "    agreed.append(found == rows)\n"
        "agreed = []\n"
        "threads = [threading.Thread(target=work, args=(backend,)) for backend in engines]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "print(agreed)\n"
    )
    assert run_python(script, tmp_path) == str([True] * 4)


def test_neither_backend_opens_a_store_that_the_other_has_open(opened: Opened, path: Path) -> None:
    backend = opened(path)
    other = PlyvelBackend(path)
    with pytest.raises(LockedError, match="only one can have it open"):
        other.open()
    backend.close()
    other.open()
    with pytest.raises(LockedError, match="only one can have it open"):
        backend.open()
    other.close()


# ------------------------------------------------------------------------------------------ closing


def test_closing_while_eight_threads_use_it_raises_in_them_and_crashes_nothing(tmp_path: Path) -> None:
    script = (
        "import random, sys, threading, time\n"
        "from treehub_level import NotOpenError\n"
        "from treehub_level.backends.leveldb import LevelDBBackend\n"
        "rows = [(b'%05d' % number, b'v' * 100) for number in range(20000)]\n"
        "def scan(store, reverse):\n"
        "    cursor = store.scan(b'1', None, reverse=reverse)\n"
        "    while cursor.fetch(5000): pass\n"
        "def hold(store):\n"
        "    snapshot = store.snapshot()\n"
        "    scan(snapshot, True)\n"
        "    snapshot.get_many([key for key, _ in rows[::10]])\n"
        "    snapshot.close()\n"
        "def write(store, count, durable):\n"  # without the lock that the engine holds
        "    store.write(rows[:count], durable=durable)\n"
        "def upkeep(store):\n"
        "    store.compact_range(b'1', b'3')\n"
        "    store.approximate_size(b'', b'~')\n"
        "    store.stats()\n"
        "uses = [lambda store: store.get(b'07777'), lambda store: store.get_many([key for key, _ in rows[:2000]]),\n"
        "        lambda store: scan(store, False), lambda store: scan(store, True), hold, upkeep,\n"
        "        lambda store: write(store, 1000, False), lambda store: write(store, 2, True)]\n"
        "def use(store, number):\n"
        "    try:\n"
        "        while True: uses[number](store)\n"
        "    except NotOpenError: refused.append(number)\n"
        "for round_number in range(20):\n"
        "    store, refused = LevelDBBackend(sys.argv[1], write_buffer_size=1 << 20), []\n"
        "    store.open()\n"
        "    store.write(rows)\n"
        "    threads = [threading.Thread(target=use, args=(store, number)) for number in range(8)]\n"
        "    for thread in threads: thread.start()\n"
        "    time.sleep(random.random() * 0.1)\n"
        "    closers = [threading.Thread(target=store.close) for _ in range(2)]\n"
        "    for closer in closers: closer.start()\n"
        "    for thread in threads + closers: thread.join()\n"
        "    assert sorted(refused) == [*range(8)], refused\n"
        "    store.open()\n"
        "    assert store.get(b'07777') == b'v' * 100\n"
        "    store.close()\n"
        "print('closed')\n"
    )
    assert run_python(script, tmp_path / "store") == "closed"


def test_a_cursor_outlives_its_snapshot(opened: Opened, path: Path) -> None:
    backend = opened(path)
    backend.write([(b"a", b"1"), (b"b", b"1")])
    snapshot = backend.snapshot()
    cursor = snapshot.scan(None, None)
    snapshot.close()
    backend.write([(b"a", b"2"), (b"b", None)])
    backend.compact()
    assert cursor.fetch(9) == [(b"a", b"1"), (b"b", b"1")]


def test_a_closed_cursor_or_snapshot_raises_not_open(opened: Opened, path: Path) -> None:
    backend = opened(path)
    backend.write([(b"a", b"1")])
    cursor, snapshot = backend.scan(None, None), backend.snapshot()
    cursor.close()
    snapshot.close()
    for use in (lambda: cursor.fetch(1), lambda: snapshot.get(b"a"), lambda: snapshot.scan(None, None)):
        with pytest.raises(NotOpenError, match="is closed"):
            use()


def test_two_threads_in_one_cursor_raise_and_get_no_row_twice(opened: Opened, path: Path) -> None:
    backend = opened(path)
    rows = [(b"%06d" % number, b"v" * 50) for number in range(100_000)]
    backend.write(rows)
    cursor = backend.scan(None, None)
    found: list[tuple[bytes, bytes]] = []

    def fetch() -> None:
        while True:
            try:
                fetched = cursor.fetch(5000)
            except StateError:
                continue
            if not fetched:
                return
            found.extend(fetched)

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == rows


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_can_neither_use_nor_damage_an_open_store(path: Path) -> None:
    script = (
        "import os, sys\n"
        "from treehub_level import NotOpenError\n"
        "from treehub_level.backends.leveldb import LevelDBBackend\n"
        "store = LevelDBBackend(sys.argv[1], write_buffer_size=65536)\n"
        "store.open()\n"
        "store.write([(b'%05d' % number, b'v' * 100) for number in range(2000)])\n"
        "cursor, snapshot = store.scan(None, None), store.snapshot()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    for use in (lambda: store.get(b'k'), lambda: cursor.fetch(1), lambda: snapshot.get(b'k')):\n"
        "        try: use()\n"
        "        except NotOpenError as error: assert 'forked' in str(error)\n"
        "        else: sys.exit(1)\n"
        "    cursor.close()\n"
        "    store.close()\n"
        "    del cursor, snapshot, store\n"
        "    sys.exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert len(cursor.fetch(1)) == 1\n"
        "store.write([(b'after', b'1')])\n"
        "store.compact()\n"
        "store.close()\n"
        "store.open()\n"
        "print(store.get(b'after'))\n"
    )
    assert run_python(script, path) == "b'1'"


# ---------------------------------------------------------------------------------------- resources


def test_long_rows_come_in_several_fetches(opened: Opened, path: Path) -> None:
    backend = opened(path)
    rows = [(b"%02d" % number, os.urandom(400_000)) for number in range(20)]
    backend.write(rows)
    cursor, fetches = backend.scan(None, None), []
    while fetched := cursor.fetch(1000):
        fetches.append(fetched)
    assert [row for fetched in fetches for row in fetched] == rows
    assert {len(fetched) for fetched in fetches} <= {2, 3}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system has no /proc/self/statm")
@pytest.mark.skipif(IS_SANITIZED, reason="AddressSanitizer keeps what was freed")
def test_a_hundred_thousand_calls_leak_nothing(path: Path) -> None:
    # In a process of its own: in one that has freed much, what leaks would take that memory and not
    # show.
    script = (
        "import os, pathlib, sys\n"
        "from treehub_level.backends.leveldb import LevelDBBackend\n"
        "backend = LevelDBBackend(sys.argv[1], write_buffer_size=65536, block_cache_size=0)\n"
        "backend.open()\n"
        "rows = [(b'%03d' % number, b'v' * 1000) for number in range(50)]\n"
        "bad = [*rows, (b'k', 7)]\n"
        "statm = pathlib.Path('/proc/self/statm')\n"
        "def resident(): return int(statm.read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')\n"
        "def work(times):\n"
        "    for _ in range(times):\n"
        "        backend.write(rows[:2])\n"
        "        backend.get(b'001')\n"
        "        backend.get(b'absent')\n"
        "        backend.get_many([b'001', b'absent'])\n"
        "        cursor = backend.scan(b'0', b'1')\n"
        "        cursor.fetch(3)\n"
        "        cursor.fetch_keys(3)\n"
        "        snapshot = backend.snapshot()\n"
        "        snapshot.scan(None, None, reverse=True)\n"
        "        snapshot.get(b'001')\n"
        "        for fail in (lambda: backend.write(bad), lambda: backend.get(bad),\n"
        "                     lambda: backend.get_many([b'001', bad])):\n"
        "            try: fail()\n"
        "            except TypeError: continue\n"
        "            raise AssertionError\n"
        "work(1000)\n"
        "blocks, memory = sys.getallocatedblocks(), resident()\n"
        "work(9000)\n"
        "blocks, memory = sys.getallocatedblocks() - blocks, resident() - memory\n"
        "files = len(os.listdir('/proc/self/fd'))\n"
        "for _ in range(50):\n"
        "    snapshot, cursor = backend.snapshot(), backend.scan(None, None)\n"
        "    backend.close()\n"
        "    backend.open()\n"
        "print(blocks, memory, len(os.listdir('/proc/self/fd')) - files)\n"
    )
    blocks, memory, files = map(int, run_python(script, path).split())
    assert files <= 0
    assert blocks < 1000
    assert memory < 4 * KIB * KIB


# ---------------------------------------------------------------------------------------- bad input


def test_a_cursor_that_reached_damage_is_closed(opened: Opened, make: Engine, path: Path) -> None:
    fill(make, path)
    flip(tables(path)[0], 100)
    cursor = opened(path).scan(None, None)
    with pytest.raises(CorruptionError):
        cursor.fetch(1)
    with pytest.raises(NotOpenError):
        cursor.fetch(1)


@pytest.mark.parametrize("bad", ["text", 7, None, bytearray(b"k")], ids=repr)
def test_values_that_are_not_bytes_are_refused_and_nothing_is_written(opened: Opened, path: Path, bad: Any) -> None:
    backend = opened(path)
    no_value: Any = bad or 7
    for use in (
        lambda: backend.get(bad),
        lambda: backend.get_many([b"k", bad]),
        lambda: backend.write([(b"fine", b"1"), (bad, b"1")]),
        lambda: backend.write([(b"fine", b"1"), (b"k", no_value)]),
        lambda: backend.write([(b"fine", b"1"), bad]),
        lambda: backend.approximate_size(bad, b""),
    ):
        with pytest.raises((TypeError, ValueError)):
            use()
    assert backend.scan(None, None).fetch(9) == []


def test_keys_and_values_too_long_for_leveldb_are_refused(opened: Opened, path: Path) -> None:
    backend = opened(path)
    # Four gigabytes of untouched zeros take no physical memory.
    long = bytes(2**32)
    with pytest.raises(InvalidKeyError, match="4 GiB"):
        backend.write([(b"k", b"v"), (long, b"")])
    with pytest.raises(InvalidValueError, match="4 GiB"):
        backend.write([(b"k", b"v"), (b"k", long)])
    assert backend.get(b"k") is None


def test_leveldb_options_that_the_backend_does_not_offer(path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        DB(str(path))
    DB(str(path), create_if_missing=True).close()
    with pytest.raises(StorageError, match="exists"):
        DB(str(path), error_if_exists=True)
    with pytest.raises(ValueError, match="compression"):
        DB(str(path), compression="zstd")
    with pytest.raises(TypeError):
        DB(str(path), cache=5)  # type: ignore[call-arg]  # the point of the test


def test_paranoid_checks_refuse_a_log_with_damage_inside(path: Path) -> None:
    database = DB(str(path), create_if_missing=True)
    for number in range(300):
        database.write([(b"%03d" % number, os.urandom(500))])
    database.close()
    flip(only(path, "*.log"), 40_000)
    shutil.copytree(path, path.with_name("copy"))
    with pytest.raises(CorruptionError, match="repair"):
        DB(str(path), paranoid_checks=True)
    lenient = DB(str(path.with_name("copy")))
    assert len(lenient.scan(None, None).fetch(300)) < 300
    lenient.close()
