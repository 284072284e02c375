"""`OwnRecords`: the one place that reads a store's own records, each with its type and its checks.

A record may be damaged in any way: by a flipped bit where no checksum notices it, by another
program, by an old copy of a file. So nothing is assumed about it. A record that does not fit raises
`CorruptionError`, which names the store, the record and the remedy. The records of replication are
read in ``replication.records``; ``maintenance.survey`` reads all of them with the same functions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeGuard

import orjson

from .. import _core
from ..backends.base import Reader, Row
from ..errors import CorruptionError, DecodeError, StateError
from ..types import Mode
from .clock import MAX_MS, moment

#: The version of the format on disk.
FORMAT: Final = 1
#: 32 hexadecimal digits: the ids of stores and of epochs, nonces.
HEX: Final = re.compile(r"[0-9a-f]{32}")
#: The id of a client, or of a server.
ID: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")

#: The key of the record of an unfinished copy. It sorts below every prefix, so that a level with
#: any prefix finds it.
COPYING_KEY: Final = b"\0treehub-level/copying"

#: The fields of an identity record, as they are stored. A user's value under the same key in a
#: NORMAL store has none of them; a damaged identity record still has two.
_IDENTITY_FIELDS: Final = (b'"id":', b'"mode":', b'"format":')
_ID_FIELD: Final = re.compile(rb'"id":"([0-9a-f]{32})"')


class Epoch(NamedTuple):
    """One opening of a server that wrote: a random id, and the CID before the first write."""

    id: str
    start: int


class Floor(NamedTuple):
    """The extent of compaction.

    Attributes:
        compacted_to: CIDs above this one are contiguous in the log.
        floor: The highest CID of a delete that was dropped from the log: a client below it may have
            missed a delete.
    """

    compacted_to: int
    floor: int


class Commit(NamedTuple):
    """A commit in the change log: its CIDs, its author, its time, and the changes kept together.

    Attributes:
        first: The CID of its first change.
        last: The CID of its last change.
        client: The id of the client that pushed it; ``None`` for a write of the server itself.
        principal: The name of the caller, as its token gives it; ``None`` if it is not known.
        ms: The time by the server's clock, in milliseconds since 1970; ``None`` if it is not known.
            Nothing is decided by it.
        groups: The first and the last CID of each run of changes that belong together, in order.
            Each has at least two changes.
    """

    first: int
    last: int
    client: str | None
    principal: str | None
    ms: int | None
    groups: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, items: object) -> Commit | None:
        """Return the commit that `to_list` has made into a list; ``None`` for anything else."""
        match items:
            case [first, last, None | str() as client, None | str() as principal, None | int() as ms, [*groups]]:
                is_client = client is None or ID.fullmatch(client) is not None
                is_time = ms is None or (not isinstance(ms, bool) and 0 <= ms <= MAX_MS)
                if is_client and is_time and is_cid(first) and is_cid(last) and 1 <= first <= last:
                    runs = _runs(groups, first, last)
                    return None if runs is None else cls(first, last, client, principal, ms, runs)
        return None

    def to_list(self) -> list[Any]:
        """Return the commit as it is sent: a list that can be encoded as JSON."""
        return [*self[:5], [[*run] for run in self.groups]]

    def to_stored(self) -> bytes:
        """Return the commit as it is stored, without its last CID: that is in the key."""
        return orjson.dumps([self.first, *self.to_list()[2:]])

    @property
    def by(self) -> str | None:
        """The author: the principal if it is known, else the client id."""
        return self.client if self.principal is None else self.principal

    @property
    def at(self) -> datetime | None:
        """The time in UTC, if it is known."""
        return None if self.ms is None else moment(self.ms)


def _runs(groups: Sequence[object], first: int, last: int) -> tuple[tuple[int, int], ...] | None:
    """Return runs that lie between two CIDs, rise, and have two changes or more; else ``None``."""
    runs: list[tuple[int, int]] = []
    for group in groups:
        match group:
            case [int(start), int(end)] if type(start) is type(end) is int and first <= start < end <= last:
                runs.append((start, end))
                first = end + 1
                continue
        return None
    return tuple(runs)


def commit_key(space: _core.KeySpace, last: int) -> bytes:
    """Return the key of the record of the commit that ends at a CID."""
    return space.own_key("commit/") + _core.cid_key(last)


def commits_stop(space: _core.KeySpace) -> bytes:
    """Return the end of the range of the commit records, exclusive."""
    return space.own_key("commit0")  # "0" follows "/"


class StoreIdentity(NamedTuple):
    """The identity record of a store: its mode and its id."""

    mode: Mode
    id: str


class Adoption(NamedTuple):
    """The progress of an interrupted adoption.

    Attributes:
        id: The id that the store will have.
        mode: The mode that it will have.
        after: The last key that was converted; ``None`` before the first.
        done: The number of keys that were converted.
    """

    id: str
    mode: Mode
    after: str | None
    done: int


class OwnRecords:
    """A reader of the own records of one store.

    Every method raises:
        CorruptionError: The record is malformed, or contradicts another one.

    Args:
        space: The key space of the store.
        name: The name of the store, for error messages; ``None`` if the caller adds it.
    """

    __slots__ = ("_keys", "_name", "space")

    def __init__(self, space: _core.KeySpace, name: str | None = None) -> None:
        self.space = space
        self._name = name
        self._keys: dict[str, bytes] = {}

    def key(self, name: str) -> bytes:
        """Return the key of the record of a name.

        The keys are kept: each exchange reads a dozen records.
        """
        key = self._keys.get(name)
        if key is None:
            key = self._keys[name] = self.space.own_key(name)
        return key

    def damaged(self, key: bytes, problem: str, value: object = None) -> CorruptionError:
        """Return the error for a damaged record.

        Args:
            key: The key of the record.
            problem: The end of a sentence that begins with the record.
            value: The value of the record, to be shown.
        """
        shown = "" if value is None else f": {value!r:.80}"
        fault = f"the record {key!r:.80} {problem}{shown}"
        if self._name is not None:
            fault = (
                f"{self._name!r} is damaged: {fault}. `treehub-level verify {self._name}` lists every fault; restore a "
                f"backup, or copy the store and run `treehub-level repair {self._name}` (LevelDB stores only)"
            )
        error = CorruptionError(fault)
        error.key = key
        return error

    def decode(self, key: bytes, record: bytes) -> Any:
        """Decode a record from JSON."""
        try:
            return orjson.loads(record)
        except orjson.JSONDecodeError:
            raise self.damaged(key, "is not JSON", record[:80]) from None

    def read(self, reader: Reader, name: str) -> Any:
        """Read the record of a name, decoded from JSON; ``None`` if it is absent."""
        key = self.key(name)
        record = reader.get(key)
        return None if record is None else self.decode(key, record)

    # -------------------------------------------------------------------------------- both sides

    def cid(self, reader: Reader) -> int:
        """Read the CID; 0 if none was written yet."""
        key = self.space.prefix
        record = reader.get(key)
        if record is None:
            return 0
        cid: object = self.decode(key, record)
        if not is_cid(cid):
            raise self.damaged(key, "is not a change id from 0 to 2^53 - 1", record)
        return cid

    def identity(self, reader: Reader, *, strict: bool) -> StoreIdentity | None:
        """Read the identity record; ``None`` if there is none.

        Args:
            reader: The reader.
            strict: True if any other value in the record's place is damage. In a NORMAL store it
                may be a user's value.

        Raises:
            StateError: The store has a format that this version does not read.
        """
        key = self.key("store")
        record = reader.get(key)
        if record is None:
            return None
        if not strict and sum(field in record for field in _IDENTITY_FIELDS) < 2:
            return None
        match self.decode(key, record):
            case {"id": str(), "mode": str(), "format": version} if type(version) is int and version > FORMAT:
                raise StateError(
                    f"this store has format {version}; this version of treehub-level reads format {FORMAT}"
                )
            case {"id": str(id), "mode": "server" | "client" as mode, "format": 1} if HEX.fullmatch(id):
                return StoreIdentity(Mode(mode), id)
        raise self.damaged(key, "does not say what store this is", record)

    def stored_format(self, reader: Reader) -> int | None:
        """Return the number of the store's format, also one of a later version; else ``None``."""
        record = reader.get(self.space.own_key("store"))
        if record is None or sum(field in record for field in _IDENTITY_FIELDS) < 2:
            return None
        try:
            match orjson.loads(record):
                case {"format": int(number)}:
                    return number
        except ValueError:
            pass
        return None

    def identity_without_record(self, reader: Reader) -> Mode | None:
        """Return the mode of a store whose identity record was lost, by its other own records.

        A store without own records, such as one of ``@treehub/level``, has none: ``None``.
        """
        space = self.space
        damaged = reader.get(space.own_key("store"))
        if damaged is not None:
            for mode in (Mode.SERVER, Mode.CLIENT):
                if b'"mode":"%b"' % mode.value.encode() in damaged:
                    return mode
        client, epochs = reader.get_many([space.own_key("id"), space.own_key("epochs")])
        if client is not None and re.match(rb'\["[0-9a-f]{32}",', client):
            return Mode.CLIENT
        if epochs is not None and re.match(rb'\[\["[0-9a-f]{32}",', epochs):
            return Mode.SERVER
        return None

    def id_in_damaged_identity(self, reader: Reader) -> str | None:
        """Return the store id that a damaged identity record still holds; ``None`` without any."""
        found = _ID_FIELD.search(reader.get(self.key("store")) or b"")
        return None if found is None else found[1].decode()

    def adoption(self, reader: Reader) -> Adoption | None:
        """Read the progress of an interrupted adoption; ``None`` if there is none.

        In a NORMAL store a user's value may have the same key: it has other members.
        """
        key = self.key("adopting")
        record = _members(reader.get(key))
        if record is None or not {"id", "mode", "after", "done"} <= record.keys():
            return None
        match record:
            case {"id": str(id), "mode": "server" | "client" as mode, "after": None | str() as after, "done": done}:
                if HEX.fullmatch(id) and is_cid(done):
                    return Adoption(id, Mode(mode), after, done)
        raise self.damaged(key, "does not hold the progress of an adoption", record)

    # ------------------------------------------------------------------------------------ server

    def floor(self, reader: Reader, cid: int) -> Floor:
        """Read the extent of compaction; ``(0, 0)`` before the first one.

        Args:
            reader: The reader.
            cid: The CID of the server in the same state: the floor is not above it.
        """
        record = self.read(reader, "floor")
        if record is None:
            return Floor(0, 0)
        match record:
            case [int(compacted_to), int(floor)] if type(floor) is type(compacted_to) is int:
                if 0 <= floor <= compacted_to <= cid:
                    return Floor(compacted_to, floor)
        raise self.damaged(
            self.key("floor"),
            f"is not [compacted to, floor] with 0 <= floor <= compacted to <= {cid}, the CID of the store",
            record,
        )

    def epochs(self, reader: Reader, cid: int) -> list[Epoch]:
        """Read all epochs of the server, oldest first.

        Args:
            reader: The reader.
            cid: The CID of the server in the same state: every epoch starts below it.
        """
        record = self.read(reader, "epochs")
        if record is None:
            return []
        epochs: list[Epoch] = []
        last = -1
        for item in record if type(record) is list else [None]:
            match item:
                case [str(id), int(start)] if type(start) is int and last < start < cid and HEX.fullmatch(id):
                    epochs.append(Epoch(id, start))
                    last = start
                    continue
            raise self.damaged(
                self.key("epochs"),
                f"does not list epochs that start at rising CIDs below {cid}, the CID of the store",
                item,
            )
        return epochs

    def commit(self, key: bytes, record: bytes, cid: int) -> Commit:
        """Decode the record of a commit.

        Args:
            key: The key of the record.
            record: The record.
            cid: The CID of the server in the same state: every commit ends there at the latest.
        """
        try:
            last = _core.parse_cid_key(key[len(self.key("commit/")) :])
        except ValueError:
            raise self.damaged(key, "of a commit names no change id") from None
        match self.decode(key, record):
            case [first, *others]:
                commit = Commit.parse([first, last, *others])
                if commit is not None and last <= cid:
                    return commit
        raise self.damaged(
            key,
            "is not [first, client, principal, time, groups] of a commit, with CIDs that rise to its own and up to "
            f"{cid}, the CID of the store",
            record,
        )

    def log_cid(self, key: bytes) -> int:
        """Return the CID of a key in the range of the log."""
        try:
            return self.space.parse_log_key(key)
        except ValueError:
            raise self.damaged(key, "lies in the change log and names no change id") from None

    def log_rows(self, rows: Sequence[Row]) -> list[tuple[int, bytes]]:
        """Return the CID and the record of each row of the log: see `log_cid`."""
        try:
            return self.space.parse_log_rows(rows)
        except ValueError:
            return [(self.log_cid(key), record) for key, record in rows]

    def logged(self, cid: int, record: bytes) -> tuple[bytes, bytes | None]:
        """Return the key and the value of a record of the log. The value is not checked."""
        try:
            key, value = _core.split_record(record)
        except ValueError:
            raise self._damaged_change(cid, record) from None
        if key < self.space.user_start:
            raise self._damaged_change(cid, record)
        return key, value

    def check_outgoing(self, records: Sequence[tuple[int, bytes]]) -> None:
        """Check records of the log before they leave the server: a client gets well-formed JSON."""
        index = _core.find_damaged(self.space, [record for _, record in records])
        if index is not None:
            raise self._damaged_change(*records[index])

    def _damaged_change(self, cid: int, record: bytes) -> CorruptionError:
        return self.damaged(self.space.log_key(cid), f"of the change {cid} in the log cannot be read", record)

    def check_outgoing_rows(self, rows: Sequence[Row]) -> None:
        """Check entries before they leave the server as they are stored.

        Raises:
            DecodeError: A value is not JSON, or a key is not one that users may write.
        """
        index = _core.find_damaged(self.space, [_core.join_record(key, value) for key, value in rows])
        if index is not None:
            key, value = rows[index]
            raise DecodeError(f"the value stored under {_core.decode_key(key)!r:.80} cannot be read: {value!r:.80}")


def is_cid(number: object) -> TypeGuard[int]:
    """Return True if a decoded JSON value is an integer from 0 to 2^53 - 1."""
    return type(number) is int and 0 <= number <= _core.MAX_CID


def copying_record(reader: Reader) -> dict[str, Any] | None:
    """Return the progress record of an interrupted copy to this store, or ``None``."""
    record = _members(reader.get(COPYING_KEY))
    return record if record is not None and {"from", "store", "run"} <= record.keys() else None


def _members(record: bytes | None) -> dict[str, Any] | None:
    """Return a record that is a JSON object; ``None`` for any other value."""
    if record is None:
        return None
    try:
        decoded = orjson.loads(record)
    except orjson.JSONDecodeError:
        return None
    return decoded if isinstance(decoded, dict) else None
