"""The identity of a store: its own record, and the recognition of stores that have none.

Stores written by the npm package `@treehub/level` have no such record. Their metadata is sampled.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Final, Literal

import orjson

from .. import _core
from ..backends.base import Backend, Entry, Reader
from ..errors import CorruptionError, LockedError, ModeMismatchError, StateError
from ..types import Mode
from .codec import unpadded_cid
from .log import last_logged
from .modes import AnyMode, Client, Normal, Server, read_cid, read_record
from .scan import first_key

FORMAT = 1
#: Rows of metadata sampled at each end, to tell servers of `@treehub/level` from its clients.
_SAMPLE = 64

#: The key of the record of an unfinished copy. It sorts below every prefix, so that a level with
#: any prefix finds it.
COPYING_KEY: Final = b"\0treehub-level/copying"

#: The kind of a store without an identity record, by its metadata: see `shape_of`.
Shape = Literal["empty", "plain", "server", "client", "either"]


def identify(backend: Backend, mode: Mode, space: _core.KeySpace) -> AnyMode:
    """Check or record the mode of a store, and return the strategy of the mode.

    Raises:
        ModeMismatchError: The store was made in another mode, or holds data without a mode.
        StateError: The store needs ``upgrade``, or an ``adopt`` or a ``copy`` was interrupted.
        CorruptionError: The store's own records, or its log and its CID, contradict each other.
    """
    with backend.write_lock.entry(), backend.exclusive() as transaction:
        refuse_half_made(transaction, backend.name)
        if adopting_record(transaction, space) is not None:
            raise StateError(
                f"Level.adopt({backend.name!r}) was interrupted: call it again with the same mode, it will finish"
            )
        found = stored_identity(transaction, space, strict=mode is not Mode.NORMAL)
        if found is not None and found[0] is not mode:
            raise ModeMismatchError(
                f"{backend.name!r} was made in {found[0].name} mode and cannot be opened in {mode.name} mode"
            )
        if mode is Mode.NORMAL:
            return Normal()
        records: list[Entry] = []
        if found is None:
            _check_newcomer(transaction, mode, space, backend.name)
            store_id = uuid.uuid4().hex
            records += birth_records(space, mode, store_id)
        else:
            store_id = found[1]
            if mode is Mode.SERVER:
                _check_log(transaction, space, backend.name)
        shared = backend.supports.shared
        holder = transaction.get(space.own_key("holder"))
        if records:
            transaction.write(records, durable=True)
    if mode is Mode.SERVER:
        return Server(space, store_id, shared=shared)
    return Client(space, store_id, orjson.dumps(uuid.uuid4().hex) if shared else None, holder)


def check_shared(reader: Reader, mode: AnyMode, space: _core.KeySpace, name: str) -> Sequence[Entry]:
    """Check, before each write to a shared store, that another process has not taken it over.

    A server checks this when it reads its epochs (`Server.epoch_start`).

    Returns:
        Entries to write besides: the holder record, with the first write of a client. Later writes
        of other processes are then refused. A process that only reads does not become the holder.

    Raises:
        LockedError: The store is a client, and another process or level has written to it.
        ModeMismatchError: The store was NORMAL when it was opened, and has a mode now.
        StateError: The store was NORMAL when it was opened, and is being adopted.
    """
    if isinstance(mode, Client):
        key = space.own_key("holder")
        found_holder = reader.get(key)
        if found_holder not in (mode.holder, mode.previous_holder):
            raise LockedError(
                f"the client store {name!r} was opened again, and written to, by another process or another Level: a "
                "client store is for one process at a time. Close this level; reads still work until then"
            )
        if found_holder != mode.holder and mode.holder is not None:
            return [(key, mode.holder)]
    if isinstance(mode, Normal):
        found = stored_identity(reader, space, strict=False)
        if found is not None:
            raise ModeMismatchError(
                f"{name!r} was made a {found[0].value} by another process since it was opened here in NORMAL mode: "
                f"close it, and open it in {found[0].name} mode"
            )
        if adopting_record(reader, space) is not None:
            raise StateError(f"{name!r} is being adopted by another process: close it, and open it in its new mode")
    return ()


def stored_identity(reader: Reader, space: _core.KeySpace, *, strict: bool) -> tuple[Mode, str] | None:
    """Return mode and id from the store's identity record; ``None`` if there is none.

    Args:
        reader: The reader.
        space: The key space of the store.
        strict: True if any other value in the record's place is an error. In a NORMAL store it may
            be a user's value.

    Raises:
        CorruptionError: The record is damaged, and ``strict`` is set.
        StateError: The store has a format that this version does not read.
    """
    key = space.own_key("store")
    try:
        record = read_record(reader, key)
    except CorruptionError:
        if strict:
            raise
        return None
    if record is None:
        return None
    try:
        mode, store_id, version = Mode(record["mode"]), bytes.fromhex(record["id"]).hex(), record["format"]
    except (KeyError, TypeError, ValueError) as error:
        if strict:
            raise CorruptionError(f"the record {key!r} does not say what store this is: {record!r:.80}") from error
        return None
    if version != FORMAT:
        raise StateError(f"this store has format {version!r}; this version of treehub-level reads format {FORMAT}")
    return mode, store_id


def birth_records(space: _core.KeySpace, mode: Mode, store_id: str) -> list[Entry]:
    """Return the metadata records of a new store."""
    record = orjson.dumps({"id": store_id, "mode": mode.value, "format": FORMAT})
    records: list[Entry] = [(space.own_key("store"), record)]
    if mode is Mode.CLIENT:
        records.append((space.own_key("id"), orjson.dumps([uuid.uuid4().hex, 0])))
    return records


def adopting_record(reader: Reader, space: _core.KeySpace) -> dict[str, Any] | None:
    """Return the progress record of an interrupted adoption, or ``None``."""
    return _record_with(reader, space.own_key("adopting"), {"id", "mode", "after", "done"})


def copying_record(reader: Reader) -> dict[str, Any] | None:
    """Return the progress record of an interrupted copy to this store, or ``None``."""
    return _record_with(reader, COPYING_KEY, {"from", "store", "run"})


def refuse_half_made(reader: Reader, name: str) -> None:
    """Raise StateError if the store is the unfinished target of a copy."""
    record = copying_record(reader)
    if record is not None:
        raise StateError(
            f"{name!r} is a half-made copy of {record['from']!r}: "
            f"run `treehub-level copy {record['from']} {name}` again, with the same options, and it will finish"
        )


def _record_with(reader: Reader, key: bytes, fields: set[str]) -> dict[str, Any] | None:
    """Return the record under ``key`` if it has these fields.

    In a NORMAL store a user's value may have the same key.
    """
    try:
        record = read_record(reader, key)
    except CorruptionError:
        return None
    return record if isinstance(record, dict) and fields <= record.keys() else None


def _check_newcomer(reader: Reader, mode: Mode, space: _core.KeySpace, name: str) -> None:
    shape = shape_of(reader, space)
    if shape == "plain":
        raise ModeMismatchError(
            f"{name!r} holds data and was not made in {mode.name} mode; "
            f"Level.adopt({name!r}, mode=Level.{mode.name}) makes it a {mode.value}"
        )
    if shape not in ("empty", "either", mode.value):
        raise ModeMismatchError(f"{name!r} is a {shape} store of @treehub/level and cannot be opened as a {mode.value}")
    if mode is Mode.SERVER:
        if has_unpadded_ids(reader, space):
            raise StateError(
                f"{name!r} is a server store of @treehub/level whose log is in wrong order: "
                f"run `treehub-level upgrade {name}` once"
            )
        _check_log(reader, space, name)


def _check_log(reader: Reader, space: _core.KeySpace, name: str) -> None:
    cid, logged = read_cid(reader, space), last_logged(reader, space)
    if cid != logged:
        raise CorruptionError(
            f"{name!r} says that its CID is {cid}, but its log ends at {logged}: "
            f"`treehub-level verify {name}` says what else is wrong"
        )


def shape_of(reader: Reader, space: _core.KeySpace) -> Shape:
    """Return the kind of a store without an identity record, by a sample of its metadata.

    On a client each record under ``P + key`` names the same key; on a server each lies under a
    number. A store in which both hold for all records (a key "1" in change 1) is ``"either"``.
    """
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
        return "client" if read_cid(reader, space) else "either"  # a server above CID 0 has a log
    if client and server:
        return "either"
    return "client" if client else "server" if server else "plain"


def mode_by_shape(reader: Reader, space: _core.KeySpace) -> Mode:
    """Return the mode of a store without an identity record; NORMAL in case of doubt."""
    return {"server": Mode.SERVER, "client": Mode.CLIENT}.get(shape_of(reader, space), Mode.NORMAL)


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


def is_empty(reader: Reader) -> bool:
    """Return True if a store holds no key at all."""
    return first_key(reader, None, None) is None
