"""One run of retention on a server: it compacts the log, and forgets clients that are gone.

It runs beside live traffic: each step takes the write lock for some milliseconds, and is followed
by a pause of the same length. It may end after any step; the next run goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Final, TypeVar

from ..backends.base import Entry, Reader
from ..engine import clock
from ..engine.log import Compaction
from ..engine.modes import Plan, Server, Step
from ..engine.records import Floor
from ..engine.retention import Retention, read_retention, seconds_of, span
from ..engine.sightings import (
    MAX_OF_PRINCIPAL,
    Sighting,
    read_sightings,
    sighting_entries,
    sighting_key,
)
from ..engine.store import Store
from .clients import read_decisions
from .fields import MAX_DISTANCE
from .records import decision_key, parse_decision

T = TypeVar("T")

#: Records that are written, or removed, in one step.
_STEP: Final = 1000
#: The most clients that a warning names.
_NAMED: Final = 10

logger = logging.getLogger("treehub_level.retention")


@dataclass(slots=True)
class RetentionReport:
    """The outcome of a run.

    Attributes:
        dropped: The number of changes that were dropped from the log.
        forgotten: The number of clients that were forgotten.
        starting_over: The clients that start over at their next sync, and when they were seen last.
        clients: The number of clients that are remembered.
    """

    dropped: int = 0
    forgotten: int = 0
    starting_over: list[tuple[str, Sighting]] = field(default_factory=list)
    clients: int = 0


class _Findings:
    """The state of a store at the beginning of a run, read from a snapshot.

    Attributes:
        head: The CID.
        floor: The extent of compaction.
        state: The record of retention.
        sightings: The recorded clients.
        decided: For each client with a decision record, the server's CID before its last push.
    """

    def __init__(self, mode: Server, reader: Reader, head: int) -> None:
        records = mode.records
        self.head = head
        self.floor: Floor = records.floor(reader, head)
        self.state = read_retention(reader, records, head)
        self.sightings = dict(read_sightings(reader, records, head))
        self.decided = {client: decision.ack.before for client, decision in read_decisions(reader, records, head)}


def run_retention(store: Store, retention: Retention, pause: Callable[[float], object] = time.sleep) -> RetentionReport:
    """Compact the log of a server as its retention says, and forget clients that are gone.

    Args:
        store: The store, open.
        retention: The retention.
        pause: Waits for so many seconds after each step. An error that it raises ends the run.

    Raises:
        NotOpenError, ModeError: The store is closed, or in another mode.
        StorageError, CorruptionError: The backend could not read or write.
    """
    run = _Run(store, retention, pause)
    run.note_clients()
    run.compact()
    run.forget_clients()
    return run.report


def flush_sightings(store: Store, retention: Retention) -> None:
    """Write the noted clients, before the store closes.

    Args:
        store: The store, open.
        retention: The retention, which decides on the record of its progress, too.

    Raises:
        LevelError: They cannot be written.
    """
    mode = store.server("closing")
    if mode.sightings is not None:
        _Run(store, retention, lambda _: None).note_clients()


class _Run:
    def __init__(self, store: Store, retention: Retention, pause: Callable[[float], object]) -> None:
        self._store = store
        self._retention = retention
        self._pause = pause
        self._unseen_ms = seconds_of(retention.clients_unseen_after) * 1000
        self._mode = store.server("retention")
        found = store.read_step(lambda reader, head: _Findings(self._mode, reader, head))
        self._found = found
        self._sightings = found.sightings
        self._state = found.state
        self.report = RetentionReport()

    def _step(self, step: Step[T]) -> T:
        """Run a step, and let other writers go on for as long as it took."""
        begin = time.monotonic()
        result = self._store.step(step)
        self._pause(time.monotonic() - begin)
        return result

    def _write(self, entries: Sequence[Entry]) -> None:
        for start in range(0, len(entries), _STEP):
            batch = entries[start : start + _STEP]
            self._step(lambda transaction, cid, batch=batch: Plan(None, batch))  # type: ignore[misc]

    # ------------------------------------------------------------------------------------- clients

    def note_clients(self) -> None:
        """Move the time on, and write the clients that were seen since the last run."""
        found, space = self._found, self._mode.space
        now = clock.now()
        is_first = not self._state.wall
        if now is not None:
            self._state = self._state.advanced(now, found.head, self._retention)
        seen: dict[str, Sighting] = {}
        if self._mode.sightings is not None:
            if is_first and self._mode.sightings.is_whole:
                self._state = replace(self._state, is_whole=True)
            for client, sighting in self._mode.sightings.take().items():
                # A restored store may be behind the one that was noted.
                cid, told = min(sighting.cid, found.head), min(sighting.told, found.head)
                before = self._sightings.get(client)
                if before is None or before.ms <= sighting.ms:
                    seen[client] = sighting._replace(cid=cid, told=told, elapsed=self._state.elapsed)
        for client, decided in found.decided.items():
            if client not in self._sightings and client not in seen:
                # A client that an opening without retention has seen. It was not further behind
                # when its push was judged.
                cid = max(0, decided - MAX_DISTANCE)
                seen[client] = Sighting(cid, decided, 0, self._state.elapsed, None)
        self._sightings |= seen
        surplus = self._surplus()
        for client in surplus:
            del self._sightings[client]
        entries = [self._state.to_entry(self._mode.records), *sighting_entries(space, seen.items())]
        self._write([*entries, *((sighting_key(space, client), None) for client in surplus)])
        self.report.clients = len(self._sightings)

    def _surplus(self) -> list[str]:
        """Return the clients beyond the limit of each principal, those that were seen first."""
        if len(self._sightings) <= MAX_OF_PRINCIPAL:
            return []
        surplus: list[str] = []
        by_principal = sorted(self._sightings.items(), key=lambda item: (item[1].principal or "", -item[1].elapsed))
        for _, group in groupby(by_principal, key=lambda item: item[1].principal):
            surplus += [client for client, _ in group][MAX_OF_PRINCIPAL:]
        return surplus

    def _is_gone(self, sighting: Sighting) -> bool:
        return self._state.elapsed - sighting.elapsed >= self._unseen_ms

    # ---------------------------------------------------------------------------------- compaction

    def _targets(self) -> tuple[int, int]:
        """Return the CIDs up to which superseded changes, and deletes, may go."""
        to = self._state.compact_to(self._found.head, self._retention)
        if not self._state.is_whole and self._state.elapsed < self._unseen_ms:
            return to, 0  # there may be clients that were not noted
        present = (sighting.cid for sighting in self._sightings.values() if not self._is_gone(sighting))
        return to, min((to, *present))

    def compact(self) -> None:
        """Compact the log, if enough of it is old enough."""
        to, deletes_to = self._targets()
        if not self._state.is_due(to, deletes_to):
            return
        self._warn(deletes_to)
        compaction = Compaction(
            self._mode, drop_deletes_before=deletes_to + 1, to=to, unique_to=self._state.compacted_to
        )
        self.report.dropped = compaction.run(self._step)
        self._state = replace(
            self._state,
            compacted_to=to,
            deleted_to=max(deletes_to, self._state.deleted_to),
            kept=compaction.kept,
            compacted_at=self._state.elapsed,
        )
        self._write([self._state.to_entry(self._mode.records)])

    def _warn(self, deletes_to: int) -> None:
        """Name the clients that lack deletes which go now."""
        gone = [
            (client, sighting)
            for client, sighting in self._sightings.items()
            if self._found.floor.floor <= sighting.cid < deletes_to and self._is_gone(sighting)
        ]
        self.report.starting_over = gone
        if gone:
            named = ", ".join(_described(*item) for item in sorted(gone, key=lambda item: item[1].ms)[:_NAMED])
            more = f" and {len(gone) - _NAMED} more" if len(gone) > _NAMED else ""
            logger.warning(
                "%s: clients not seen for %s start over at their next sync, and keep their local changes: %s%s",
                self._store.backend.name,
                span(self._retention.clients_unseen_after),
                named,
                more,
            )

    # ---------------------------------------------------------------------------------- forgetting

    def forget_clients(self) -> None:
        """Drop the records of the clients that are gone.

        The decision on the last push of a client stays for as long as a late copy of it could be
        judged: until its base is below the floor, or too far behind.
        """
        gone = [client for client, sighting in self._sightings.items() if self._is_gone(sighting)]
        for start in range(0, len(gone), _STEP):
            self.report.forgotten += self._step(forget_step(self._mode, gone[start : start + _STEP]))


def forget_step(mode: Server, clients: Iterable[str]) -> Step[int]:
    """Drop the records of some clients, but for those whose last push could still be judged.

    The result is the number of clients that were forgotten.
    """

    def step(transaction: Reader, head: int) -> Plan[int]:
        batch: list[Entry] = []
        forgotten = 0
        floor = mode.records.floor(transaction, head).floor
        for client in clients:
            key = decision_key(mode.space, client)
            record = transaction.get(key)
            if record is not None:
                before = parse_decision(mode.records, key, record, head).ack.before
                if not is_past(before, floor, head):
                    continue
                batch.append((key, None))
            batch.append((sighting_key(mode.space, client), None))
            forgotten += 1
        return Plan(forgotten, batch)

    return step


def is_past(before: int, floor: int, head: int) -> bool:
    """Return True if no copy of a decided push can be judged any more.

    Args:
        before: The server's CID before the decision: the base of each copy is not above it.
        floor: The floor of the server.
        head: The CID of the server.
    """
    return before < floor or head - before > MAX_DISTANCE


def _described(client: str, sighting: Sighting) -> str:
    seen = f"seen {clock.moment(sighting.ms):%Y-%m-%d}" if sighting.ms else "seen before this version"
    return f"{client} ({seen})" if sighting.principal is None else f"{client} of {sighting.principal} ({seen})"
