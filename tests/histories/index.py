"""`Index`: look-ups in a history that the rules share. `Anomaly`: a finding of a rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .history import History, Operation
from .versions import Versions

#: The keys and ids of the writes in a conflict journal.
Journal = frozenset[tuple[str, str | None]]


class Anomaly(NamedTuple):
    """A violation of a consistency model.

    Attributes:
        name: The name of the anomaly in the literature, or of the broken guarantee.
        session: The session that observed it; ``""`` if it shows in the log.
        text: The keys, writes and CIDs that prove it.
    """

    name: str
    session: str
    text: str

    def __str__(self) -> str:
        return f"{self.name}: {self.session or 'the log'}: {self.text}"


class Index:
    """Look-ups in a history.

    Args:
        history: The history.

    Attributes:
        history: The history.
        versions: The versions of each key.
        writers: The operation that wrote an id to a key.
        own_writes: The operations of a session that wrote a key, in the order of their calls.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.versions = Versions(history.log)
        self.writers: dict[tuple[str, str], Operation] = {}
        self.own_writes: dict[tuple[str, str], list[Operation]] = {}
        #: The position of an operation, by its session and number, in a list of `own_writes`.
        self._positions: dict[tuple[str, int, str], int] = {}
        for operation in history.operations:
            if operation.kind in ("write", "transaction"):
                for key, id_ in operation.writes.items():
                    writes = self.own_writes.setdefault((operation.session, key), [])
                    self._positions[operation.session, operation.number, key] = len(writes)
                    writes.append(operation)
                    if id_ is not None:
                        self.writers[key, id_] = operation

    def has_store(self, session: str) -> bool:
        """Return True if a session has a store of its own."""
        return self.history.styles[session] == "store"

    def journal(self, session: str) -> Journal:
        """Return the keys and ids of the writes in the conflict journal of a session."""
        return next((it.lost for it in reversed(self.history.sessions[session]) if it.kind == "journal"), frozenset())

    def previous(self, operation: Operation, key: str) -> Operation | None:
        """Return the operation of the same session that wrote a key before."""
        index = self._positions[operation.session, operation.number, key]
        return self.own_writes[operation.session, key][index - 1] if index else None

    def next(self, operation: Operation, key: str) -> Operation | None:
        """Return the operation of the same session that wrote a key next."""
        writes = self.own_writes[operation.session, key]
        index = self._positions[operation.session, operation.number, key] + 1
        return writes[index] if index < len(writes) else None

    def deletes(self, session: str, key: str) -> bool:
        """Return True if a session ever deletes a key."""
        return any(write.writes[key] is None for write in self.own_writes.get((session, key), ()))

    def is_own(self, session: str, key: str, id_: str | None) -> bool:
        """Return True if a session wrote an id."""
        writer = None if id_ is None else self.writers.get((key, id_))
        return writer is not None and writer.session == session

    def is_overlay(self, read: Operation, key: str) -> bool:
        """Return True if a client read a local change of its own instead of the server's data.

        That is a dirty change; or one that the server has accepted under a CID that the client has
        not pulled yet.
        """
        if not self.has_store(read.session):
            return False
        if key in read.dirty:
            return True
        id_ = read.reads[key]
        if id_ is None or read.cid is None or not self.is_own(read.session, key, id_):
            return False
        cid = self.versions.cid_of(key, id_)
        return cid is None or cid > read.cid

    def reads(self) -> Iterator[Operation]:
        """Yield the completed operations that read one state of several keys."""
        for operation in self.history.operations:
            if operation.kind in ("read", "transaction") and operation.outcome == "ok":
                yield operation
