"""Repair a damaged LevelDB store: make it open again, consistent in itself and safe to sync.

LevelDB's own repair keeps the rows that it can read. Afterwards any row may be missing, or have an
older value. This module makes the rest consistent.

A server: if its log and its data disagree about a key, the log decides, provided that it has no gap
after the last change of that key. If it has a gap, the key may have changed there. Its value stays,
and is appended to the log. Then a new epoch begins, and the floor rises to a CID that no client has
seen. So each client resets at its next sync. It misses no delete that the log has lost, and keeps
no data that the server has lost.

A client: it gets a new client id, keeps its dirty changes, and resets at its next sync. A dirty
change may be one that the server had acknowledged. If it conflicts with the server's data, the
server wins, and the change is kept in the conflict journal.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice

import orjson

from .. import _core
from ..backends.base import Backend, Batch, Entry
from ..backends.leveldb.directory import DirectoryBackend
from ..backends.registry import create
from ..engine.base_values import BASES, base_bounds
from ..engine.following import EARLIER_RESET, UNCHECKED, Following, read_following
from ..engine.identity import birth_records, find_identity, mode_by_shape
from ..engine.records import Epoch, OwnRecords, StoreIdentity
from ..engine.scan import first_key, key_chunks
from ..engine.uncompared import uncompared_bounds
from ..errors import CorruptionError, DecodeError, InvalidKeyError, StateError
from ..replication.losses import loss_bounds
from ..replication.records import state_record
from ..replication.state import ClientState
from ..types import Mode
from .survey import ClientSurvey, ClientSurveyor, ServerSurvey, ServerSurveyor, Survey
from .verify import Verification, count, examine

#: Rows to write at a time.
_BATCH = 100


@dataclass
class Repair:
    """The result of `repair`.

    Attributes:
        mode: The mode of the store.
        done: The steps that were taken, a sentence each.
        verification: The result of `verify` after the repair.
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
    """Make a damaged LevelDB store open again, with the data that can still be read.

    A repair cannot be undone: copy the directory first. Records may be lost, and older values may
    return. Clients of a repaired server reset at their next sync, and so does a repaired client. An
    interrupted repair must be run again before the store can be opened.

    Args:
        name: The store.
        backend: As for `Level`.
        prefix: As for `Level`.

    Returns:
        The steps that were taken, and the result of `verify`.

    Raises:
        StateError: The backend is not LevelDB.
        LockedError: The store is open.
        StorageError: There is no store, or it cannot be read or written.
    """
    store, space = create(backend, os.fspath(name), {}), _core.KeySpace(prefix)
    if not isinstance(store, DirectoryBackend):
        raise StateError(f"a store of the backend {type(store).__name__} cannot be repaired, only a LevelDB store")
    result = Repair()
    result.done.append(
        f"LevelDB rebuilt its tables from the data that it could read; the files that it replaced are in {store.lost}"
    )

    def make_consistent(opened: Backend) -> None:
        Repairer(opened, space, result).repair()
        with closing(opened.snapshot()) as reader:
            result.verification = examine(reader, space)

    store.repair(name, make_consistent)
    return result


