"""The thread that keeps the log of an open server small: see `Retention`."""

from __future__ import annotations

import logging
import random
from weakref import ref

from ..engine.retention import Retention, seconds_of
from ..engine.store import Store
from ..errors import LevelError, NotOpenError
from ..locks import WakeUp, start_thread
from ..replication.retention import run_retention

#: Seconds from the opening to the first run, unless ``every`` is shorter.
_FIRST_AFTER = 60.0
#: The part by which a pause is longer or shorter, at random.
_JITTER = 0.1

logger = logging.getLogger("treehub_level.retention")


class _StoppedError(Exception):
    """The level closes."""


class RetentionThread:
    """Runs retention on an open store, again and again, until it is stopped.

    It keeps the store only during a run, so that a level that was not closed can be collected.

    Args:
        store: The store, open.
        retention: The retention.
    """

    def __init__(self, store: Store, retention: Retention) -> None:
        self._store = ref(store)
        self._retention = retention
        self._stopped = WakeUp()
        self._error: str | None = None
        start_thread("treehub-level-retention", self._run)

    def stop(self) -> None:
        """End the thread after its present step. It does not wait for it."""
        self._stopped.set()

    def _run(self) -> None:
        every = seconds_of(self._retention.every)
        seconds = min(every, _FIRST_AFTER)
        while not self._stopped.wait(seconds * random.uniform(1 - _JITTER, 1 + _JITTER)):
            store = self._store()
            if store is None or not self._run_once(store):
                return
            del store
            seconds = every

    def _run_once(self, store: Store) -> bool:
        """Run retention once. Return False at the end of the level."""
        try:
            run_retention(store, self._retention, self._pause)
        except (_StoppedError, NotOpenError):
            return False
        except LevelError as error:
            if error.code != self._error:
                logger.error("compaction of %s failed, and is tried again: %s", store.backend.name, error.code)
            self._error = error.code
        else:
            self._error = None
        return True

    def _pause(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise _StoppedError
