"""A store for py-key-value-aio, and so for the libraries that use it, such as FastMCP.

    async with LevelStore("cache") as store:
        await store.put("answer", {"n": 42}, collection="tools", ttl=3600)

Install the extra ``key-value``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from .. import ordered
from ..aio.level import Level, Sublevel
from ..errors import InvalidValueError
from ..extras import missing
from ..types import MISSING, Delete, Put

try:
    from key_value.aio.errors import DeserializationError, SerializationError
    from key_value.aio.stores.base import (
        BaseContextManagerStore,
        BaseCullStore,
        BaseDestroyCollectionStore,
        BaseDestroyStore,
        BaseEnumerateCollectionsStore,
        BaseEnumerateKeysStore,
        ManagedEntry,
    )
except ImportError as error:
    raise ModuleNotFoundError(
        missing("treehub_level.integrations.key_value", error.name, "key-value"), name=error.name
    ) from error

__all__ = ["LevelStore"]

#: The longest collection or key that is part of a stored key as it is, in bytes of an ordered key.
#: Both together leave room for the prefix of a sublevel: a stored key has at most 1024 bytes.
_MAX_PART: Final = 400
#: Characters of a longer one that its stored key begins with.
_HEAD: Final = 100
#: Entries that `LevelStore.cull` deletes in one batch.
_BATCH: Final = 1000


class LevelStore(
    BaseContextManagerStore,
    BaseEnumerateKeysStore,
    BaseEnumerateCollectionsStore,
    BaseDestroyCollectionStore,
    BaseDestroyStore,
    BaseCullStore,
):
    """A store of py-key-value-aio in a level.

    The entry of a key is stored under ``ordered.encode((collection, key))`` in a sublevel, as a
    JSON object with ``value``, ``created_at``, ``expires_at``, ``collection`` and ``key``. It
    synchronises like each other entry. Expired entries are not returned; `cull` deletes them.
    ``put_many`` and ``delete_many`` write one atomic batch.

    Args:
        level: A level, a sublevel, or the name of a level to make: a path, say. A level that is not
            open is opened at the first use, and closed by `close` or at the end of the ``async
            with`` block. One that is open stays open. A sublevel belongs to the store alone.
        sublevel: The name of the sublevel of a level that holds the entries. The store reads and
            writes nothing else of the level.
        default_collection: The collection of calls that name none.
        **options: Further arguments of `Level`, if ``level`` is a name.

    Raises:
        TypeError: ``level`` is of another type, or ``options`` are given with a level.
    """

    def __init__(
        self,
        level: Level | Sublevel | str | os.PathLike[str],
        *,
        sublevel: str = "key-value",
        default_collection: str | None = None,
        **options: Any,
    ) -> None:
        if isinstance(level, (str, os.PathLike)):
            level = Level(level, **options)
        elif options:
            raise TypeError(f"{min(options)} is an option for a new level: give a name, not a level")
        if not isinstance(level, (Level, Sublevel)):
            raise TypeError(f"a store is made of a level, a sublevel or a name, not {level!r:.80}")
        self._level = level if isinstance(level, Level) else None
        self._entries = level.sublevel(sublevel) if isinstance(level, Level) else level
        super().__init__(default_collection=default_collection, stable_api=True)

    async def _setup(self) -> None:
        if self._level is not None and not self._level.is_open:
            await self._level.open()
            self._exit_stack.push_async_callback(self._close_level, self._level)

    async def _close_level(self, level: Level) -> None:
        self._setup_complete = False  # the next use opens the level again
        if level.is_open:
            await level.close()

    # ---------------------------------------------------------------------------------- the entries

    async def _get_managed_entry(self, *, collection: str, key: str) -> ManagedEntry | None:
        return self._entry(await self._entries.get(_stored_key(collection, key), MISSING))

    async def _get_managed_entries(self, *, collection: str, keys: Sequence[str]) -> list[ManagedEntry | None]:
        found = await self._entries.get_many([_stored_key(collection, key) for key in keys], MISSING)
        return [self._entry(document) for document in found]

    async def _put_managed_entry(self, *, collection: str, key: str, managed_entry: ManagedEntry) -> None:
        await self._put(collection, [key], [managed_entry])

    async def _put_managed_entries(
        self,
        *,
        collection: str,
        keys: Sequence[str],
        managed_entries: Sequence[ManagedEntry],
        ttl: float | None,
        created_at: datetime,
        expires_at: datetime | None,
    ) -> None:
        await self._put(collection, keys, managed_entries)

    async def _put(self, collection: str, keys: Sequence[str], entries: Sequence[ManagedEntry]) -> None:
        dump = self._serialization_adapter.dump_dict
        documents = [dump(entry, key=key, collection=collection) for key, entry in zip(keys, entries, strict=True)]
        try:
            await self._entries.batch(
                [Put(_stored_key(collection, key), document) for key, document in zip(keys, documents, strict=True)]
            )
        except InvalidValueError as error:
            raise SerializationError(f"the value cannot be stored as JSON: {error}") from error

    async def _delete_managed_entry(self, *, key: str, collection: str) -> bool:
        return await self._delete_managed_entries(keys=[key], collection=collection) == 1

    async def _delete_managed_entries(self, *, keys: Sequence[str], collection: str) -> int:
        stored = list(dict.fromkeys(_stored_key(collection, key) for key in keys))
        found = await self._entries.get_many(stored, MISSING)
        present = [key for key, document in zip(stored, found, strict=True) if document is not MISSING]
        await self._entries.batch([Delete(key) for key in present])
        return len(present)

    def _entry(self, document: Any) -> ManagedEntry | None:
        if document is MISSING:
            return None
        if not isinstance(document, dict):
            raise DeserializationError(f"the level holds another value than an entry: {document!r:.80}")
        return self._serialization_adapter.load_dict(document)

    # ------------------------------------------------------------------ collections and the store

    async def _get_collection_keys(self, *, collection: str, limit: int | None = None) -> list[str]:
        keys: list[str] = []
        async for _, document in self._entries.scan(prefix=ordered.prefix((_short(collection),))):
            if limit is not None and len(keys) >= limit:
                break
            entry = self._entry(document)
            if entry is not None and not entry.is_expired:
                keys.append(document["key"])
        return keys

    async def _get_collection_names(self, *, limit: int | None = None) -> list[str]:
        names: list[str] = []
        start = ""
        while limit is None or len(names) < limit:
            rows = await self._entries.query(gte=start, limit=1)
            if not rows:
                break
            [(key, document)] = rows
            names.append(document["collection"])
            collection = ordered.prefix(ordered.decode(key)[:1])
            start = collection[:-1] + chr(ord(collection[-1]) + 1)  # after all of its keys
        return names

    async def _delete_collection(self, *, collection: str) -> bool:
        return await self._entries.clear(prefix=ordered.prefix((_short(collection),))) > 0

    async def _delete_store(self) -> bool:
        await self._entries.clear()
        return True

    async def _cull(self) -> None:
        expired: list[Delete] = []
        async for key, document in self._entries.scan():
            entry = self._entry(document)
            if entry is not None and entry.is_expired:
                expired.append(Delete(key))
        for first in range(0, len(expired), _BATCH):
            await self._entries.batch(expired[first : first + _BATCH], together=False)


def _stored_key(collection: str, key: str) -> str:
    return ordered.encode((_short(collection), _short(key)))


def _short(text: str) -> str:
    """Return a collection or key, or for a long one its beginning and its hash (SHA-256)."""
    if len(text) <= _MAX_PART and _size(text) <= _MAX_PART:
        return text
    head = text[:_HEAD]
    while _size(head) > _MAX_PART - 2 * sha256().digest_size - 3:
        head = head[:-10]
    return f"{head}\0{sha256(text.encode()).hexdigest()}"


def _size(text: str) -> int:
    """Return the most bytes that a text takes in an ordered key: an escape is three bytes long."""
    return len(text.encode()) + 2 * sum(character <= "%" for character in text)