class Repairer:
    """Makes one store consistent after LevelDB's own repair. It can be interrupted and run again.

    Args:
        backend: The store, open.
        space: The key space of the store.
        result: The result, to which each step is added.
    """

    def __init__(self, backend: Backend, space: _core.KeySpace, result: Repair) -> None:
        self._backend = backend
        self._space = space
        self._records = OwnRecords(space, backend.name)
        self._result = result

    def repair(self) -> None:
        """Make the store consistent, as its mode requires."""
        self._result.mode = mode = self._mode()
        if mode is Mode.NORMAL:
            return
        if self._identity() is None:
            self._restore_identity(mode)
        if mode is Mode.SERVER:
            self._repair_server(ServerSurveyor(self._backend, self._space).run())
        else:
            self._repair_client(ClientSurveyor(self._backend, self._space).run())

    def _mode(self) -> Mode:
        identity = self._identity()
        if identity is not None:
            return identity.mode
        lost = self._records.identity_without_record(self._backend)
        return mode_by_shape(self._backend, self._records) if lost is None else lost

    def _identity(self) -> StoreIdentity | None:
        try:
            return find_identity(self._backend, self._records, strict=False)
        except CorruptionError:
            return None

    def _restore_identity(self, mode: Mode) -> None:
        """Write the identity record again, with the store's id if the damaged one still has it."""
        store_id = self._records.id_in_damaged_identity(self._backend)
        self._write(birth_records(self._space, mode, store_id or uuid.uuid4().hex)[:1])
        if store_id is not None:
            self._report("the record of the store's identity was damaged; the store keeps its id")
            return
        clients = (
            ": its clients must call rebind(), or run `treehub-level sync --rebind`" if mode is Mode.SERVER else ""
        )
        self._report(f"the record of the store's identity was lost; the store has a new id{clients}")

    # ------------------------------------------------------------------------------------- server

    def _repair_server(self, survey: ServerSurvey) -> None:
        self._delete_damaged(survey)
        if _is_earlier_state(survey):
            self._report("the log is complete and agrees with the data: nothing else to repair")
            return
        # A CID that was in use before the damage must not be used again.
        starts = [epoch.start for epoch in survey.epochs]
        named = (survey.last_decided, survey.last_committed, survey.compacted_to, *starts)
        last_used = max(survey.cid, survey.last_logged, *named)
        log_end_is_known = survey.last_logged == last_used  # otherwise any key may have changed after it
        restored, relogged = dict(survey.missing), list(survey.unlogged)
        for key, cid in survey.differing.items():
            if log_end_is_known and cid >= survey.contiguous_from - 1:
                restored[key] = cid
            else:
                relogged.append(key)
        if survey.gaps:
            self._report(f"the log lacks {count(sum(last - first + 1 for first, last in survey.gaps), 'change')}")
        if restored:
            self._write_all((key, self._logged_value(cid)) for key, cid in restored.items())
            self._report(f"restored from the log: {count(len(restored), 'key')}")
        if relogged:
            self._report(f"appended to the log: {count(len(relogged), 'value')} whose last change the log may lack")
        cid = self._append_to_log(relogged or [self._any_key()], last_used, survey.epochs)
        self._report(f"the CID is now {cid:,}, in a new epoch: clients reset at their next sync")

    def _append_to_log(self, keys: Sequence[bytes], cid: int, epochs: Sequence[Epoch]) -> int:
        """Append the values of keys to the log in a new epoch, and raise the floor to the new CID.

        Returns:
            The new CID.
        """
        # An interrupted repair may have added an epoch at this CID before.
        earlier = [epoch for epoch in epochs if epoch.start < cid]
        record = orjson.dumps([[*epoch] for epoch in (*earlier, Epoch(uuid.uuid4().hex, cid))])
        self._write([(self._space.own_key("epochs"), record)])
        for start in range(0, len(keys), _BATCH):
            entries = [(key, self._backend.get(key)) for key in keys[start : start + _BATCH]]
            self._write(_core.server_batch(self._space, cid, entries))
            cid += len(entries)
        self._write([(self._space.own_key("floor"), orjson.dumps([cid, cid]))])
        return cid

    def _logged_value(self, cid: int) -> bytes | None:
        """Return the value that the change ``cid`` stores; ``None`` for a delete."""
        return _core.split_record(self._backend.get(self._space.log_key(cid)) or b"")[1]

    def _any_key(self) -> bytes:
        """Return a key to append to the log if there is no other: the CID has to rise.

        It is an existing key if there is one; else one that never existed.
        """
        return first_key(self._backend, self._space.user_start, None) or self._space.user_start

    # ------------------------------------------------------------------------------------- client

    def _repair_client(self, survey: ClientSurvey) -> None:
        self._restore_dirty_changes(survey)
        self._delete_damaged(survey)
        restored = [(key, self._dirty_value(key)) for key in survey.differing]
        self._write_all(restored)
        if restored:
            self._report(f"restored from dirty changes: {count(len(restored), 'key')}")
        # The damaged record may have had other ranges: clean keys outside of the present ones go.
        following = self._following()
        following = replace(following, is_resetting=True, is_evicting=not following.follows_all).fill_again(UNCHECKED)
        state = ClientState(uuid.uuid4().hex, 0, following, server=self._followed_server())
        # Older ones may have come back. Without a record the next generation is the first again.
        for bounds in (base_bounds(self._space), loss_bounds(self._space), uncompared_bounds(self._space)):
            self._write_all((key, None) for keys in key_chunks(self._backend, *bounds) for key in keys)
        forgotten: list[Entry] = [
            (self._space.own_key(name), None) for name in ("server", "push", "aside", "own", EARLIER_RESET, BASES)
        ]
        self._write([*forgotten, *state.replacing(None, self._space), (self._space.prefix, b"0")])
        self._report(
            "the next sync resets this client and pulls everything again; it has "
            f"{count(survey.dirty, 'dirty change')}, and those that conflict with the server's data lose and are kept "
            "in the conflict journal"
        )

    def _restore_dirty_changes(self, survey: ClientSurvey) -> None:
        """Write damaged dirty changes again, from the data: each agrees with the value of its key.

        The name of a record or the key in it may be the damaged one. The change belongs to the one
        whose value it holds. A delete may belong to both: deleting an absent key does no harm.
        """
        restored: dict[bytes, bytes] = {}
        for stored_key, _ in survey.damaged:
            if not self._space.dirty_start <= stored_key < self._space.dirty_stop:
                continue
            record = self._backend.get(stored_key) or b""
            name = stored_key[len(self._space.prefix) :]
            try:
                key, value = _core.split_record(record)
            except ValueError:
                key, value = name, b""  # no value is empty
            is_delete = value is None
            for owner in (key, name) if is_delete else (key,) if self._holds(key, value) else (name,):
                found = self._backend.get(owner)
                if (found is None) == is_delete and self._holds(owner, found):
                    restored[self._space.dirty_key(owner)] = _core.join_record(owner, found)
        self._write_all(restored.items())
        survey.damaged = [row for row in survey.damaged if row[0] not in restored]
        if restored:
            survey.dirty += len(restored)
            self._report(f"restored from the data: {count(len(restored), 'dirty change')}")

    def _holds(self, key: bytes, value: bytes | None) -> bool:
        """Return True if users may write a key, and the store has this JSON value under it."""
        try:
            self._space.check_key(_core.decode_key(key))
            if value is not None:
                orjson.loads(value)
        except (InvalidKeyError, DecodeError, orjson.JSONDecodeError):
            return False
        return self._backend.get(key) == value

    def _dirty_value(self, key: bytes) -> bytes | None:
        """Return the value that the dirty change of a key stores; ``None`` for a delete."""
        return _core.split_record(self._backend.get(self._space.dirty_key(key)) or b"")[1]

    def _following(self) -> Following:
        """Return the ranges that the client follows; all keys if they cannot be read."""
        try:
            return read_following(self._backend, self._records, 0)
        except CorruptionError:
            return Following.without_record(0)

    def _followed_server(self) -> str | None:
        """Return the id of the server that the client follows; ``None`` if it cannot be read."""
        record = self._backend.get(self._space.own_key("server"))
        try:
            server: str | None = None if record is None else state_record(self._records, "server", record, 0)[0]
        except CorruptionError:
            return None
        return server

    # --------------------------------------------------------------------------------------- both

    def _delete_damaged(self, survey: Survey) -> None:
        if survey.damaged:
            self._write_all((key, None) for key, _ in survey.damaged)
            self._report(f"deleted: {count(len(survey.damaged), 'unreadable row')}")

    def _write_all(self, entries: Iterable[Entry]) -> None:
        entries = iter(entries)
        while batch := [*islice(entries, _BATCH)]:
            self._write(batch)

    def _write(self, batch: Batch) -> None:
        with self._backend.write_lock.entry(), self._backend.exclusive() as transaction:
            transaction.write(batch, durable=True)

    def _report(self, sentence: str) -> None:
        self._result.done.append(sentence)


def _is_earlier_state(survey: ServerSurvey) -> bool:
    """Return True if the server once had exactly this state.

    Then the new epoch that begins with its next opening is enough for clients to notice.
    """
    is_complete = survey.contiguous_from == 1 and survey.last_logged == survey.cid and not survey.compacted_to
    starts = [epoch.start for epoch in survey.epochs]
    last_named = max(survey.last_decided, survey.last_committed)
    is_complete = is_complete and last_named <= survey.cid and all(start < survey.cid for start in starts)
    return is_complete and not (survey.damaged or survey.differing or survey.missing or survey.unlogged)
