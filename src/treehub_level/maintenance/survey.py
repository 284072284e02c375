"""Every row of a store, looked at once: what is amiss in it, as facts that `verify` puts in words and `repair` mends.

Memory grows with the number of distinct keys in a server's log, or in a client's dirty set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import orjson

from .. import _core
from ..backends.base import Reader, Row
from ..engine.log import read_floor
from ..engine.modes import Epoch, Server, read_cid
from ..errors import CorruptionError, DecodeError
from ..replication.journal import parse_conflict
from ..replication.manual import canonical
from ..replication.server import read_decision
from ..replication.state import ClientState

_FETCH = 1000


@dataclass
class Survey:
    """What holds in any mode.

    Attributes:
        records: Keys with a value.
        damaged: The stored key of each row that cannot be what stands there, and what is wrong with it.
        cid: The CID; 0 if it cannot be read.
    """

    records: int = 0
    damaged: list[tuple[bytes, str]] = field(default_factory=list)
    cid: int = 0


@dataclass
class ServerSurvey(Survey):
    """What a server holds.

    Attributes:
        logged: Changes in the log.
        newest: The CID of the newest.
        solid: The first CID behind which the log has no gap at all, not even one of a compaction.
        compacted_to: See `read_floor`.
        floor: See `read_floor`.
        gaps: First and last CID of each stretch that is missing from the log, compactions aside.
        other: Keys whose value is not the one that the log has last, and the CID of that change.
        absent: Keys without a value for which the log has one, and the CID of that change.
        unlogged: Keys with a value that the log knows nothing of.
        epochs: See `Server.epochs`.
        decided: The highest CID that the decision on a client's push names.
    """

    logged: int = 0
    newest: int = 0
    solid: int = 1
    compacted_to: int = 0
    floor: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)
    other: dict[bytes, int] = field(default_factory=dict)
    absent: dict[bytes, int] = field(default_factory=dict)
    unlogged: list[bytes] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    decided: int = 0


@dataclass
class ClientSurvey(Survey):
    """What a client holds.

    Attributes:
        dirty: Dirty changes.
        other: Keys whose value is not that of their dirty change.
        conflicts: Changes in the journal.
        state: The client's own records; ``None`` if they cannot be read.
    """

    dirty: int = 0
    other: list[bytes] = field(default_factory=list)
    conflicts: int = 0
    state: ClientState | None = None


def rows_of(reader: Reader) -> Iterator[Row]:
    """Every row of a store, in the order of keys."""
    with closing(reader.scan(None, None)) as cursor:
        while rows := cursor.fetch(_FETCH):
            yield from rows


class _Surveyor(ABC):
    """What the surveys of a server and of a client share.

    Args:
        reader: What to read from.
        space: The key space of the store.
        survey: Where to note what is there.
    """

    def __init__(self, reader: Reader, space: _core.KeySpace, survey: Survey) -> None:
        self._reader = reader
        self._space = space
        self._survey = survey
        self._own = space.prefix + space.prefix
        #: The last change of each key in the metadata: what it is of, and the hash of its value, or none for a delete.
        self._last: dict[bytes, tuple[bytes, int | None]] = {}

    def _walk(self) -> None:
        space = self._space
        try:
            self._survey.cid = read_cid(self._reader, space)
        except CorruptionError as error:
            self._damaged(space.prefix, error)
        for key, value in rows_of(self._reader):
            try:
                if key >= space.user_start:
                    self._record(key, value)
                elif key.startswith(self._own):
                    self._own_record(key, value)
                elif key != space.prefix:
                    self._metadata(key, value)
            except (ValueError, DecodeError, CorruptionError) as error:
                self._damaged(key, error)

    def _damaged(self, key: bytes, error: Exception) -> None:
        self._survey.damaged.append((key, str(error)))

    def _record(self, key: bytes, value: bytes) -> None:
        _core.decode_key(key)
        orjson.loads(value)
        self._survey.records += 1
        self._compare(key, value)

    @abstractmethod
    def _compare(self, key: bytes, value: bytes) -> None:
        """Compare the value of a key with its last change."""

    @abstractmethod
    def _own_record(self, key: bytes, value: bytes) -> None:
        """Look at one of the store's own records."""

    @abstractmethod
    def _metadata(self, key: bytes, value: bytes) -> None:
        """Look at what else lies under the prefix, and below it."""

    def _change(self, stored_key: bytes, record: bytes) -> bytes:
        """Keep a change as the last one of its key, which is returned."""
        key, value = _core.split_record(record)
        if key < self._space.user_start:
            raise ValueError(f"{record!r:.80} is a change of a key that is the store's own")
        orjson.loads(record)
        self._last[key] = stored_key, None if value is None else hash(value)
        return key

    def _is_last(self, key: bytes, value: bytes) -> bool:
        """Whether a value is that of the key's last change, which there is."""
        stored_key, hashed = self._last[key]
        if hashed == hash(value):
            return True
        # The original's records may differ in white space and escapes.
        last = None if hashed is None else _core.split_record(self._reader.get(stored_key) or b"")[1]
        return last is not None and canonical(last) == canonical(value)


