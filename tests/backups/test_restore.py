"""``restore``: nothing is replaced, and the store goes on as the one that was backed up."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from treehub_level import (
    Change,
    CorruptionError,
    Level,
    LockedError,
    StateError,
    TransportError,
    blocking,
    restore,
)

from .test_backup import ENGINE, filled


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def client(opened: ExitStack, name: str) -> blocking.Level:
    """Return an open client in memory."""
    return opened.enter_context(blocking.Level(name, backend="memory", mode=Level.CLIENT))


def entries(*levels: blocking.Level) -> list[dict[str, object]]:
    """Return the data of each level."""
    return [dict(level.items()) for level in levels]


# --------------------------------------------------------------------------- servers that come back


@pytest.mark.parametrize("engine", [ENGINE, "sqlite"])
def test_clients_that_are_ahead_of_a_restored_server_lose_no_new_key(
    engine: str, opened: ExitStack, tmp_path: Path
) -> None:
    ahead, follower, behind = (client(opened, name) for name in ("ahead", "follower", "behind"))
    with blocking.Level(tmp_path / "server", backend=engine, mode=Level.SERVER) as server:
        ahead.put("kept", 1)
        ahead.put("deleted later", 1)
        for level in (ahead, follower, behind):
            level.sync(server)
        server.backup(tmp_path / "backup")
        ahead.put("after the backup", 2)
        ahead.delete("deleted later")
        ahead.sync(server)
        follower.sync(server)
        follower.put("not pushed", 3)
        behind.put("not pushed either", 4)
    restore(tmp_path / "backup", tmp_path / "restored", backend=engine)
    with blocking.Level(tmp_path / "restored", backend=engine, mode=Level.SERVER) as server:
        reports = [level.sync(server) for level in (ahead, follower, behind)]
        # A client that has seen nothing after the backup goes on without a reset.
        assert [report.reset for report in reports] == [True, True, False]
        for level in (ahead, follower):
            [lost] = level.conflicts()
            assert (lost.kind, lost.local, lost.remote) == ("reset", Change("after the backup", 2), None)
        ahead.restore(*ahead.conflicts())
        for _ in range(2):
            for level in (ahead, follower, behind):
                level.sync(server)
        wanted = {
            "after the backup": 2,
            "deleted later": 1,  # the delete was after the backup, and is gone with it
            "kept": 1,
            "not pushed": 3,
            "not pushed either": 4,
        }
        assert entries(server, ahead, follower, behind) == [wanted] * 4
        assert blocking.verify(tmp_path / "server", backend=engine).ok


def test_a_push_that_the_backup_lacks_is_pushed_again(opened: ExitStack, tmp_path: Path) -> None:
    """The reply to the push was lost, so the client has it as frozen."""
    lost_reply = client(opened, "client")
    with blocking.Level(tmp_path / "server", backend=ENGINE, mode=Level.SERVER) as server:
        lost_reply.put("first", 1)
        lost_reply.sync(server)
        server.backup(tmp_path / "backup")
        lost_reply.put("second", 2)

        class Deaf:
            """Loses the reply to the push."""

            def exchange(self, request: dict[str, object], *, wait: float = 0) -> dict[str, object]:
                server.exchange(request)
                raise ConnectionError("the reply is lost")

        with pytest.raises(TransportError):
            lost_reply.sync(Deaf())
        assert server.get("second") == 2
    restore(tmp_path / "backup", tmp_path / "restored", backend=ENGINE)
    with blocking.Level(tmp_path / "restored", backend=ENGINE, mode=Level.SERVER) as server:
        lost_reply.sync(server)
        assert entries(server, lost_reply) == [{"first": 1, "second": 2}] * 2
        assert not lost_reply.conflicts()


# --------------------------------------------------------------------------- clients that come back


@pytest.mark.parametrize("first", ["original", "restored"])
def test_a_restored_client_beside_its_original_loses_nothing(first: str, opened: ExitStack, tmp_path: Path) -> None:
    server = opened.enter_context(blocking.Level("server", backend="memory", mode=Level.SERVER))
    original = opened.enter_context(blocking.Level(tmp_path / "client", backend=ENGINE, mode=Level.CLIENT))
    original.put("pushed before", 1)
    original.sync(server)
    original.put("dirty in the backup", 2)
    original.backup(tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "restored", backend=ENGINE)
    restored = opened.enter_context(blocking.Level(tmp_path / "restored", backend=ENGINE, mode=Level.CLIENT))
    assert restored.info()["store"] == original.info()["store"]
    original.put("of the original", 3)
    restored.put("of the restored one", 4)
    order = [original, restored] if first == "original" else [restored, original]
    for number in range(3):
        for level in order:
            level.put(f"round {number} of {level.name}", number)
            level.sync(server)
    for level in order:
        level.sync(server)
    data = entries(server, original, restored)
    assert data[0] == data[1] == data[2]
    wanted = {"pushed before": 1, "dirty in the backup": 2, "of the original": 3, "of the restored one": 4}
    assert wanted.items() <= data[0].items()
    assert len(data[0]) == len(wanted) + 6


# ----------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("backend", [ENGINE, "sqlite"])
def test_nothing_is_restored_over_anything(backend: str, tmp_path: Path) -> None:
    with filled(tmp_path / "store", backend=backend) as level:
        level.backup(tmp_path / "backup")
        with pytest.raises((LockedError, StateError), match=r"is open|nothing is restored over it"):
            restore(tmp_path / "backup", tmp_path / "store", backend=backend)
        level.put("still writable", 1)
    restore(tmp_path / "backup", tmp_path / "restored", backend=backend)
    with blocking.Level(tmp_path / "restored", backend=backend, mode=Level.SERVER) as restored:
        restored.put("written since", 1)
    for name in ("store", "restored", "backup"):
        with pytest.raises(StateError, match="nothing is restored over it"):
            restore(tmp_path / "backup", tmp_path / name, backend=backend)
    with blocking.Level(tmp_path / "restored", backend=backend, mode=Level.SERVER) as restored:
        assert restored["written since"] == 1
    (tmp_path / "empty").mkdir()
    if backend == ENGINE:
        restore(tmp_path / "backup", tmp_path / "empty", backend=backend)
    else:
        (tmp_path / "gone-wal").write_bytes(b"the log of another store")
        for name in ("empty", "gone"):
            with pytest.raises(StateError, match="nothing is restored over it"):
                restore(tmp_path / "backup", tmp_path / name, backend=backend)


def test_only_a_backup_is_restored(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("no backup")
    for name, message in [
        ("absent", "there is no backup"),
        ("folder", "is no backup"),
        ("file", "damaged|not an SQLite"),
    ]:
        with pytest.raises((StateError, CorruptionError), match=message):
            restore(tmp_path / name, tmp_path / "restored", backend="sqlite")
    assert not (tmp_path / "restored").exists()


def test_a_restored_store_shares_no_file_with_its_backup(tmp_path: Path) -> None:
    with filled(tmp_path / "store") as level:
        level.backup(tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "restored", backend=ENGINE)
    assert all(file.stat().st_nlink == 1 for file in (tmp_path / "restored").iterdir())


# -------------------------------------------------------------------------------------- interrupted


def run_and_die(verb: str, engine: str, source: Path, target: Path, at: int) -> bool:
    """Back up or restore in a forked process, which kills itself at a system call. True if it did.

    Args:
        verb: "backup" or "restore".
        engine: The backend of both stores.
        source: The store to back up, or the backup.
        target: The backup, or the new store.
        at: The number of the call that changes a file, at which to die.
    """
    child = os.fork()
    if child == 0:
        calls = itertools.count(1)

        def mortal(function: Callable[..., object]) -> Callable[..., object]:
            def call(*arguments: object, **options: object) -> object:
                if next(calls) == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return call

        level = blocking.Level(source, backend=engine, mode=Level.SERVER, read_only=True)
        if verb == "backup":
            level.open()
        for name in ("mkdir", "fsync", "replace", "rename", "link", "unlink", "rmdir", "utime"):
            setattr(os, name, mortal(getattr(os, name)))
        with suppress(BaseException):
            level.backup(target) if verb == "backup" else restore(source, target, backend=engine)
        os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("verb", ["backup", "restore"])
@pytest.mark.parametrize("backend", [ENGINE, "sqlite"])
def test_a_kill_at_any_step_leaves_nothing_or_a_complete_store(verb: str, backend: str, tmp_path: Path) -> None:
    with filled(tmp_path / "source", backend=backend) as level:
        level.put("last", 1)
    target, incomplete = tmp_path / "target", 0
    for at in itertools.count(1, 1 if backend == "sqlite" else 3):
        killed = run_and_die(verb, backend, tmp_path / "source", target, at)
        if target.exists():
            break
        assert killed, "it has ended without a result"
        incomplete += 1
        with pytest.raises(StateError, match=r"not complete|no backup"):
            restore(target, tmp_path / "copy", backend=backend)
    assert incomplete > 3
    assert blocking.verify(target, backend=backend).ok
    with blocking.Level(target, backend=backend, mode=Level.SERVER, read_only=True) as complete:
        assert complete["last"] == 1
        assert complete.count() == 1001
