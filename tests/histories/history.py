"""Histories: the operations of sessions, and the log of the server.

A session writes its operations to a file of JSON lines: one line when it calls an operation, and
one when the operation returns. A process that is killed in between leaves an operation of unknown
outcome. All times are those of the machine's monotonic clock, which its processes share.

Each write stores a value with an id that no other write has. So each read names the writes that it
read from, and the server's log, in the order of its CIDs, is the order of the versions of each key.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

#: ``write``: a put, a delete, or a batch. ``read``: one state of some keys, such as a snapshot.
#: ``transaction``: reads and writes in one atomic step. ``sync``: a synchronisation after which all
#: earlier writes of both sides are on both sides. ``journal``: the writes in the conflict journal
#: at the end of the session.
Kind = Literal["write", "read", "transaction", "sync", "journal"]
#: A failed operation had no effect. One of unknown outcome may have an effect later.
Outcome = Literal["ok", "failed", "unknown"]
#: ``store``: a client with a store of its own. ``direct``: reads and writes of the server.
Style = Literal["store", "direct"]

#: The most bytes of a line, except that of a journal, which is the last one.
_LONGEST_LINE: Final = 1 << 16


class Version(NamedTuple):
    """A change in the server's log.

    Attributes:
        cid: The CID.
        key: The key.
        id: The id of the value; ``None`` for a delete.
    """

    cid: int
    key: str
    id: str | None


@dataclass(slots=True)
class Operation:
    """An operation of a session.

    The operations of a session follow each other, except that it may read during a ``sync``.

    Attributes:
        session: The name of the session.
        number: The position of its call among those of the session.
        kind: The kind of the operation.
        invoked: The time of the call, in nanoseconds.
        completed: The time at which it returned; ``None`` if it did not.
        outcome: The outcome.
        reads: The id that was read from each key, ``None`` for an absent key. Of a write: those
            that the session read from the same keys before.
        writes: The id that was written to each key, ``None`` for a delete.
        cid: The CID of the state that was read; ``None`` if it is not known. Of a write: the CID of
            the client afterwards, if a live session may have pulled since the ``reads``.
        dirty: The keys whose values are local changes that the server has not accepted yet.
        is_whole: True if the client had all data in the ranges that were read.
        is_consistent: True for the first state after a synchronisation that reported it as
            ``consistent``, and without a write since.
        followed: The written keys in ranges that the client has completely. It has seen the changes
            of these.
        lost: Of a journal: the keys and ids of the writes in it.
    """

    session: str
    number: int
    kind: Kind
    invoked: int
    completed: int | None = None
    outcome: Outcome = "unknown"
    reads: Mapping[str, str | None] = field(default_factory=dict)
    writes: Mapping[str, str | None] = field(default_factory=dict)
    cid: int | None = None
    dirty: frozenset[str] = frozenset()
    is_whole: bool = False
    is_consistent: bool = False
    followed: frozenset[str] = frozenset()
    lost: frozenset[tuple[str, str | None]] = frozenset()

    def __str__(self) -> str:
        return f"{self.session}:{self.number} ({self.kind})"


@dataclass
class History:
    """The operations of all sessions, and the log.

    Attributes:
        sessions: The operations of each session, in the order of their calls.
        styles: The style of each session.
        log: The whole log of the server, in CID order.
        undrained: The sessions that did not end, though the network was well.
        fault: The reason for which the log could not be read; ``""`` if it could be.
    """

    sessions: dict[str, list[Operation]]
    styles: dict[str, Style]
    log: list[Version]
    undrained: frozenset[str] = frozenset()
    fault: str = ""

    @property
    def operations(self) -> Iterable[Operation]:
        """All operations."""
        for operations in self.sessions.values():
            yield from operations


class Recorder:
    """Appends the operations of one session to its file.

    Args:
        folder: The folder of the history.
        session: The name of the session. Its file is continued if it exists.
        style: The style of the session.
    """

    def __init__(self, folder: Path, session: str, style: Style) -> None:
        path = folder / f"{session}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._number = _last_number(path)
        self._write({"session": session, "style": style})

    def begin(self, kind: Kind, **fields: Any) -> int:
        """Record the call of an operation.

        Args:
            kind: The kind of the operation.
            **fields: Attributes of `Operation`.

        Returns:
            The number of the operation, for `end`.
        """
        self._number += 1
        self._write({"number": self._number, "kind": kind, "invoked": time.monotonic_ns(), **fields})
        return self._number

    def end(self, number: int, outcome: Outcome = "ok", **fields: Any) -> None:
        """Record that an operation has returned."""
        self._write({"number": number, "completed": time.monotonic_ns(), "outcome": outcome, **fields})

    def next_id(self, session: str) -> str:
        """Return the id for the values of the write that begins next."""
        return f"{session}.{self._number + 1}"

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _write(self, line: dict[str, Any]) -> None:
        # One call for a line: a process that is killed leaves no half of one.
        os.write(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")


def count_operations(folder: Path) -> int:
    """Return the number of operations that all sessions have called so far."""
    return sum(map(_last_number, folder.glob("*.jsonl")))


def _last_number(path: Path) -> int:
    """Return the number of the operation in the last whole line of a session's file."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _LONGEST_LINE))
        *lines, _ = file.read().split(b"\n")
    number: int = json.loads(lines[-1]).get("number", 0) if lines else 0
    return number


def load(folder: Path, log: list[Version], undrained: Iterable[str] = (), fault: str = "") -> History:
    """Read the files of all sessions.

    Args:
        folder: The folder of the history.
        log: See `History`.
        undrained: See `History`.
        fault: See `History`.
    """
    history = History({}, {}, log, frozenset(undrained), fault)
    for path in sorted(folder.glob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        name = lines[0]["session"]
        history.styles[name] = lines[0]["style"]
        found: dict[int, dict[str, Any]] = {}
        for line in lines:
            if "number" in line:
                found.setdefault(line["number"], {}).update(line)
        history.sessions[name] = [_operation(name, fields) for _, fields in sorted(found.items())]
    return history


def _operation(session: str, fields: dict[str, Any]) -> Operation:
    fields = dict(fields)
    for name in ("dirty", "followed"):
        if name in fields:
            fields[name] = frozenset(fields[name])
    if "lost" in fields:
        fields["lost"] = frozenset((key, id_) for key, id_ in fields["lost"])
    return Operation(session, **fields)
