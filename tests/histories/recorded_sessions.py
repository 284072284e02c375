"""Sessions that make random calls of the public API, and record them.

All values are lists of an id and padding. The keys are few, so that sessions meet.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from treehub_level import MISSING, Delete, Put, SyncError, SyncReport, TransportError, blocking
from treehub_level.http.blocking import RemoteServer

from .history import Recorder

PREFIXES: Final = ("a/", "b/", "c/", "d/")
_KEYS_OF_PREFIX: Final = 12
KEYS: Final = tuple(f"{prefix}{number}" for prefix in PREFIXES for number in range(_KEYS_OF_PREFIX))
#: Keys that are written together. Batches that share a dirty key become one group: as they are of
#: one of these sets, a group has at most `GROUP_KEYS` changes.
_SETS: Final = tuple(KEYS[number::6] for number in range(6))
GROUP_KEYS: Final = len(_SETS[0])
#: The ranges that a client follows which does not follow everything: always, and now and then.
_FOLLOWED: Final = ("a/", "b/")
_VISITED: Final = ("c/", "d/")

_DELETED: Final = 0.08
_GROUPED: Final = 0.35
_MAX_GROUP: Final = 5
_PADDING: Final = 300
#: Seconds after which a server that does not respond counts as failed.
_TIMEOUT: Final = 1.5
#: Seconds between the attempts to synchronise at the end.
_RETRY: Final = 0.1


class Session:
    """A session, which calls one operation after another.

    Args:
        name: The name, which begins the ids of its values.
        recorder: Records the operations.
        remote: The server.
        rng: Selects the operations.
        pace: The mean of the seconds between two operations.
    """

    def __init__(self, name: str, recorder: Recorder, remote: RemoteServer, rng: random.Random, pace: float) -> None:
        self.name = name
        self.recorder = recorder
        self.remote = remote
        self.rng = rng
        self._pace = pace

    def run(self, stop: threading.Event) -> None:
        """Call operations until ``stop`` is set, and then those that end the session."""
        while not stop.is_set():
            self.step()
            stop.wait(self.rng.uniform(0, 2 * self._pace))
        self.finish()

    def step(self) -> None:
        """Call a random operation."""
        raise NotImplementedError

    def finish(self) -> None:
        """Call the operations at the end of the session."""
        raise NotImplementedError

    def value(self) -> list[str]:
        """Return the value of the next write."""
        return [self.recorder.next_id(self.name), "x" * self.rng.randrange(_PADDING)]

    def random_writes(self, count: int) -> dict[str, Any]:
        """Return values for so many random keys of one set; `MISSING` for a delete."""
        value = self.value()
        # The first sets are chosen more often than the others, so that sessions meet there.
        keys = self.rng.sample(_SETS[int(len(_SETS) * self.rng.random() ** 2)], count)
        return {key: MISSING if self.rng.random() < _DELETED else value for key in keys}


class DirectSession(Session):
    """A session without a store: each operation is a request to the server."""

    def step(self) -> None:
        """Call a random operation."""
        if self.rng.random() < 0.4:
            self._write()
        elif self.rng.random() < 0.5:
            key = self.rng.choice(KEYS)
            self._read([key], lambda: [(key, self.remote.get(key, MISSING))])
        else:
            prefix = self.rng.choice(PREFIXES)
            self._read([key for key in KEYS if key.startswith(prefix)], lambda: self.remote.query(prefix=prefix))

    def finish(self) -> None:
        """Read all keys once more."""
        self._read(KEYS, self.remote.query)

    def _write(self) -> None:
        ((key, value),) = self.random_writes(1).items()
        number = self.recorder.begin("write", writes={key: id_of(value)})
        try:
            if value is MISSING:
                self.remote.delete(key)
            else:
                self.remote.put(key, value)
        except TransportError:
            self.recorder.end(number, "unknown")
        else:
            self.recorder.end(number)

    def _read(self, keys: Sequence[str], read: Callable[[], list[tuple[str, Any]]]) -> None:
        number = self.recorder.begin("read")
        try:
            found = dict(read())
        except TransportError:
            self.recorder.end(number, "failed")
        else:
            self.recorder.end(number, reads={key: id_of(found.get(key, MISSING)) for key in keys})


class StoreSession(Session):
    """A session with a client store.

    Args:
        name: See `Session`.
        recorder: See `Session`.
        remote: See `Session`.
        rng: See `Session`.
        pace: See `Session`.
        level: The store.
        follows_all: True if the store follows all keys.
        live: The live session of the store; ``None`` if it calls ``sync()``.
    """

    def __init__(
        self,
        name: str,
        recorder: Recorder,
        remote: RemoteServer,
        rng: random.Random,
        pace: float,
        *,
        level: blocking.Level,
        follows_all: bool,
        live: Any = None,
    ) -> None:
        super().__init__(name, recorder, remote, rng, pace)
        self._level = level
        self._follows_all = follows_all
        self._live = live

    def step(self) -> None:
        """Call a random operation."""
        choice = self.rng.random()
        if choice < 0.55:
            self._write()
        elif choice < 0.8:
            self._read()
        elif self._live is not None:
            if choice > 0.98:
                self._wait_until_in_sync()
        elif choice < 0.97 or self._follows_all:
            self._sync()
        else:
            self._change_ranges()

    def finish(self) -> None:
        """Synchronise until nothing is left, and record the journal."""
        while not self._sync():
            threading.Event().wait(_RETRY)
        number = self.recorder.begin("journal")
        conflicts = self._level.conflicts()
        self.recorder.end(number, lost=[(it.key, id_of(it.local.value)) for it in conflicts])

    # ----------------------------------------------------------------------------------- operations

    def _write(self) -> None:
        writes = self.random_writes(self.rng.randint(2, _MAX_GROUP) if self.rng.random() < _GROUPED else 1)
        keys, followed = [*writes], self._level.followed()
        number = self.recorder.begin(
            "write",
            writes={key: id_of(value) for key, value in writes.items()},
            reads=dict(zip(keys, map(id_of, self._level.get_many(keys, MISSING)), strict=True)),
            followed=[key for key in keys if any(it.complete and key.startswith(it.prefix) for it in followed)],
        )
        if len(writes) > 1:
            self._level.batch([Delete(key) if it is MISSING else Put(key, it) for key, it in writes.items()])
        elif writes[keys[0]] is MISSING:
            self._level.delete(keys[0])
        else:
            self._level.put(keys[0], writes[keys[0]])
        # Only a live session changes the store between the read and the write.
        self.recorder.end(number, cid=None if self._live is None else self._level.cid)

    def _read(self, report: SyncReport | None = None) -> None:
        """Read a snapshot of some ranges.

        Args:
            report: The report of the synchronisation that has just ended.
        """
        number = self.recorder.begin("read")
        followed = self._level.followed()
        with self._level.snapshot() as snapshot:
            ranges = [prefix for prefix in PREFIXES if any(prefix.startswith(it.prefix) for it in followed)]
            chosen = ranges if report is not None else self.rng.sample(ranges, self.rng.randint(1, len(ranges)))
            keys = [key for key in KEYS if key.startswith(tuple(chosen))]
            found = {key: id_of(value) for prefix in chosen for key, value in snapshot.query(prefix=prefix)}
            dirty = snapshot.get_many([f"!{key}" for key in keys], MISSING)
            cid = snapshot.get("!")
        is_whole = followed == self._level.followed() and all(
            any(it.complete and prefix.startswith(it.prefix) for it in followed) for prefix in chosen
        )
        is_consistent = report is not None and report.consistent
        self.recorder.end(
            number,
            reads={key: found.get(key) for key in keys},
            cid=report.cid if report is not None and is_consistent else cid,
            dirty=[key for key, record in zip(keys, dirty, strict=True) if record is not MISSING],
            is_whole=is_whole or is_consistent,
            is_consistent=is_consistent,
        )

    def _sync(self) -> bool:
        """Synchronise, with reads after some exchanges, and read if it succeeded."""
        number = self.recorder.begin("sync")
        try:
            report = self._level.sync(self.remote, progress=self._read_sometimes)
        except SyncError:
            self.recorder.end(number, "failed")
            return False
        self.recorder.end(number)
        if self._live is None:
            self._read(report)
        return True

    def _read_sometimes(self, _: SyncReport) -> None:
        if self.rng.random() < 0.5:
            self._read()

    def _wait_until_in_sync(self) -> None:
        number = self.recorder.begin("sync")
        try:
            self._live.in_sync(within=2)
        except (SyncError, TimeoutError):
            self.recorder.end(number, "failed")
        else:
            self.recorder.end(number)

    def _change_ranges(self) -> None:
        """Follow a further range, or follow it no more.

        A change of a key that is not followed, or not any more, overwrites changes that the client
        has not seen: see docs/reliability.md. So the client is drained first.
        """
        prefix = self.rng.choice(_VISITED)
        if any(it.prefix == prefix for it in self._level.followed()):
            if not self._level.pending():
                self._level.unfollow(prefix)
        else:
            self._level.follow(prefix)


def id_of(value: Any) -> str | None:
    """Return the id of a value; ``None`` for an absent one."""
    return None if value is MISSING or value is None else str(value[0])


@contextmanager
def open_session(
    style: str, name: str, url: str, stores: Path, histories: Path, *, seed: str, pace: float
) -> Iterator[Session]:
    """Open a session.

    Args:
        style: ``direct``: without a store. ``sync``: a store that follows everything and calls
            ``sync()``. ``ranges``: one that follows some ranges. ``live``: one in a live session.
        name: The name.
        url: The URL of the server.
        stores: The folder of the clients' stores.
        histories: The folder of the histories.
        seed: Seeds the random operations.
        pace: The mean of the seconds between two operations.
    """
    rng = random.Random(seed)
    with ExitStack() as stack:
        remote = stack.enter_context(RemoteServer(url, timeout=_TIMEOUT, retries=1))
        recorder = Recorder(histories, name, "direct" if style == "direct" else "store")
        stack.callback(recorder.close)
        if style == "direct":
            yield DirectSession(name, recorder, remote, rng, pace)
            return
        path = stores / name
        follow = _FOLLOWED if style == "ranges" and not path.exists() else None
        level = stack.enter_context(blocking.Level(path, mode=blocking.Level.CLIENT, follow=follow))
        live = stack.enter_context(level.live(remote, interval=0.2)) if style == "live" else None
        yield StoreSession(name, recorder, remote, rng, pace, level=level, follows_all=style != "ranges", live=live)
