"""The calls to interrupt, and the checks afterwards."""

from __future__ import annotations

import gc
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final

from treehub_level import Level, LockedError, Put, blocking
from treehub_level.backends.sqlite.sync_lock import FileSyncLock

#: Seconds after which a call counts as hanging.
PATIENCE: Final = 30.0

#: The name of a backend, or a function that makes one.
Backend = str | Callable[..., Any]


def check_sync_lock_is_free(name: str) -> None:
    """Fail if an interrupted call has left an SQLite store to this process: others would wait.

    Args:
        name: The path of the store.
    """
    with FileSyncLock(name, "sync") as lock:
        for _ in range(100):
            with suppress(LockedError):
                lock.acquire()
                return
            # A task of a closed event loop ends with its job, and is part of a cycle.
            time.sleep(0.02)
            gc.collect()
        lock.acquire()


class OtherThread:
    """A thread that no signal interrupts. It makes the checks, so that a hang is seen."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def run(self, call: Callable[[], Any]) -> Any:
        """Make a call, and return its result. It must end within `PATIENCE` seconds."""
        result: Future[Any] = Future()
        self._calls.put((result, call))
        try:
            return result.result(PATIENCE)
        except TimeoutError as error:
            raise AssertionError(f"after the interrupt, {call} hangs in another thread") from error

    def end(self) -> None:
        """End the thread."""
        self._calls.put(None)

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            result, call = item
            try:
                result.set_result(call())
            except BaseException as error:
                result.set_exception(error)
            del item, result, call


class BlockingBench:
    """A client and its server, with the blocking API.

    Args:
        backend: The backend of both.
        folder: The beginning of their names.
    """

    def __init__(self, backend: Backend, folder: str) -> None:
        self.server = blocking.Level(f"{folder}server", backend=backend, mode=Level.SERVER)
        self.client = blocking.Level(f"{folder}client", backend=backend, mode=Level.CLIENT)
        self._sqlite_client = f"{folder}client" if backend == "sqlite" else None
        self._other = OtherThread()
        self._n = 0
        self._put = [f"k{n:03}" for n in range(40)]

    def __enter__(self) -> BlockingBench:
        for level in (self.server, self.client):
            level.open()
            level.put("first", 1)  # starts an epoch
        self.server.load((key, 0) for key in self._put)
        self.client.sync(self.server)
        return self

    def __exit__(self, *exception: object) -> None:
        for level in (self.client, self.server):
            if level._store.needs_close:
                self._other.run(level.close)
        self._other.end()

    # ----------------------------------------------------------------------- the calls to interrupt

    def put(self) -> None:
        self._n += 1
        self.server.put("k", self._n)

    def put_durable(self) -> None:
        self._n += 1
        self.client.put("k", self._n, durable=True)

    def get(self) -> None:
        assert self.server.get("k001") == 0

    def batch(self) -> None:
        value = self._n = self._n + 1
        self.server.batch([Put(f"b{n}", value) for n in range(5)])

    def query(self) -> None:
        assert len(self.server.query(prefix="k0", filter=lambda key, value: True)) == 40

    def scan(self) -> None:
        assert sum(1 for _ in self.server.scan(prefix="k0")) == 40

    def snapshot(self) -> None:
        with self.server.snapshot() as snapshot:
            snapshot.count()

    def clear(self) -> None:
        self.server.clear(prefix="b")

    def changes(self) -> None:
        self.server.changes(self.server.cid, wait=0.001)

    def sync(self) -> None:
        self.client.put("mine", self._n)
        self.client.sync(self.server)

    def info(self) -> None:
        self.server.info()

    def reopen(self) -> None:
        for done in (self.server.close, self.server.open):
            done()

    # ------------------------------------------------------------------------------------ the check

    def check(self) -> None:
        """Fail unless both levels work, here and in another thread, and agree with their disks."""
        level = self.server
        if not level.is_open:  # `reopen` was interrupted
            if level._store.needs_close:
                self._other.run(level.close)
            level.open()
        self._n += 1
        n = self._n
        if self._sqlite_client is not None:
            check_sync_lock_is_free(self._sqlite_client)
        self._other.run(lambda: self._use_both(n))
        level.put("own", n)
        assert (level.get("other"), level.get("own"), self.client.get("other")) == (n, n, n)
        info = level.info()
        assert (info["snapshots"], info["cursors"]) == (0, 0), info
        assert len({level.get(f"b{n}") for n in range(5)}) == 1 or level.get("b4") is None, "half a batch"
        self._other.run(lambda: self._check_cid(level))

    def _use_both(self, n: int) -> None:
        for level in (self.server, self.client):
            level.put("other", n)
        self.client.sync(self.server)

    @staticmethod
    def _check_cid(level: blocking.Level) -> None:
        with level.snapshot() as snapshot:
            assert level.cid == snapshot.get("!"), f"CID {level.cid} in memory, {snapshot.get('!')} on disk"
        page = level.changes(max(0, level.cid - 5), None)
        assert [change.cid for change in page.changes] == [*range(max(0, level.cid - 5) + 1, level.cid + 1)]

    def check_closes(self) -> None:
        """Fail unless the levels close, and open with the last write."""
        n = self.server.get("own")
        self._other.run(self.server.close)
        self.server.open()
        assert self.server.get("own") == n
        self.server.put("own", n)


#: The calls, in an order that makes each find something to do.
CALLS: Final = (
    BlockingBench.put,
    BlockingBench.put_durable,
    BlockingBench.get,
    BlockingBench.batch,
    BlockingBench.query,
    BlockingBench.scan,
    BlockingBench.snapshot,
    BlockingBench.clear,
    BlockingBench.changes,
    BlockingBench.sync,
    BlockingBench.info,
    BlockingBench.reopen,
)