class ServerSurveyor(_Surveyor):
    """Looks at every row of a server."""

    def __init__(self, reader: Reader, space: _core.KeySpace) -> None:
        self.survey = ServerSurvey()
        super().__init__(reader, space, self.survey)
        self._client = space.own_key("client/")
        try:
            self.survey.compacted_to, self.survey.floor = read_floor(reader, space)
        except CorruptionError as error:
            self._damaged(space.own_key("floor"), error)
        try:
            self.survey.epochs = Server(space, "").epochs(reader)
        except CorruptionError as error:
            self._damaged(space.own_key("epochs"), error)

    def _own_record(self, key: bytes, value: bytes) -> None:
        if key.startswith(self._client):
            name = key[len(self._client) :].decode()
            decision = read_decision(self._reader, self._space, name)
            if decision is not None:
                self.survey.decided = max(self.survey.decided, decision.ack.after)

    def _metadata(self, key: bytes, value: bytes) -> None:
        survey = self.survey
        cid = self._space.parse_log_key(key)
        self._change(key, value)
        survey.logged += 1
        if cid != survey.newest + 1:
            survey.solid = cid
            first = max(survey.newest, survey.compacted_to) + 1
            if first < cid:
                survey.gaps.append((first, cid - 1))
        survey.newest = cid

    def _compare(self, key: bytes, value: bytes) -> None:
        if key not in self._last:
            self.survey.unlogged.append(key)
            return
        if not self._is_last(key, value):
            self.survey.other[key] = self._cid_of(key)
        del self._last[key]

    def walk(self) -> ServerSurvey:
        """Look at every row.

        Raises:
            CorruptionError: The engine cannot read on.
        """
        self._walk()
        self.survey.absent = {key: self._cid_of(key) for key, (_, hashed) in self._last.items() if hashed is not None}
        return self.survey

    def _cid_of(self, key: bytes) -> int:
        return self._space.parse_log_key(self._last[key][0])


class ClientSurveyor(_Surveyor):
    """Looks at every row of a client."""

    def __init__(self, reader: Reader, space: _core.KeySpace) -> None:
        self.survey = ClientSurvey()
        super().__init__(reader, space, self.survey)
        self._conflict = space.own_key("conflict/")
        try:
            self.survey.state = ClientState.read(reader, space)
        except CorruptionError as error:
            self._damaged(space.own_key("id"), error)

    def _own_record(self, key: bytes, value: bytes) -> None:
        if key.startswith(self._conflict):
            parse_conflict(self._space, key, value)
            self.survey.conflicts += 1

    def _metadata(self, key: bytes, value: bytes) -> None:
        name = key[len(self._space.prefix) :]
        if self._change(key, value) != name:
            raise ValueError(f"the dirty change under {key!r} is one of another key: {value!r:.80}")
        self.survey.dirty += 1

    def _compare(self, key: bytes, value: bytes) -> None:
        if key in self._last:
            if not self._is_last(key, value):
                self.survey.other.append(key)
            del self._last[key]

    def walk(self) -> ClientSurvey:
        """Look at every row.

        Raises:
            CorruptionError: The engine cannot read on.
        """
        self._walk()
        self.survey.other += [key for key, (_, hashed) in self._last.items() if hashed is not None]
        return self.survey
