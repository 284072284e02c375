"""``read_only=True``: a store is read beside its writer, and on a read-only medium."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from backends.directories import AsNobody, needs_users
from stores import Stores

from treehub_level import Level, LockedError, Mode, StateError, StorageError, UnavailableError, blocking
from treehub_level.backends.leveldb import checkpoint

#: The writing verbs of each mode, as statements. ``other`` is a store to synchronise with.
WRITING: list[tuple[str, Mode, Callable[[Any, Any], Any]]] = [
    ("put", Mode.NORMAL, lambda level, other: level.put("a", 2)),
    ("put durable", Mode.NORMAL, lambda level, other: level.put("a", 2, durable=True)),
    ("delete", Mode.NORMAL, lambda level, other: level.delete("a")),
    ("batch", Mode.NORMAL, lambda level, other: level.batch([{"type": "put", "key": "b", "value": 1}])),
    ("sublevel", Mode.NORMAL, lambda level, other: level.sublevel("s").put("a", 1)),
    ("compact_range", Mode.NORMAL, lambda level, other: level.compact_range()),
    ("put", Mode.SERVER, lambda level, other: level.put("a", 2)),
    ("change", Mode.SERVER, lambda level, other: level.change(1, [["a", 2]])),
    ("compact_log", Mode.SERVER, lambda level, other: level.compact_log()),
    ("put", Mode.CLIENT, lambda level, other: level.put("a", 2)),
    ("apply", Mode.CLIENT, lambda level, other: level.apply(1, [["a", 2]])),
    ("clean", Mode.CLIENT, lambda level, other: level.clean(1, ["a"])),
    ("sync", Mode.CLIENT, lambda level, other: level.sync(other)),
    ("rebind", Mode.CLIENT, lambda level, other: level.rebind(other)),
]


@pytest.mark.shared
@pytest.mark.parametrize("mode", list(Mode), ids=str)
async def test_every_writing_verb_raises_one_error_and_reading_works(stores: Stores, mode: Mode) -> None:
    level = await stores.open("store", mode=mode)
    await level.put("a", 1)
    await level.close()
    before = stores.raw("store")
    other = await stores.open("other", mode=Mode.SERVER)
    level = await stores.open("store", mode=mode, read_only=True)
    for verb, of_mode, write in WRITING:
        if of_mode is mode:
            with pytest.raises(StateError, match="open for reading only: open it without read_only=True") as caught:
                await write(level, other)
            assert type(caught.value) is StateError, verb
    if mode is Mode.CLIENT:
        with pytest.raises(StateError, match="reading only"):
            level.live(other)
        assert [change.key for change in await level.dirty()] == ["a"]
    if mode is Mode.SERVER:
        assert (await level.changes(0)).cid == 1
    assert await level.get("a") == 1
    assert await level.query() == [("a", 1)]
    await level.close()
    assert stores.raw("store") == before


@pytest.mark.shared
async def test_a_store_that_does_not_exist_is_not_created(stores: Stores) -> None:
    if stores.backend == "memory":
        pytest.skip("a store in memory always exists")
    with pytest.raises(StorageError, match="there is no store at"):
        await stores.open("store", read_only=True)
    assert not list(stores.folder.iterdir())
    assert stores.stored_mode("store") is None


async def test_clients_pull_from_a_server_that_is_open_for_reading_only(stores: Stores) -> None:
    server = await stores.open("server", mode=Mode.SERVER)
    await server.put("a", 1)
    await server.close()
    server = await stores.open("server", mode=Mode.SERVER, read_only=True)
    client = await stores.open("client", mode=Mode.CLIENT)
    assert (await client.sync(server)).pulled == 1
    await client.put("b", 1)
    with pytest.raises(StateError, match="reading only"):
        await client.sync(server)
    assert await client.pending() == 1


def test_read_only_is_true_or_false() -> None:
    with pytest.raises(TypeError, match="read_only"):
        blocking.Level("x", backend="memory", read_only=1)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------- beside its writer

#: A writer whose LevelDB switches logs and compacts all the time. It writes 0, 1, 2, … in order. It
#: pauses, since the store of a writer without a pause can grow faster than a slow reader copies it.
WRITER = """
import sys
import time
from treehub_level import blocking
backend, path, reopen = sys.argv[1:]
options = {} if backend == "sqlite" else {"write_buffer_size": 64 << 10, "max_file_size": 64 << 10}
number = 0
print("open", flush=True)
while True:
    with blocking.Level(path, backend=backend, mode=blocking.Level.SERVER, **options) as level:
        for _ in range(20 if reopen else 10**9):
            level.put(f"{number:06}", "x" * 2000)
            level.put(f"{number // 2:06}", "y" * 2000)
            number += 1
            time.sleep(0.001)
            if number == 40:
                print("writing", flush=True)
