"""What the asyncio ``Level``, its sublevels and snapshots share: reading, writing, one-line forwards."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

from .. import blocking
from ..backends.base import Entry
from ..blocking.reads import Chunks, ReadVerbs
from ..blocking.writes import BATCH_SIZE, Operations, WriteVerbs, check_batch_size, check_durable
from ..types import JSON
from .worker import Worker

C = TypeVar("C", bound=type)

#: Items of one call that are taken or encoded at a time: whoever else uses the event loop gets turns in between.
_SLICE = 100


def documented_by(twin: type) -> Callable[[C], C]:
    """Give each method without a docstring that of the method of the same name in the blocking twin."""

    def document(cls: C) -> C:
        for name, member in vars(cls).items():
            function = member.__func__ if isinstance(member, classmethod) else getattr(member, "fget", member)
            original = getattr(twin, name, None)
            if callable(function) and original is not None and not function.__doc__:
                function.__doc__ = original.__doc__
                if isinstance(member, property):
                    setattr(cls, name, property(function))
        return cls

    return document


@documented_by(ReadVerbs)
class AsyncReadVerbs:
    """The verbs that read."""

    _blocking: ReadVerbs
    _worker: Worker

    async def get(self, key: str, default: Any = None) -> JSON:
        if self._worker.reads_inline():
            return self._blocking.get(key, default)
        return await self._worker.quick(self._blocking.get, key, default)

    async def has(self, key: str) -> bool:
        if self._worker.reads_inline():
            return self._blocking.has(key)
        return await self._worker.quick(self._blocking.has, key)

    async def get_many(self, keys: Iterable[str], default: Any = None) -> list[JSON]:
        if self._worker.reads_inline():
            return self._blocking.get_many(keys, default)
        return await self._worker.quick(self._blocking.get_many, keys, default)

    async def query(
        self,
        *,
        gt: str | None = None,
        gte: str | None = None,
        lt: str | None = None,
        lte: str | None = None,
        prefix: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
        filter: Callable[[str, JSON], object] | None = None,
    ) -> list[tuple[str, JSON]]:
        return await self._worker.read(
            self._blocking.query,
            gt=gt,
            gte=gte,
            lt=lt,
            lte=lte,
            prefix=prefix,
            reverse=reverse,
            limit=limit,
            filter=filter,
        )

    async def keys(
        self,
        *,
        gt: str | None = None,
        gte: str | None = None,
        lt: str | None = None,
        lte: str | None = None,
        prefix: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
        filter: Callable[[str], object] | None = None,
    ) -> list[str]:
        return await self._worker.read(
            self._blocking.keys,
            gt=gt,
            gte=gte,
            lt=lt,
            lte=lte,
            prefix=prefix,
            reverse=reverse,
            limit=limit,
            filter=filter,
        )

    async def values(
        self,
        *,
        gt: str | None = None,
        gte: str | None = None,
        lt: str | None = None,
        lte: str | None = None,
        prefix: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
        filter: Callable[[JSON], object] | None = None,
    ) -> list[JSON]:
        return await self._worker.read(
            self._blocking.values,
            gt=gt,
            gte=gte,
            lt=lt,
            lte=lte,
            prefix=prefix,
            reverse=reverse,
            limit=limit,
            filter=filter,
        )

    async def count(
        self,
        *,
        gt: str | None = None,
        gte: str | None = None,
        lt: str | None = None,
        lte: str | None = None,
        prefix: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
        filter: Callable[[str, JSON], object] | None = None,
    ) -> int:
        return await self._worker.read(
            self._blocking.count,
            gt=gt,
            gte=gte,
            lt=lt,
            lte=lte,
            prefix=prefix,
            reverse=reverse,
            limit=limit,
            filter=filter,
        )

    def scan(
        self,
        *,
        gt: str | None = None,
        gte: str | None = None,
        lt: str | None = None,
        lte: str | None = None,
        prefix: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
        filter: Callable[[str, JSON], object] | None = None,
    ) -> AsyncIterator[tuple[str, JSON]]:
        walk = self._blocking._range(gt, gte, lt, lte, prefix, reverse, limit)
        return self._stream(self._blocking._chunks(walk, filter))

    async def _stream(self, chunks: Chunks) -> AsyncIterator[tuple[str, JSON]]:
        try:
            while (chunk := await self._worker.read(next, chunks, None)) is not None:
                for pair in chunk:
                    yield pair
        finally:
            # A cancelled task leaves the generator to the thread that still runs it; it is closed when that lets go of
            # it.
            with suppress(ValueError):
                chunks.close()


@documented_by(blocking.Snapshot)
class Snapshot(AsyncReadVerbs):
    """A level at one moment.

    Close it, or use it in an ``async with`` block: it keeps what was overwritten since from being dropped.
    """

    _blocking: blocking.Snapshot

    def __init__(self, twin: blocking.Snapshot, worker: Worker) -> None:
        self._blocking = twin
        self._worker = worker

    async def close(self) -> None:
        self._blocking.close()

    async def __aenter__(self) -> Snapshot:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


@documented_by(WriteVerbs)
class AsyncWriteVerbs:
    """The verbs that write."""

    _blocking: WriteVerbs
    _worker: Worker

    async def put(self, key: str, value: JSON, *, durable: bool | None = None) -> None:
        self._blocking._store.require_open()
        await self._commit([self._blocking._codec.encoder.put(key, value)], durable)

    async def delete(self, key: str, *, durable: bool | None = None) -> None:
        self._blocking._store.require_open()
        await self._commit([self._blocking._codec.encoder.delete(key)], durable)

    async def del_(self, key: str, *, durable: bool | None = None) -> None:
        await self.delete(key, durable=durable)

    async def batch(self, ops: Iterable[Any], *, durable: bool | None = None) -> None:
        self._blocking._store.require_open()
        items = ops if not isinstance(ops, Iterator) else await self._page(ops, None)
        await self._commit(await self._encoded(items, self._blocking._codec.encoder.ops), durable)

    def write_batch(self, *, durable: bool | None = None) -> WriteBatch:
        self._blocking._store.require_open()
        return WriteBatch(self, durable)

    async def load(
        self,
        items: Iterable[tuple[str, JSON]] | AsyncIterable[tuple[str, JSON]],
        *,
        batch_size: int = BATCH_SIZE,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        self._blocking._store.require_open()
        check_batch_size(batch_size)
        done = 0
        async for page in self._pages(items, batch_size):
            await self._commit(await self._encoded(page, self._blocking._codec.encoder.pairs), None)
            done += len(page)
            if progress is not None:
                progress(done)
        return done

    async def clear(
        self,
        *,
        gt: str | None = None,
        gte: str | None = None,
        lt: str | None = None,
        lte: str | None = None,
        prefix: str | None = None,
    ) -> int:
        return await self._worker.read(self._blocking.clear, gt=gt, gte=gte, lt=lt, lte=lte, prefix=prefix)

    async def _commit(self, entries: Sequence[Entry], durable: bool | None) -> None:
        durable = check_durable(durable, self._blocking._durable)
        if entries:
            await self._worker.commit(entries, durable)

    async def _encoded(self, items: Any, encode: Callable[[Any], list[Entry]]) -> list[Entry]:
        """Encode items, of many a slice at a time."""
        if not isinstance(items, (list, tuple)) or len(items) <= _SLICE:
            return encode(items)
        items, entries = items[:], []
        for start in range(0, len(items), _SLICE):
            try:
                entries += encode(items[start : start + _SLICE])
            except (TypeError, ValueError):
                return encode(items)  # the message counts from the first of all
            await self._worker.breathe()
        return entries

    async def _pages(self, items: Iterable[Any] | AsyncIterable[Any], size: int) -> AsyncIterator[list[Any]]:
        """Items in lists of ``size``, the last of them shorter."""
        if not isinstance(items, AsyncIterable):
            iterator = iter(items)
            while page := await self._page(iterator, size):
                yield page
            return
        page = []
        async for item in items:
            page.append(item)
            if len(page) % _SLICE == 0:
                await self._worker.breathe()
            if len(page) == size:
                yield page
                page = []
        if page:
            yield page

    async def _page(self, items: Iterator[Any], size: int | None) -> list[Any]:
        """The next items, at most ``size``, taken a slice at a time."""
        page: list[Any] = []
        while taken := [*islice(items, _SLICE if size is None else min(_SLICE, size - len(page)))]:
            page += taken
            await self._worker.breathe()
        return page


class WriteBatch(Operations):
    """A batch that is written on leaving its ``async with`` block. Made by ``write_batch()``."""

    def __init__(self, target: AsyncWriteVerbs, durable: bool | None) -> None:
        super().__init__(target._blocking._codec)
        self._target = target
        self._durable = durable

    async def __aenter__(self) -> WriteBatch:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        entries = self.take()
        if kind is None:
            await self._target._commit(entries, self._durable)
