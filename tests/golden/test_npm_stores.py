"""Stores that the npm package @treehub/level has written on leveldown.

``npm/make.mjs`` made them. ``answers.json`` in each archive holds the package's own view of the
store.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from stores import plyvel

from treehub_level import Level, ModeMismatchError, StateError, blocking
from treehub_level.testing import CrashError, CrashingDisk

ARCHIVES = Path(__file__).with_name("npm")
SERVERS = ["server-5", "server-150", "server-20000"]

#: Upgrades a store; after each batch it prints the count, and waits for a line of input.
UPGRADE = """
import sys
from treehub_level import blocking
blocking.upgrade(sys.argv[1], backend=sys.argv[2], progress=lambda count: print(count, flush=True) or input())
"""


class Store:
    """A store of the npm package.

    Attributes:
        path: The directory of the store.
        answers: The package's own view: ``cid``, ``items``, ``all`` rows; for a client also
            ``dirty``.
    """

    def __init__(self, name: str, folder: Path) -> None:
        with tarfile.open(ARCHIVES / f"{name}.tar.xz") as archive:
            archive.extractall(folder / name, filter="data")
        self.path = folder / name / "store"
        self.answers = json.loads((folder / name / "answers.json").read_bytes())

    @property
    def items(self) -> list[tuple[str, Any]]:
        """Keys and values, in the order of their bytes."""
        return [(row["key"], row["value"]) for row in self.answers["items"]]

    @property
    def log(self) -> list[Any]:
        """The changes of the change log, in the order of their ids."""
        rows = {row["key"]: row["value"] for row in self.answers["all"]}
        return [rows[f"!{cid}"] for cid in range(1, self.answers["cid"] + 1)]

    def raw(self) -> dict[bytes, bytes]:
        """All rows of the store, as they are on disk."""
        with plyvel().DB(str(self.path)) as db:
            return dict(db)


@pytest.fixture
def unpack(tmp_path: Path) -> Any:
    """A function that unpacks a store by its name."""
    return lambda name: Store(name, tmp_path)


def check_server(level: blocking.Level, store: Store) -> None:
    """Fail unless a server holds the items and the log of a store of the npm package."""
    assert level.cid == store.answers["cid"]
    assert level.query() == store.items
    page = level.changes(0, limit=None)
    assert page.changes == store.log
    assert [change.cid for change in page.changes] == [*range(1, level.cid + 1)]


def test_the_stores_need_an_upgrade(unpack: Any) -> None:
    """The logs are in the order of strings, and the npm package misses dirty keys above U+FFFF."""
    for name in SERVERS:
        store = unpack(name)
        assert store.answers["cid"] == int(name.rpartition("-")[2]) == len(store.log)
        assert any(key.startswith("\U0001f600") for key, _ in store.items)
    client = unpack("client").answers
    assert any(row["key"].startswith("!\U0001f600") for row in client["all"])
    assert not any(change[0].startswith("\U0001f600") for change in client["dirty"])


def test_a_client_store_opens_unaltered(unpack: Any, engine: str) -> None:
    store = unpack("client")
    before = store.raw()
    dirty = [row["value"] for row in store.answers["all"] if row["key"].startswith("!") and row["key"] != "!"]
    with blocking.Level(store.path, backend=engine, mode=Level.CLIENT) as client:
        assert client.cid == store.answers["cid"]
        assert client.query() == [(key, value) for key, value in store.items if not key.startswith("!")]
        assert client.dirty(limit=None) == dirty
        assert len(dirty) > len(store.answers["dirty"]), "the npm package misses keys above U+FFFF"
    after = store.raw()
    assert {key: after[key] for key in before} == before


def test_a_server_store_with_five_changes_opens_unaltered(unpack: Any, engine: str) -> None:
    store = unpack("server-5")
    with blocking.Level(store.path, backend=engine, mode=Level.SERVER) as server:
        check_server(server, store)
        server.put("new", 1)
        assert server.cid == 6


@pytest.mark.parametrize("name", ["server-150", "server-20000"])
def test_a_longer_log_is_refused_then_upgraded(unpack: Any, engine: str, name: str) -> None:
    store = unpack(name)
    before = store.raw()
    for mode, error in ((Level.SERVER, StateError), (Level.CLIENT, ModeMismatchError)):
        with pytest.raises(error), blocking.Level(store.path, backend=engine, mode=mode):
            pass
    assert store.raw() == before

    assert blocking.upgrade(store.path, backend=engine) == store.answers["cid"] - 9
    assert blocking.upgrade(store.path, backend=engine) == 0
    with blocking.Level(store.path, backend=engine, mode=Level.SERVER) as server:
        check_server(server, store)


def test_a_client_and_a_server_of_the_npm_package_synchronise(unpack: Any, engine: str) -> None:
    client_store, server_store = unpack("client"), unpack("server-150")
    blocking.upgrade(server_store.path, backend=engine)
    with (
        blocking.Level(server_store.path, backend=engine, mode=Level.SERVER) as server,
        blocking.Level(client_store.path, backend=engine, mode=Level.CLIENT) as client,
    ):
        client.sync(server)
        assert client.cid == server.cid
        assert client.pending() == 0
        assert {key for key, _ in server.query()} >= {"\U0001f600 102", "\U0001f600 106", "\U0001f600 110"}


# ------------------------------------------------------------------------ upgrades that are cut off


def upgrade_crashes(disk: CrashingDisk, write: int, *, before: bool) -> bool:
    """Upgrade with a power failure at a write. True if the upgrade had such a write."""
    disk.crash_at(write, before=before, power=True)
    try:
        blocking.upgrade("server", backend=disk)
    except CrashError:
        return True
    return False


def finish_upgrade(disk: CrashingDisk, store: Store) -> None:
    """Upgrade once more, without a failure, and check the whole store."""
    assert not upgrade_crashes(disk, 0, before=False)
    with blocking.Level("server", backend=disk, mode=Level.SERVER) as server:
        check_server(server, store)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("before", [True, False], ids=["before it", "after it"])
def test_an_upgrade_that_crashes_at_any_write_is_finished_by_the_next(unpack: Any, before: bool, seed: int) -> None:
    store = unpack("server-150")
    rows = store.raw()
    disk = CrashingDisk(seed=seed)
    for write in (1, 2):  # the only batch, and the mark of completion
        disk.restore("server", rows)
        assert upgrade_crashes(disk, write, before=before)
        finish_upgrade(disk, store)
    disk.restore("server", rows)
    assert not upgrade_crashes(disk, 3, before=before)


def test_an_upgrade_that_crashes_at_every_write_is_finished_in_the_end(unpack: Any) -> None:
    store = unpack("server-20000")
    disk = CrashingDisk()
    disk.restore("server", store.raw())
    steps = 0
    while upgrade_crashes(disk, 1, before=True):
        assert upgrade_crashes(disk, 1, before=False)
        disk.flush()
        steps += 1
        if steps == 21:  # twenty batches of a thousand changes, and the mark of completion
            break
    finish_upgrade(disk, store)
    assert steps == 21


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("kills", [[0], [1, 3, 6], [8, 4, 1, 0, 1]], ids=str)
def test_an_upgrade_that_is_killed_is_finished_by_the_next(unpack: Any, engine: str, kills: list[int]) -> None:
    store = unpack("server-20000")
    for batches in kills:
        command = [sys.executable, "-c", UPGRADE, str(store.path), engine]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for _ in range(batches):
                assert process.stdout.readline()
                process.stdin.write("go on\n")
            process.kill()  # during the next batch, or shortly after it
    blocking.upgrade(store.path, backend=engine)
    with blocking.Level(store.path, backend=engine, mode=Level.SERVER) as server:
        check_server(server, store)


def test_an_upgrade_that_loses_a_change_is_found(unpack: Any) -> None:
    """The control: an upgrade that deletes a change before it has written its copy."""
    store = unpack("server-150")
    rows = store.raw()
    disk = CrashingDisk()
    disk.restore("server", {key: value for key, value in rows.items() if key != b"!77"})
    blocking.upgrade("server", backend=disk)
    with (
        blocking.Level("server", backend=disk, mode=Level.SERVER) as server,
        pytest.raises(AssertionError),
    ):
        check_server(server, store)