"""


class Writer:
    """A process that writes to a store until the end of the block."""

    def __init__(self, backend: str, path: Path, *, reopen: bool = False) -> None:
        self._arguments = [backend, str(path), "reopen" if reopen else ""]

    def __enter__(self) -> Writer:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WRITER, *self._arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stdout
        assert [self._process.stdout.readline() for _ in range(2)] == ["open\n", "writing\n"]
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.poll() is None, self._process.communicate()[1]
        self._process.kill()
        self._process.communicate()


@contextmanager
def read_beside_writer(store: Path, backend: str) -> Iterator[blocking.Level]:
    """Open a server store for reading; try again where the writer is faster, as the error says."""
    level = blocking.Level(store, backend=backend, mode=Level.SERVER, read_only=True)
    for _ in range(20):
        with suppress(UnavailableError):
            level.open()
            break
    try:
        yield level
    finally:
        level.close()


@pytest.mark.once
@pytest.mark.parametrize("backend", ["leveldb", "plyvel", "sqlite"])
def test_a_store_is_read_beside_its_writer_as_it_was_at_one_moment(tmp_path: Path, backend: str) -> None:
    store, cid = tmp_path / "store", 0
    with Writer(backend, store):
        for _ in range(8):
            with read_beside_writer(store, backend) as level:
                with level.snapshot() as snapshot:
                    keys = snapshot.keys()
                assert keys == [f"{number:06}" for number in range(len(keys))], "a hole in the history"
                assert cid <= level.cid
                cid = level.cid
            if backend != "sqlite":
                with pytest.raises(LockedError):
                    blocking.Level(store, backend=backend, mode=Level.SERVER).open()
    assert cid > 40
    assert blocking.verify(store, backend=backend).ok
    assert [path.name for path in tmp_path.iterdir() if "reading" in path.name] == []


@pytest.mark.once
def test_readers_do_not_keep_the_owner_from_opening_its_store(tmp_path: Path, engine: str) -> None:
    with Writer(engine, tmp_path / "store", reopen=True):  # it dies of a LockedError
        for _ in range(15):
            assert blocking.stored_mode(tmp_path / "store", backend=engine) is Level.SERVER


@pytest.mark.once
def test_control_opening_for_writing_keeps_the_owner_from_opening_its_store(tmp_path: Path, engine: str) -> None:
    with pytest.raises(AssertionError, match="LockedError"), Writer(engine, tmp_path / "store", reopen=True) as writer:
        deadline = time.monotonic() + 60
        while writer._process.poll() is None and time.monotonic() < deadline:
            with suppress(LockedError), blocking.Level(tmp_path / "store", backend=engine, mode=Level.SERVER):
                pass


def _unlisted_tables(store: Path, engine: str) -> dict[str, bytes]:
    """Make a store with data in its log, and tables of a compaction that goes on; return these."""
    with blocking.Level(store, backend=engine) as level:
        level.put("a", 1)
    tables = {f"{number:06}.ldb": b"of the writer" for number in range(1, 20)}
    for name, data in tables.items():
        (store / name).write_bytes(data)
    return tables


@pytest.mark.once
def test_a_table_that_the_writer_has_not_finished_is_not_overwritten(tmp_path: Path, engine: str) -> None:
    tables = _unlisted_tables(tmp_path / "store", engine)
    with blocking.Level(tmp_path / "store", backend=engine, read_only=True) as level:
        assert level.get("a") == 1
    assert {name: (tmp_path / "store" / name).read_bytes() for name in tables} == tables


@pytest.mark.once
def test_control_a_link_to_an_unfinished_table_lets_the_reader_overwrite_it(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = _unlisted_tables(tmp_path / "store", engine)
    monkeypatch.setattr(checkpoint, "listed_tables", lambda path: {*tables})
    with blocking.Level(tmp_path / "store", backend=engine, read_only=True):
        pass
    assert {name: (tmp_path / "store" / name).read_bytes() for name in tables} != tables


@pytest.mark.once
def test_the_copy_of_a_killed_reader_is_removed_later(tmp_path: Path, engine: str) -> None:
    store = tmp_path / "store"
    with blocking.Level(store, backend=engine) as level:
        level.put("a", 1)
    left = [tmp_path / ".store-reading-old", tmp_path / ".store-reading-new"]
    for folder in left:
        shutil.copytree(store, folder)
    os.utime(left[0], (0, 0))
    with blocking.Level(store, backend=engine, read_only=True) as level:
        assert level.get("a") == 1
        (copy,) = (path for path in tmp_path.glob(".store-reading-*") if path not in left)
        os.utime(copy, (0, 0))  # it looks old, and is in use
        with blocking.Level(store, backend=engine, read_only=True):
            pass
        assert level.get("a") == 1
    assert [*tmp_path.glob(".store-reading-*")] == [left[1]]


@pytest.mark.once
def test_a_store_that_changes_all_the_time_is_unavailable_not_wrong(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with blocking.Level(tmp_path / "store", backend=engine) as level:
        level.put("a", 1)
    numbers = iter(range(1000))
    monkeypatch.setattr(checkpoint, "_PAUSE", 0)
    monkeypatch.setattr(checkpoint, "is_complete", lambda path: False)
    monkeypatch.setattr(checkpoint, "_store_files", lambda path: [f"{next(numbers):06}.log"])
    with pytest.raises(StorageError, match="changes too often"):
        blocking.Level(tmp_path / "store", backend=engine, read_only=True).open()
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


# --------------------------------------------------------------------------- on a read-only medium

#: Fills a small file system, makes it read-only, and reads the store on it.
MEDIUM = """
import os, shutil, subprocess, sys
from treehub_level import Level, StorageError, blocking
from command_line import invoke

