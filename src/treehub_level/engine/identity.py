"""The identity of a store: its own record, and the recognition of stores that have none.

Stores written by the npm package `@treehub/level` have no such record. Their metadata is sampled.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import closing
from typing import Literal

import orjson

from .. import _core
from ..backends.base import Backend, Entry, Reader
from ..errors import ModeMismatchError, StateError
from ..types import Mode
from .base_values import BaseRecording, bases_at_opening
from .codec import unpadded_cid
from .commits import last_commit
from .following import following_at_opening
from .log import last_logged
from .modes import AnyMode, Client, Normal, Server
from .records import FORMAT, OwnRecords, StoreIdentity, copying_record
from .scan import first_key

#: Rows of metadata sampled at each end, to tell servers of `@treehub/level` from its clients.
_SAMPLE = 64

#: The kind of a store without an identity record, by its metadata: see `shape_of`.
Shape = Literal["empty", "plain", "server", "client", "either"]


def identify(
    backend: Backend,
    mode: Mode,
    records: OwnRecords,
    *,
    read_only: bool = False,
    keep_base: bool | None = False,
    audit: bool = False,
    follow: Sequence[str] | None = None,
) -> AnyMode:
    """Check or record the mode of a store, and return the strategy of the mode.

    A client opens although its replication state may be damaged: its data and its dirty changes can
    still be read. ``sync`` checks that state.

    Args:
        backend: The backend, open.
        mode: The mode to open the store in.
        records: The own records of the store.
        read_only: True if the backend is open for reading only. Nothing is recorded then.
        keep_base: True if a client keeps base values; ``None`` if it does as at the last opening.
        audit: See `Server`.
        follow: The prefixes that a new client follows; ``None`` for all keys.

    Raises:
        ModeMismatchError: The store was made in another mode, or holds data without a mode.
        StateError: The store needs ``upgrade``, or an ``adopt`` or a ``copy`` was interrupted.
        CorruptionError: The store's own records, or its log and its CID, contradict each other.
    """
    if read_only:
        with closing(backend.snapshot()) as snapshot:
            return _identify_in(snapshot, backend, mode, records, keep_base, audit, follow)[0]
    with backend.write_lock.entry(), backend.exclusive() as transaction:
        strategy, born = _identify_in(transaction, backend, mode, records, keep_base, audit, follow)
        if born:
            transaction.write(born, durable=True)
    return strategy


def opening_entries(reader: Reader, backend: Backend, mode: Mode, records: OwnRecords) -> Sequence[Entry]:
    """Return the records that opening a store in a mode would write; write nothing.

    Raises:
        LevelError: The store would not open: see `identify`.
    """
    return _identify_in(reader, backend, mode, records, None, False, None)[1]


def _identify_in(
    reader: Reader,
    backend: Backend,
    mode: Mode,
    records: OwnRecords,
    keep_base: bool | None,
    audit: bool,
    follow: Sequence[str] | None,
) -> tuple[AnyMode, Sequence[Entry]]:
    """Return the strategy of the mode, and the records that the opening writes."""
    refuse_half_made(reader, backend.name)
    if records.adoption(reader) is not None:
        raise StateError(
            f"Level.adopt({backend.name!r}) was interrupted: call it again with the same mode, it will finish"
        )
    found = find_identity(reader, records, strict=mode is not Mode.NORMAL)
    if found is not None and found.mode is not mode:
        raise ModeMismatchError(
            f"{backend.name!r} was made in {found.mode.name} mode and cannot be opened in {mode.name} mode"
        )
    if mode is Mode.NORMAL:
        return Normal(), ()
    born: Sequence[Entry] = ()
    is_new = found is None and shape_of(reader, records) == "empty"
    if found is None:
        _check_newcomer(reader, mode, records, backend.name)
        store_id = uuid.uuid4().hex
        born = birth_records(records.space, mode, store_id)
    else:
        store_id = found.id
        if mode is Mode.SERVER:
            _check_server(reader, records)
    shared = backend.supports.shared
    if mode is Mode.SERVER:
        return Server(records, store_id, shared=shared, audit=audit), born
    client, changed = _client(reader, records, store_id, keep_base, follow, shared=shared, is_new=is_new)
    return client, [*born, *changed]


def _client(
    reader: Reader,
    records: OwnRecords,
    store_id: str,
    keep_base: bool | None,
    follow: Sequence[str] | None,
    *,
    shared: bool,
    is_new: bool,
) -> tuple[Client, list[Entry]]:
    """Return the strategy of a client, and the records that the opening writes."""
    client = Client(records, store_id, orjson.dumps(uuid.uuid4().hex) if shared else None)
    bases, entries = bases_at_opening(reader, records, keep_base)
    following, changed = following_at_opening(reader, records, follow, is_new=is_new)
    if following is not None:
        client.recording = BaseRecording.of(bases, following, records.cid(reader))
    return client, [*entries, *changed]


def check_shared(reader: Reader, mode: AnyMode, records: OwnRecords, name: str) -> None:
    """Check, before each step on a shared store, what other processes have made of it.

    A client reads again what its local writes record. A server checks its store when it reads its
    epochs (`Server.epoch_start`).

    Raises:
        ModeMismatchError: The store was NORMAL when it was opened, and has a mode now.
        StateError: The store was NORMAL when it was opened, and is being adopted.
    """
    if isinstance(mode, Client):
        mode.refresh(reader)
    if isinstance(mode, Normal):
        found = records.identity(reader, strict=False)
        if found is not None:
            raise ModeMismatchError(
                f"{name!r} was made a {found.mode.value} by another process since it was opened here in NORMAL mode: "
                f"close it, and open it in {found.mode.name} mode"
            )
        if records.adoption(reader) is not None:
            raise StateError(f"{name!r} is being adopted by another process: close it, and open it in its new mode")


def find_identity(reader: Reader, records: OwnRecords, *, strict: bool) -> StoreIdentity | None:
    """Return the identity of a store; ``None`` if it is NORMAL, or one of ``@treehub/level``.

    Args:
        reader: The reader.
        records: The own records of the store.
        strict: See `OwnRecords.identity`.

    Raises:
        CorruptionError: The identity record is damaged, or lost: a store that synchronises must not
            be opened as a NORMAL one, which writes neither to the log nor to the dirty set.
        StateError: The store has a format that this version does not read.
    """
    found = records.identity(reader, strict=strict)
    if found is None:
        lost = records.identity_without_record(reader)
        if lost is not None:
            raise records.damaged(
                records.key("store"), f"is missing or damaged, and other records are those of a {lost.value}"
            )
    return found


def birth_records(space: _core.KeySpace, mode: Mode, store_id: str) -> list[Entry]:
    """Return the metadata records of a new store."""
    record = orjson.dumps({"id": store_id, "mode": mode.value, "format": FORMAT})
    records: list[Entry] = [(space.own_key("store"), record)]
    if mode is Mode.CLIENT:
        records.append((space.own_key("id"), orjson.dumps([uuid.uuid4().hex, 0])))
    return records


def refuse_half_made(reader: Reader, name: str) -> None:
    """Raise StateError if the store is the unfinished target of a copy."""
    record = copying_record(reader)
    if record is not None:
        raise StateError(
            f"{name!r} is a half-made copy of {record['from']!r}: "
            f"run `treehub-level copy {record['from']} {name}` again, with the same options, and it will finish"
        )


def _check_newcomer(reader: Reader, mode: Mode, records: OwnRecords, name: str) -> None:
    shape = shape_of(reader, records)
    if shape == "plain":
        raise ModeMismatchError(
            f"{name!r} holds data and was not made in {mode.name} mode; "
            f"Level.adopt({name!r}, mode=Level.{mode.name}) makes it a {mode.value}"
        )
    if shape not in ("empty", "either", mode.value):
        raise ModeMismatchError(f"{name!r} is a {shape} store of @treehub/level and cannot be opened as a {mode.value}")
    if mode is Mode.SERVER:
        if has_unpadded_ids(reader, records.space):
            raise StateError(
                f"{name!r} is a server store of @treehub/level whose log is in wrong order: "
                f"run `treehub-level upgrade {name}` once"
            )
        _check_server(reader, records)


def _check_server(reader: Reader, records: OwnRecords) -> None:
    """Check the records of a server that its writes and replies rely on."""
    cid, logged = records.cid(reader), last_logged(reader, records)
    if cid != logged:
        raise records.damaged(records.space.prefix, f"says that the CID is {cid}, but the log ends at {logged}")
    records.floor(reader, cid)
    records.epochs(reader, cid)
    last_commit(reader, records, cid)


def shape_of(reader: Reader, records: OwnRecords) -> Shape:
    """Return the kind of a store without an identity record, by a sample of its metadata.

    On a client each record under ``P + key`` names the same key; on a server each lies under a
    number. A store in which both hold for all records (a key "1" in change 1) is ``"either"``.
    """
    space = records.space
    rows = [row for reverse in (False, True) for row in _rows(reader, space, reverse)]
    client = server = True
    strip = len(space.prefix)
    for stored_key, record in rows:
        name = stored_key[strip:]
        if not name:
            continue  # the CID, which both kinds have
        try:
            key, _ = _core.split_record(record)
        except ValueError:
            return "plain"
        client = client and key == name
        server = server and (_is_log_key(space, stored_key) or unpadded_cid(name) is not None)
    if not rows:
        return "empty" if is_empty(reader) else "plain"
    if all(key == space.prefix for key, _ in rows):
        return "client" if records.cid(reader) else "either"  # a server above CID 0 has a log
    if client and server:
        return "either"
    return "client" if client else "server" if server else "plain"


def mode_by_shape(reader: Reader, records: OwnRecords) -> Mode:
    """Return the mode of a store without an identity record; NORMAL in case of doubt."""
    return {"server": Mode.SERVER, "client": Mode.CLIENT}.get(shape_of(reader, records), Mode.NORMAL)


def has_unpadded_ids(reader: Reader, space: _core.KeySpace) -> bool:
    """Return True if the log holds CIDs of two or more digits without a length in front.

    `@treehub/level` writes them so. Their byte order is not their numeric order.
    """
    for digit in b"123456789":
        first = space.prefix + bytes([digit])
        if first_key(reader, first + b"0", first + b":") is not None:
            return True
    return False


def _is_log_key(space: _core.KeySpace, key: bytes) -> bool:
    try:
        space.parse_log_key(key)
    except ValueError:
        return False
    return True


def _rows(reader: Reader, space: _core.KeySpace, reverse: bool) -> list[tuple[bytes, bytes]]:
    with closing(reader.scan(space.prefix, space.user_start, reverse=reverse)) as cursor:
        return cursor.fetch(_SAMPLE)


def is_unused(reader: Reader, mode: Mode, records: OwnRecords) -> bool:
    """Return True if a store holds nothing but the records of its creation."""
    if mode is Mode.NORMAL:
        return is_empty(reader)
    return first_key(reader, records.space.dirty_start, None) is None and records.cid(reader) == 0


def is_empty(reader: Reader) -> bool:
    """Return True if a store holds no key at all."""
    return first_key(reader, None, None) is None
