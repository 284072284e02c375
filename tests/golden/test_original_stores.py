"""Stores that the original has written itself, on leveldown: see ``original/make.mjs``. Its answers lie beside them."""

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

ORIGINAL = Path(__file__).with_name("original")
SERVERS = ["server-5", "server-150", "server-20000"]

#: Upgrades a store; after each batch it says so, and waits for a word.
UPGRADE = """
import sys
from treehub_level import blocking
blocking.upgrade(sys.argv[1], backend=sys.argv[2], progress=lambda count: print(count, flush=True) or input())
"""


class Store:
    """A store of the original.

    Attributes:
        path: Where it lies.
        answers: What the original said of it: ``cid``, ``items``, ``all`` of its rows; and ``dirty`` of a client.
    """

    def __init__(self, name: str, folder: Path) -> None:
        with tarfile.open(ORIGINAL / f"{name}.tar.xz") as packed:
            packed.extractall(folder / name, filter="data")
        self.path = folder / name / "store"
        self.answers = json.loads((folder / name / "answers.json").read_bytes())

    @property
    def items(self) -> list[tuple[str, Any]]:
        """Keys and values, in the order of their bytes."""
        return [(row["key"], row["value"]) for row in self.answers["items"]]

    @property
    def log(self) -> list[Any]:
        """The changes that the original's log holds, in the order in which they happened."""
        rows = {row["key"]: row["value"] for row in self.answers["all"]}
        return [rows[f"!{cid}"] for cid in range(1, self.answers["cid"] + 1)]

    def raw(self) -> dict[bytes, bytes]:
        """Its rows as they lie there."""
        with plyvel().DB(str(self.path)) as db:
            return dict(db)


@pytest.fixture
def original(tmp_path: Path) -> Any:
    """Unpacks a store."""
    return lambda name: Store(name, tmp_path)


def check_server(level: blocking.Level, store: Store) -> None:
    """Fail unless a server holds what the original's log says, change by change."""
    assert level.cid == store.answers["cid"]
    assert level.query() == store.items
    page = level.changes(0, limit=None)
    assert page.changes == store.log
    assert [change.cid for change in page.changes] == [*range(1, level.cid + 1)]


def test_the_stores_hold_what_has_to_be_upgraded(original: Any) -> None:
    """Their logs are in the order of strings, and there are keys above U+FFFF, among which the original finds none."""
    for name in SERVERS:
        store = original(name)
        assert store.answers["cid"] == int(name.rpartition("-")[2]) == len(store.log)
        assert any(key.startswith("\U0001f600") for key, _ in store.items)
    client = original("client").answers
    assert any(row["key"].startswith("!\U0001f600") for row in client["all"])
    assert not any(change[0].startswith("\U0001f600") for change in client["dirty"])


def test_a_client_opens_as_it_is(original: Any, engine: str) -> None:
    store = original("client")
    before = store.raw()
    dirty = [row["value"] for row in store.answers["all"] if row["key"].startswith("!") and row["key"] != "!"]
    with blocking.Level(store.path, backend=engine, mode=Level.CLIENT) as client:
        assert client.cid == store.answers["cid"]
        assert client.query() == [(key, value) for key, value in store.items if not key.startswith("!")]
        assert client.dirty(limit=None) == dirty
        assert len(dirty) > len(store.answers["dirty"]), "the original leaves keys above U+FFFF behind"
    after = store.raw()
    assert {key: after[key] for key in before} == before


def test_a_server_of_five_changes_opens_as_it_is(original: Any, engine: str) -> None:
    store = original("server-5")
    with blocking.Level(store.path, backend=engine, mode=Level.SERVER) as server:
        check_server(server, store)
        server.put("new", 1)
        assert server.cid == 6


