"""Read every row of a store once, and collect its inconsistencies.

`verify` describes them in words, and `repair` removes them. Memory grows with the number of
distinct keys in a server's log, or in a client's dirty set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import orjson

from .. import _core
from ..backends.base import Reader
from ..engine.base_values import BASES, Bases, base_bounds, parse_base
from ..engine.following import EARLIER_RESET, common_of_earlier_reset
from ..engine.groups import group_bounds, parse_group
from ..engine.records import Epoch, OwnRecords
from ..engine.retention import RETENTION, read_retention
from ..engine.scan import rows
from ..engine.sightings import parse_sighting, sighting_key
from ..engine.uncompared import ROW, uncompared_bounds
from ..errors import CorruptionError, DecodeError, StateError
from ..replication.canonical import canonical
from ..replication.losses import loss_bounds, parse_loss
from ..replication.records import (
    check_holder,
    decision_key,
    journal_bounds,
    parse_conflict,
    parse_decision,
    pushable_entry,
    read_state,
    state_record,
)
from ..replication.state import NAMES, ClientState
from ..replication.synced import SYNCED, parse_synced
from ..replication.withdrawals import Withdrawal, withdrawal_key

#: The highest CID that the own records of a server may name. `repair` takes those above the store's
#: CID for CIDs that were lost, and continues after them; half of all CIDs is left to it.
_HIGHEST = _core.MAX_CID // 2


@dataclass
class Survey:
    """The findings for a store of any mode.

    Attributes:
        records: The number of keys with a value.
        damaged: The stored key of each malformed row, and the error.
        cid: The CID of the store; 0 if it cannot be read.
    """

    records: int = 0
    damaged: list[tuple[bytes, str]] = field(default_factory=list)
    cid: int = 0


@dataclass
class ServerSurvey(Survey):
    """The findings for a server.

    The numbers in the own records may exceed the CID, if the store has lost its last changes:
    `repair` must not use the CIDs in between again.

    Attributes:
        logged: The number of changes in the log.
        last_logged: The CID of the last change in the log.
        contiguous_from: The CID from which on the log has no gap, not even one left by a
            compaction.
        compacted_to: See `Floor`.
        floor: See `Floor`.
        gaps: The first and the last CID of each gap in the log, except gaps left by a compaction.
        differing: Each key whose value differs from its last change in the log, and the CID of that
            change.
        missing: Each key without a value whose last change in the log stores one, and the CID of
            that change.
        unlogged: The keys with a value and without a change in the log.
        epochs: The epochs of the server; those that start beyond its CID are among them.
        last_decided: The highest CID in the records of the clients' last pushes.
        committed: The number of commits that have a record.
        last_committed: The highest CID in the records of commits.
    """

    logged: int = 0
    last_logged: int = 0
    contiguous_from: int = 1
    compacted_to: int = 0
    floor: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)
    differing: dict[bytes, int] = field(default_factory=dict)
    missing: dict[bytes, int] = field(default_factory=dict)
    unlogged: list[bytes] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    last_decided: int = 0
    committed: int = 0
    last_committed: int = 0


@dataclass
class ClientSurvey(Survey):
    """The findings for a client.

    Attributes:
        dirty: The number of dirty changes.
        differing: The keys whose value differs from their dirty change.
        conflicts: The number of conflicts in the journal.
        state: The client's replication state; ``None`` if it cannot be read.
    """

    dirty: int = 0
    differing: list[bytes] = field(default_factory=list)
    conflicts: int = 0
    state: ClientState | None = None


class _Surveyor(ABC):
    """The base class of the surveyors of servers and clients.

    Args:
        reader: The store to read from.
        space: The key space of the store.
        survey: The findings, to which each row is added.
    """

    def __init__(self, reader: Reader, space: _core.KeySpace, survey: Survey) -> None:
        self._reader = reader
        self._space = space
        self._survey = survey
        self._records = OwnRecords(space)
        self._own = space.prefix + space.prefix
        #: The last change of each key in the metadata: its stored key, and the hash of its value,
        #: or ``None`` for a delete.
        self._last: dict[bytes, tuple[bytes, int | None]] = {}

    def _read_all(self) -> None:
        space = self._space
        try:
            self._survey.cid = self._records.cid(self._reader)
        except CorruptionError as error:
            self._damaged(space.prefix, error)
        for key, value in rows(self._reader, None, None):
            try:
                if key >= space.user_start:
                    self._add_record(key, value)
                elif key == space.own_key("store"):
                    self._records.identity(self._reader, strict=True)
                elif key.startswith(self._own):
                    self._add_own_record(key, value)
                elif key != space.prefix:
                    self._add_metadata(key, value)
            except (ValueError, DecodeError, CorruptionError, StateError) as error:
                self._damaged(key, error)

    def _damaged(self, key: bytes, error: Exception) -> None:
        self._survey.damaged.append((key, str(error)))

    def _add_record(self, key: bytes, value: bytes) -> None:
        _core.decode_key(key)
        orjson.loads(value)
        self._survey.records += 1
        self._compare(key, value)

    @abstractmethod
    def _compare(self, key: bytes, value: bytes) -> None:
        """Compare the value of a key with the last change of that key."""

    @abstractmethod
    def _add_own_record(self, key: bytes, value: bytes) -> None:
        """Check one of the store's own records. The identity record is checked already."""

    @abstractmethod
    def _add_metadata(self, key: bytes, value: bytes) -> None:
        """Check another row of metadata: a change in the log or in the dirty set."""

    def _add_change(self, stored_key: bytes, key: bytes, value: bytes | None) -> None:
        """Record a change as the last one of its key."""
        self._last[key] = stored_key, None if value is None else hash(value)

    def _is_last(self, key: bytes, value: bytes) -> bool:
        """Return True if a value is that of the key's last change. There must be one."""
        stored_key, hashed = self._last[key]
        if hashed == hash(value):
            return True
        # Records of @treehub/level may differ in white space and escapes.
        last = None if hashed is None else _core.split_record(self._reader.get(stored_key) or b"")[1]
        return last is not None and canonical(last) == canonical(value)


