"""``repair``: a damaged store opens again, and what is left of it agrees with itself and with its clients.

LevelDB's own repair saves what it can read, whatever that adds up to: any row may be missing, or be an older one. Here
the rest is done. Where a server's log and its data disagree, the log decides as long as it has no gap behind the
change in question; behind a gap nobody can know, and the value that is there stays, and is logged anew. Then the floor
goes up to a CID that no client has seen, behind the start of a new epoch. So every client starts over with its next
sync, and neither misses a delete that is no longer in the log nor keeps what the server has lost. A client starts over
by itself, with a new client id, and takes its dirty changes along. The server knows better what it made of those that
it had acknowledged: it wins, and they go to the journal.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice

import orjson

from .. import _core
from ..backends.base import Backend, Batch, Entry
from ..backends.leveldb.directory import DirectoryBackend
from ..backends.registry import create
from ..engine.identity import birth_records, shape_of, stored_identity
from ..engine.modes import Epoch, read_record
from ..errors import CorruptionError, StateError
from ..replication.state import ClientState, ResetProgress
from ..types import Mode
from .survey import ClientSurvey, ClientSurveyor, ServerSurvey, ServerSurveyor, Survey
from .verify import Verification, count, examine

#: Rows that are written at once.
_BATCH = 100


@dataclass
class Repair:
    """What `repair` did.

    Attributes:
        mode: The mode of the store.
        done: What was done, a sentence each.
        verification: What `verify` finds now.
    """

    mode: Mode = Mode.NORMAL
    done: list[str] = field(default_factory=list)
    verification: Verification = field(default_factory=lambda: Verification(None))


def repair(
    name: str | os.PathLike[str],
    *,
    backend: str | type[Backend] | Callable[..., Backend] = "leveldb",
    prefix: str = "!",
) -> Repair:
    """Make a damaged LevelDB store one that opens, with what can still be read, and safe to synchronise.

    It cannot be undone: copy the directory first. Records may be lost, and older values be back. Clients of a repaired
    server start over with their next sync; a repaired client does, too. If it is interrupted, the store does not open
    until it is done again.

    Args:
        name: The store.
        backend: As for `Level`.
        prefix: As for `Level`.

    Returns:
        What was done, and what `verify` finds now.

    Raises:
        StateError: The backend has no stores that could be repaired.
        LockedError: It is open.
        StorageError: There is none, or it cannot be read or written.
    """
    store, space = create(backend, os.fspath(name), {}), _core.KeySpace(prefix)
    if not isinstance(store, DirectoryBackend):
        raise StateError(f"a store of the backend {type(store).__name__} cannot be repaired, only one of LevelDB's")
    result = Repair()
    result.done.append(f"LevelDB made tables of what it could read; what it replaced is in {store.lost}")

    def mend(opened: Backend) -> None:
        Repairer(opened, space, result).mend()
        with closing(opened.snapshot()) as reader:
            result.verification = examine(reader, space)

    store.repair(name, mend)
    return result


class Repairer:
    """One store being mended. It may be done again, from any batch on."""

    def __init__(self, backend: Backend, space: _core.KeySpace, result: Repair) -> None:
        self._backend = backend
        self._space = space
        self._result = result

    def mend(self) -> None:
        """Mend what the store's mode needs."""
        self._result.mode = mode = self._mode()
        if mode is Mode.NORMAL:
            return
        if self._identity() is None:
            self._write(birth_records(self._space, mode, uuid.uuid4().hex)[:1])
            self._say(
                "it had lost the record that says what store it is, and got a new id: clients must rebind() to it"
            )
        if mode is Mode.SERVER:
            self._server(ServerSurveyor(self._backend, self._space).walk())
        else:
            self._client(ClientSurveyor(self._backend, self._space).walk())

    def _mode(self) -> Mode:
        identity = self._identity()
        if identity is not None:
            return identity[0]
        own = self._backend.get_many([self._space.own_key(name) for name in ("id", "epochs")])
        if any(own):
            return Mode.CLIENT if own[0] else Mode.SERVER
        shape = shape_of(self._backend, self._space)
        return {"server": Mode.SERVER, "client": Mode.CLIENT}.get(shape, Mode.NORMAL)

    def _identity(self) -> tuple[Mode, str] | None:
        return stored_identity(self._backend, self._space, strict=False)

    # ------------------------------------------------------------------------------------------------- server

    def _server(self, survey: ServerSurvey) -> None:
        self._drop(survey)
        if _is_beginning(survey):
            self._say("the log goes on from change 1 to the last, and each key has the value logged last")
            return
        # Nothing that is numbered now may have been numbered before.
        starts = [epoch.start for epoch in survey.epochs]
        before = max(survey.cid, survey.newest, survey.decided, survey.compacted_to, *starts)
        believed = survey.newest == before  # behind a gap at the end, nobody can know of any key
        restored, kept = dict(survey.absent), list(survey.unlogged)
        for key, cid in survey.other.items():
            if believed and cid >= survey.solid - 1:
                restored[key] = cid
            else:
                kept.append(key)
        if survey.gaps:
            self._say(f"the log lacks {count(sum(last - first + 1 for first, last in survey.gaps), 'change')}")
        if restored:
            self._write_all((key, self._logged(cid)) for key, cid in restored.items())
            self._say(f"put back as the log has it last: {count(len(restored), 'key')}")
        if kept:
            self._say(f"logged anew: {count(len(kept), 'value')} of which the log does not tell, or not surely")
        cid = self._log_anew(kept or [self._harmless()], before, survey.epochs)
        self._say(f"the CID is {cid:,} now, in a new epoch, and clients below it start over with their next sync")

    def _log_anew(self, keys: Sequence[bytes], cid: int, epochs: Sequence[Epoch]) -> int:
        """Log the values of keys in an epoch of their own, and raise the floor to the last CID, which is returned."""
        record = orjson.dumps([[*epoch] for epoch in (*epochs, Epoch(uuid.uuid4().hex, cid))])
        self._write([(self._space.own_key("epochs"), record)])
        for start in range(0, len(keys), _BATCH):
            entries = [(key, self._backend.get(key)) for key in keys[start : start + _BATCH]]
            self._write(_core.server_batch(self._space, cid, entries))
            cid += len(entries)
        self._write([(self._space.own_key("floor"), orjson.dumps([cid, cid]))])
        return cid

    def _logged(self, cid: int) -> bytes | None:
        """The value that a change gives its key."""
        return _core.split_record(self._backend.get(self._space.log_key(cid)) or b"")[1]

    def _harmless(self) -> bytes:
        """A key to be logged anew only so that the CID moves: one that is there, or else one that never was."""
        with closing(self._backend.scan(self._space.user_start, None, values=False)) as cursor:
            return next(iter(cursor.fetch_keys(1)), self._space.user_start)

    # ------------------------------------------------------------------------------------------------- client

    def _client(self, survey: ClientSurvey) -> None:
        self._drop(survey)
        restored = [(key, self._dirty(key)) for key in survey.other]
        self._write_all(restored)
        if restored:
            self._say(f"put back as its dirty change has it: {count(len(restored), 'key')}")
        state = ClientState(uuid.uuid4().hex, 0, self._server_of_client(), reset=ResetProgress(0, "A", ""))
        forgotten: list[Entry] = [(self._space.own_key(name), None) for name in ("server", "push", "own")]
        self._write([*forgotten, *state.replacing(ClientState("", 0), self._space), (self._space.prefix, b"0")])
        self._say(
            f"its next sync pulls everything anew. Of its {count(survey.dirty, 'dirty change')}, those of keys that "
            "the server has otherwise lose, and go to the journal of conflicts"
        )

    def _dirty(self, key: bytes) -> bytes | None:
        """The value that a dirty change gives its key."""
        return _core.split_record(self._backend.get(self._space.dirty_key(key)) or b"")[1]

    def _server_of_client(self) -> str | None:
        """Whom the client follows, if that can still be read."""
        try:
            server = read_record(self._backend, self._space.own_key("server"))
            return str(server["id"])
        except (CorruptionError, LookupError, TypeError):
            return None

    # -------------------------------------------------------------------------------------------------- both

    def _drop(self, survey: Survey) -> None:
        if survey.damaged:
            self._write_all((key, None) for key, _ in survey.damaged)
            self._say(f"dropped: {count(len(survey.damaged), 'row')} that cannot be read")

    def _write_all(self, entries: Iterable[Entry]) -> None:
        entries = iter(entries)
        while batch := [*islice(entries, _BATCH)]:
            self._write(batch)

    def _write(self, batch: Batch) -> None:
        with self._backend.exclusive() as transaction:
            transaction.write(batch, durable=True)

    def _say(self, sentence: str) -> None:
        self._result.done.append(sentence)


def _is_beginning(survey: ServerSurvey) -> bool:
    """Whether this is what a server once was: then a new epoch, which its next opening begins, is all it takes."""
    whole = survey.solid == 1 and survey.newest == survey.cid and not survey.compacted_to
    return whole and not (survey.damaged or survey.other or survey.absent or survey.unlogged)