@pytest.mark.parametrize("name", ["server-150", "server-20000"])
def test_a_longer_log_is_refused_then_upgraded(original: Any, engine: str, name: str) -> None:
    store = original(name)
    before = store.raw()
    for mode, error in ((Level.SERVER, StateError), (Level.CLIENT, ModeMismatchError)):
        with pytest.raises(error), blocking.Level(store.path, backend=engine, mode=mode):
            pass
    assert store.raw() == before

    assert blocking.upgrade(store.path, backend=engine) == store.answers["cid"] - 9
    assert blocking.upgrade(store.path, backend=engine) == 0
    with blocking.Level(store.path, backend=engine, mode=Level.SERVER) as server:
        check_server(server, store)


def test_a_client_and_a_server_of_the_original_synchronise(original: Any, engine: str) -> None:
    ours, theirs = original("client"), original("server-150")
    blocking.upgrade(theirs.path, backend=engine)
    with (
        blocking.Level(theirs.path, backend=engine, mode=Level.SERVER) as server,
        blocking.Level(ours.path, backend=engine, mode=Level.CLIENT) as client,
    ):
        client.sync(server)
        assert client.cid == server.cid
        assert client.pending() == 0
        assert {key for key, _ in server.query()} >= {"\U0001f600 102", "\U0001f600 106", "\U0001f600 110"}


# ---------------------------------------------------------------------------------- upgrades that are cut off


def died(disk: CrashingDisk, write: int, *, before: bool) -> bool:
    """Let an upgrade die at a write, and the power fail with it. Whether it had such a write."""
    disk.crash_at(write, before=before, power=True)
    try:
        blocking.upgrade("server", backend=disk)
    except CrashError:
        return True
    return False


def finished(disk: CrashingDisk, store: Store) -> None:
    """Upgrade once more, undisturbed, and check all there is."""
    assert not died(disk, 0, before=False)
    with blocking.Level("server", backend=disk, mode=Level.SERVER) as server:
        check_server(server, store)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("before", [True, False], ids=["before it", "after it"])
def test_an_upgrade_that_dies_at_any_write_is_finished_by_the_next(original: Any, before: bool, seed: int) -> None:
    store = original("server-150")
    rows = store.raw()
    disk = CrashingDisk(seed=seed)
    for write in (1, 2):  # the only batch, and the mark that all of it is on disk
        disk.restore("server", rows)
        assert died(disk, write, before=before)
        finished(disk, store)
    disk.restore("server", rows)
    assert not died(disk, 3, before=before)


def test_an_upgrade_that_dies_at_every_write_is_finished_at_last(original: Any) -> None:
    store = original("server-20000")
    disk = CrashingDisk()
    disk.restore("server", store.raw())
    steps = 0
    while died(disk, 1, before=True):
        assert died(disk, 1, before=False)
        disk.flush()
        steps += 1
        if steps == 21:  # twenty batches of a thousand changes, and the mark
            break
    finished(disk, store)
    assert steps == 21


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("kills", [[0], [1, 3, 6], [8, 4, 1, 0, 1]], ids=str)
def test_an_upgrade_that_is_killed_is_finished_by_the_next(original: Any, engine: str, kills: list[int]) -> None:
    store = original("server-20000")
    for batches in kills:
        command = [sys.executable, "-c", UPGRADE, str(store.path), engine]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for _ in range(batches):
                assert process.stdout.readline()
                process.stdin.write("go on\n")
            process.kill()  # in the middle of the next batch, or a little later
    blocking.upgrade(store.path, backend=engine)
    with blocking.Level(store.path, backend=engine, mode=Level.SERVER) as server:
        check_server(server, store)


def test_an_upgrade_that_loses_a_batch_is_noticed(original: Any) -> None:
    """The control: an upgrade that deletes a change before it has written it elsewhere."""
    store = original("server-150")
    rows = store.raw()
    disk = CrashingDisk()
    disk.restore("server", {key: value for key, value in rows.items() if key != b"!77"})
    blocking.upgrade("server", backend=disk)
    with (
        blocking.Level("server", backend=disk, mode=Level.SERVER) as server,
        pytest.raises(AssertionError),
    ):
        check_server(server, store)