class ServerSurveyor(_Surveyor):
    """Reads every row of a server."""

    def __init__(self, reader: Reader, space: _core.KeySpace) -> None:
        self.survey = ServerSurvey()
        super().__init__(reader, space, self.survey)
        self._client = decision_key(space, "")
        self._withdrawn = withdrawal_key(space, "")
        self._commit = space.own_key("commit/")
        self._seen = sighting_key(space, "")

    def _add_own_record(self, key: bytes, value: bytes) -> None:
        survey, space = self.survey, self._space
        if key == space.own_key("floor"):
            survey.compacted_to, survey.floor = self._records.floor(self._reader, _HIGHEST)
        elif key == space.own_key("epochs"):
            survey.epochs = self._records.epochs(self._reader, _HIGHEST)
        elif key.startswith(self._client):
            decision = parse_decision(self._records, key, value, _HIGHEST)
            survey.last_decided = max(survey.last_decided, decision.ack.after)
        elif key.startswith(self._withdrawn):
            withdrawal = Withdrawal.from_stored(self._records, key, value, _HIGHEST)
            survey.last_decided = max(survey.last_decided, withdrawal.before)
        elif key.startswith(self._seen):
            parse_sighting(self._records, key, value, _HIGHEST)
        elif key == space.own_key(RETENTION):
            read_retention(self._reader, self._records, _HIGHEST)
        elif key.startswith(self._commit):
            commit = self._records.commit(key, value, _HIGHEST)
            if commit.first <= survey.last_committed:
                raise self._records.damaged(key, f"overlaps a commit that ends at {survey.last_committed}", value)
            survey.committed += 1
            survey.last_committed = commit.last
        else:
            raise ValueError("it is not a record of a server")

    def _add_metadata(self, key: bytes, value: bytes) -> None:
        survey = self.survey
        cid = self._records.log_cid(key)
        self._records.check_outgoing([(cid, value)])
        self._add_change(key, *self._records.logged(cid, value))
        survey.logged += 1
        if cid != survey.last_logged + 1:
            survey.contiguous_from = cid
            first = max(survey.last_logged, survey.compacted_to) + 1
            if first < cid:
                survey.gaps.append((first, cid - 1))
        survey.last_logged = cid

    def _compare(self, key: bytes, value: bytes) -> None:
        if key not in self._last:
            self.survey.unlogged.append(key)
            return
        if not self._is_last(key, value):
            self.survey.differing[key] = self._cid_of(key)
        del self._last[key]

    def run(self) -> ServerSurvey:
        """Read every row, and return the findings.

        Raises:
            CorruptionError: The backend cannot read the store to its end.
        """
        self._read_all()
        self.survey.missing = {key: self._cid_of(key) for key, (_, hashed) in self._last.items() if hashed is not None}
        return self.survey

    def _cid_of(self, key: bytes) -> int:
        return self._space.parse_log_key(self._last[key][0])


