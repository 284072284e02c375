"""Convert stores: a NORMAL store to another mode, a log of ``@treehub/level`` to this format."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from typing import Any

import orjson

from .. import _core
from ..backends.base import Backend, Batch, Entry, Reader, Row, Transaction
from ..backends.registry import create
from ..engine.codec import unpadded_cid
from ..engine.identity import (
    birth_records,
    find_identity,
    has_unpadded_ids,
    mode_by_shape,
    refuse_half_made,
    shape_of,
)
from ..engine.records import OwnRecords, StoreIdentity
from ..engine.scan import row_chunks
from ..errors import (
    CorruptionError,
    DecodeError,
    InvalidKeyError,
    InvalidValueError,
    LockedError,
    ModeMismatchError,
    StateError,
)
from ..types import Mode

#: Rows to read and write at a time.
_BATCH = 1000


def stored_mode(
    name: str | os.PathLike[str],
    *,
    backend: str | type[Backend] | Callable[..., Backend] = "leveldb",
    prefix: str = "!",
    **backend_options: Any,
) -> Mode | None:
    """Return the mode in which a store was created. No store is created, and none is changed.

    Another process may have the store open meanwhile, and may open it. The mode of a store of
    ``@treehub/level`` is inferred from its metadata. A store without metadata is NORMAL.

    Args:
        name: The store.
        backend: As for `Level`.
        prefix: As for `Level`.
        **backend_options: As for `Level`.

    Returns:
        The mode; ``None`` if there is no store.

    Raises:
        StorageError, CorruptionError: The store cannot be read.
    """
    store, space = create(backend, os.fspath(name), backend_options), _core.KeySpace(prefix)
    if not store.exists():
        return None
    store.open_read_only()
    try:
        return identity_of(store, OwnRecords(space, store.name))[0]
    finally:
        store.close()


def identity_of(reader: Reader, records: OwnRecords) -> tuple[Mode, str | None]:
    """Return the mode and the id of a store.

    The id is ``None`` for a NORMAL store, and for a store of ``@treehub/level``.

    Raises:
        CorruptionError: The identity record is damaged, or lost.
    """
    identity = find_identity(reader, records, strict=False)
    return (mode_by_shape(reader, records), None) if identity is None else identity


# ------------------------------------------------------------------------------------------- adopt


def adopt(backend: Backend, mode: Mode, space: _core.KeySpace, progress: Callable[[int], object] | None) -> None:
    """Convert a NORMAL store to ``mode``.

    A change record is written for each key, in batches, and at the end the store's identity. The
    record ``P P adopting`` holds the progress, so that a second call continues an interrupted one.

    Args:
        backend: The store, closed.
        mode: ``Mode.SERVER`` or ``Mode.CLIENT``.
        space: The key space of the store.
        progress: Called after each batch with the number of keys that were converted so far.
    """
    if not backend.exists():
        raise StateError(f"there is no store at {backend.name!r} to adopt")
    backend.open()
    try:
        begun = _begin(backend, mode, space)
        if begun is None:
            return
        store_id, after, done = begun
        for rows in row_chunks(backend, space.user_start if after is None else after + b"\0", None):
            with backend.write_lock.entry(), backend.exclusive() as transaction:
                _check_alone(transaction, space, _progress(store_id, mode, after, done), backend.name)
                after, done = rows[-1][0], done + len(rows)
                transaction.write(_adopted(transaction, mode, space, rows, store_id, done))
            if progress is not None:
                progress(done)
        with backend.write_lock.entry(), backend.exclusive() as transaction:
            _check_alone(transaction, space, _progress(store_id, mode, after, done), backend.name)
            transaction.write([*birth_records(space, mode, store_id), (space.own_key("adopting"), None)], durable=True)
    finally:
        backend.close()


def _begin(backend: Backend, mode: Mode, space: _core.KeySpace) -> tuple[str, bytes | None, int] | None:
    """Begin or continue an adoption.

    Returns:
        The store id, the last converted key, and the number of converted keys; ``None`` if the
        store has the mode already.
    """
    refuse_half_made(backend, backend.name)
    records = OwnRecords(space, backend.name)
    # An interrupted adoption ends with the identity record: until then the other records have none.
    record = records.adoption(backend)
    identity: StoreIdentity | None = None if record else find_identity(backend, records, strict=False)
    if identity is not None:
        if identity.mode is mode:
            return None
        raise ModeMismatchError(
            f"{backend.name!r} was created in {identity.mode.name} mode: only NORMAL stores can be adopted"
        )
    if record is None:
        _check_all(backend, mode, space)
        store_id = uuid.uuid4().hex
        with backend.write_lock.entry(), backend.exclusive() as transaction:
            _check_alone(transaction, space, None, backend.name)
            transaction.write([(space.own_key("adopting"), _progress(store_id, mode, None, 0))])
        return store_id, None, 0
    if record.mode is not mode:
        raise ModeMismatchError(
            f"{backend.name!r} is partly adopted as a {record.mode.value}: finish that with the same mode first"
        )
    return record.id, None if record.after is None else record.after.encode(), record.done


def _check_alone(reader: Reader, space: _core.KeySpace, record: bytes | None, name: str) -> None:
    """Raise LockedError if another process adopts the same shared store at the same time."""
    found = reader.get(space.own_key("adopting"))
    if found != record or reader.get(space.own_key("store")) is not None:
        raise LockedError(
            f"{name!r} is being adopted by another process at the same time: wait until that process has finished"
        )


def _check_all(backend: Backend, mode: Mode, space: _core.KeySpace) -> None:
    """Raise an error for the first key or value that the mode does not allow."""
    encoder = _core.Encoder(space)
    for rows in row_chunks(backend, None, None):
        for stored_key, value in rows:
            try:
                key = _core.decode_key(stored_key)
                encoder.key(key)
            except (InvalidKeyError, DecodeError) as error:
                raise InvalidKeyError(
                    f"{backend.name!r} cannot become a {mode.value}: {error}. Delete or rename that key first"
                ) from error
            try:
                _core.encode_value(_core.json_value(value), _core.MAX_VALUE_BYTES)
            except InvalidValueError as error:
                raise InvalidValueError(
                    f"{backend.name!r} cannot become a {mode.value}: the value of {key!r:.80} is not allowed: {error}. "
                    "Write another value to that key, or delete it"
                ) from error


def _adopted(reader: Reader, mode: Mode, space: _core.KeySpace, rows: list[Row], store_id: str, done: int) -> Batch:
    if mode is Mode.SERVER:
        batch = _core.server_batch(space, OwnRecords(space).cid(reader), rows)
    else:
        batch = _core.client_batch(space, rows)
    batch.append((space.own_key("adopting"), _progress(store_id, mode, rows[-1][0], done)))
    return batch


def _progress(store_id: str, mode: Mode, after: bytes | None, done: int) -> bytes:
    return orjson.dumps(
        {"id": store_id, "mode": mode.value, "after": None if after is None else after.decode(), "done": done}
    )


# ----------------------------------------------------------------------------------------- upgrade


def upgrade(
    name: str | os.PathLike[str],
    *,
    backend: str | type[Backend] | Callable[..., Backend] = "leveldb",
    prefix: str = "!",
    progress: Callable[[int], object] | None = None,
    **backend_options: Any,
) -> int:
    """Rewrite the log of a server of ``@treehub/level`` so that change ids sort in numeric order.

    The store is changed in place, in bounded memory. An interrupted upgrade can be run again. Other
    stores are left unchanged.

    Args:
        name: The store.
        backend: As for `Level`.
        prefix: As for `Level`.
        progress: Called after each batch with the number of changes rewritten so far.
        **backend_options: As for `Level`.

    Returns:
        The number of changes rewritten: 0 if there was nothing to do.

    Raises:
        StateError: There is no store, or it is an interrupted copy.
        LockedError, StorageError, CorruptionError: The store cannot be opened, read or written.
    """
    store, space = create(backend, os.fspath(name), backend_options), _core.KeySpace(prefix)
    if not store.exists():
        raise StateError(f"there is no store at {store.name!r}")
    store.open()
    rewritten = 0
    try:
        refuse_half_made(store, store.name)
        records = OwnRecords(space, store.name)
        if find_identity(store, records, strict=False) is not None:
            return 0
        if not _is_unpadded_server(store, records):
            return 0
        for rows in row_chunks(store, space.log_start, space.prefix + b":"):
            with store.write_lock.entry(), store.exclusive() as transaction:
                rewritten += _pad(transaction, space, rows)
            if progress is not None:
                progress(rewritten)
        with store.write_lock.entry(), store.exclusive() as transaction:
            transaction.write([(space.prefix, transaction.get(space.prefix))], durable=True)
    finally:
        store.close()
    return rewritten


def _is_unpadded_server(reader: Reader, records: OwnRecords) -> bool:
    space = records.space
    shape = shape_of(reader, records)
    if shape == "either":
        # Each sampled record has a number as its key, and is a change of that same key. A log and a
        # dirty set can both look like that, but only a log has a record under its CID.
        cid = records.cid(reader)
        newest = [space.prefix + b"%d" % cid, *([space.log_key(cid)] if cid else [])]
        if not any(reader.get_many(newest)):
            return False
    return shape in ("server", "either") and has_unpadded_ids(reader, space)


def _pad(transaction: Transaction, space: _core.KeySpace, rows: list[Row]) -> int:
    batch: list[Entry] = []
    for stored_key, record in rows:
        name = stored_key[len(space.prefix) :]
        if len(name) == 1:
            continue
        cid = unpadded_cid(name)
        if cid is None:
            raise CorruptionError(f"the key {stored_key!r} in the change log is not a change id")
        batch += [(space.log_key(cid), record), (stored_key, None)]
    if batch:
        transaction.write(batch)
    return len(batch) // 2