backend, disk, crashed = sys.argv[1:]
store = disk + "/store"
writer = '''
import os, sys
from treehub_level import blocking
level = blocking.Level(sys.argv[1], backend=sys.argv[2], mode=blocking.Level.SERVER)
level.open()
level.batch([{"type": "put", "key": f"{number:04}", "value": number} for number in range(1000)], durable=True)
os._exit(0) if sys.argv[3] else level.close()
'''
subprocess.run([sys.executable, "-c", writer, store, backend, crashed], check=True)
if crashed and backend == "sqlite":
    os.unlink(store + "-shm")
if backend == "sqlite":
    assert (os.path.exists(store + "-wal")) == bool(crashed)
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)

def contents():
    return {os.path.join(folder, file): os.stat(os.path.join(folder, file)).st_mtime_ns
            for folder, _, files in os.walk(disk) for file in files}

def run(*command):
    result = invoke(*command)
    assert result.exit_code == 0, (command, result.output, result.exception)
    return result.output

before = contents()
options = ["--backend", backend]
assert run("get", store, "0007", *options) == "7\\n"
assert len(run("dump", store, *options).splitlines()) == 1000
assert "nothing is wrong" in run("verify", store, *options)
run("copy", store, "/tmp/copied-" + str(os.getpid()), "--from-backend", backend, "--to-backend", "sqlite")
os.unlink("/tmp/copied-" + str(os.getpid()))
assert blocking.stored_mode(store, backend=backend) is Level.SERVER
with blocking.Level(store, backend=backend, mode=Level.SERVER, read_only=True) as level:
    assert level.count() == 1000 and level.cid == 1000
try:
    blocking.Level(store, backend=backend, mode=Level.SERVER).open()
except StorageError:
    pass
else:
    raise AssertionError("the control: it opens for writing")
assert contents() == before
print("read")
"""


@pytest.mark.once
@pytest.mark.parametrize("crashed", ["", "crashed"], ids=["closed", "crashed"])
@pytest.mark.parametrize("backend", ["leveldb", "plyvel", "sqlite"])
def test_a_store_on_a_read_only_medium_is_read(tmp_path: Path, backend: str, crashed: str) -> None:
    inside = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=20m tmpfs "$0" && exec "$@"', str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a disk; the tests with a read-only folder run instead")
    done = subprocess.run(
        [*inside, sys.executable, "-c", MEDIUM, backend, str(tmp_path), crashed],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},  # of `command_line`
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "read", done.stderr


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that other users can enter, unlike pytest's ``tmp_path``."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.mark.once
@needs_users
@pytest.mark.parametrize("backend", ["leveldb", "plyvel", "sqlite"])
def test_a_store_of_another_user_is_read(shared_folder: Path, backend: str) -> None:
    store = shared_folder / "store"
    with blocking.Level(store, backend=backend) as level:
        level.put("k", 1)
    store.chmod(0o755 if store.is_dir() else 0o644)  # a new store is for its owner only
    options: dict[str, Any] = {"backend": backend, "read_only": True}
    with AsNobody(), blocking.Level(store, **options) as level:
        assert level.get("k") == 1
    with blocking.Level(store, backend=backend) as owner:
        owner.put("k", 2)
        with AsNobody(), blocking.Level(store, **options) as level:
            assert level.get("k") == 2