class ClientSurveyor(_Surveyor):
    """Reads every row of a client."""

    def __init__(self, reader: Reader, space: _core.KeySpace) -> None:
        self.survey = ClientSurvey()
        super().__init__(reader, space, self.survey)
        self._conflict, _ = journal_bounds(space)
        self._base_start, self._base_stop = base_bounds(space)
        self._group_start, self._group_stop = group_bounds(space)
        self._uncompared_start, self._uncompared_stop = uncompared_bounds(space)
        self._loss_start, self._loss_stop = loss_bounds(space)
        self._names = {space.own_key(name): name for name in NAMES}

    def _add_own_record(self, key: bytes, value: bytes) -> None:
        if key.startswith(self._conflict):
            parse_conflict(self._records, key, value)
            self.survey.conflicts += 1
        elif key == self._space.own_key(SYNCED):
            parse_synced(self._records, value)
        elif key == self._space.own_key("holder"):
            check_holder(self._records, key, value)
        elif self._base_start <= key < self._base_stop:
            self._check_base(key, value)
        elif self._group_start <= key < self._group_stop:
            parse_group(self._records, key, value)
        elif self._loss_start <= key < self._loss_stop:
            parse_loss(self._records, key, value)
        elif self._uncompared_start <= key < self._uncompared_stop:
            self._check_uncompared(key, value)
        elif key == self._space.own_key(EARLIER_RESET):
            common_of_earlier_reset(self._reader, self._records)
        elif key in self._names:
            state_record(self._records, self._names[key], value, self.survey.cid)
        else:
            raise ValueError("it is not a record of a client")

    def _check_uncompared(self, stored_key: bytes, value: bytes) -> None:
        if value != ROW:
            raise ValueError("it is not the row of an uncompared change")

    def _check_base(self, stored_key: bytes, value: bytes) -> None:
        key = stored_key[len(self._base_start) :]
        record = self._reader.get(self._space.own_key(BASES))
        bases = None if record is None else Bases.from_document(self._records.decode(stored_key, record))
        if bases is None:
            raise ValueError("it is a base value, but the store has no record of base values")
        parse_base(self._records, stored_key, value, bases)
        if self._reader.get(self._space.dirty_key(key)) is None:
            raise ValueError("it is the base value of a key that is not dirty")

    def _add_metadata(self, key: bytes, value: bytes) -> None:
        name, stored = pushable_entry(self._records, key, value)
        # The bytes as they are stored: those of @treehub/level may differ from the encoded ones.
        self._add_change(key, name, None if stored is None else _core.split_record(value)[1])
        self.survey.dirty += 1

    def _compare(self, key: bytes, value: bytes) -> None:
        if key in self._last:
            if not self._is_last(key, value):
                self.survey.differing.append(key)
            del self._last[key]

    def run(self) -> ClientSurvey:
        """Read every row, and return the findings.

        Raises:
            CorruptionError: The backend cannot read the store to its end.
        """
        self._read_all()
        try:
            self.survey.state = read_state(self._reader, self._records, self.survey.cid)
        except CorruptionError as error:
            key = error.key or self._space.own_key("id")
            if key not in {damaged for damaged, _ in self.survey.damaged}:
                self._damaged(key, error)
        self.survey.differing += [key for key, (_, hashed) in self._last.items() if hashed is not None]
        return self.survey
