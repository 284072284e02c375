"""The verbs of the asyncio façade that levels, sublevels and snapshots share."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from .. import blocking
from ..backends.base import Entry
from ..blocking.reads import Chunks, ReadVerbs, scan_chunks
from ..blocking.writes import BATCH_SIZE, Operations, WriteVerbs, check_batch_size, is_group
from ..engine.groups import check_together
from ..engine.namespace import Namespace, check_durable
from ..types import (
    ANY_VALUE,
    Default,
    Found,
    Key,
    KeyRange,
    Operation,
    RangeOptions,
    Value,
    Wanted,
    Written,
)
from .worker import Worker

if TYPE_CHECKING:
    from typing_extensions import Unpack

C = TypeVar("C", bound=type)

#: Items of one call that are encoded at a time. Other tasks on the event loop run in between.
_SLICE = 100


def documented_by(counterpart: type) -> Callable[[C], C]:
    """Return a decorator that copies docstrings from the blocking counterpart of a class.

    Each method without a docstring gets that of the method of the same name.
    """

    def document(cls: C) -> C:
        for name, member in vars(cls).items():
            function = member.__func__ if isinstance(member, classmethod) else getattr(member, "fget", member)
            original = getattr(counterpart, name, None)
            if callable(function) and original is not None and not function.__doc__:
                function.__doc__ = original.__doc__
                if isinstance(member, property):
                    setattr(cls, name, property(function))
        return cls

    return document


@documented_by(ReadVerbs)
class AsyncReadVerbs(Generic[Key, Value, Found]):
    """The verbs that read: see `blocking.reads.ReadVerbs`."""

    _blocking: ReadVerbs[Key, Value, Found]
    _worker: Worker

    @overload
    async def get(self, key: Key) -> Found: ...

    @overload
    async def get(self, key: Key, default: Default) -> Value | Default: ...

    async def get(self, key: Key, default: Any = None) -> Any:
        if self._worker.inline_reads_left:
            self._worker.inline_reads_left -= 1
            return self._blocking.get(key, default)
        return await self._worker.read_key(self._blocking.get, key, default)

    async def has(self, key: Key) -> bool:
        return await self._worker.read_key(self._blocking.has, key)

    @overload
    async def get_many(self, keys: Iterable[Key]) -> list[Found]: ...

    @overload
    async def get_many(self, keys: Iterable[Key], default: Default) -> list[Value | Default]: ...

    async def get_many(self, keys: Iterable[Key], default: Any = None) -> list[Any]:
        return await self._worker.read_key(self._blocking.get_many, keys, default)

    async def query(
        self, *, filter: Callable[[Key, Value], object] | None = None, **options: Unpack[RangeOptions]
    ) -> list[tuple[Key, Value]]:
        return await self._worker.read(self._blocking.query, filter=filter, **options)

    async def keys(
        self, *, filter: Callable[[Key], object] | None = None, **options: Unpack[RangeOptions]
    ) -> list[Key]:
        return await self._worker.read(self._blocking.keys, filter=filter, **options)

    async def values(
        self, *, filter: Callable[[Value], object] | None = None, **options: Unpack[RangeOptions]
    ) -> list[Value]:
        return await self._worker.read(self._blocking.values, filter=filter, **options)

    async def count(
        self, *, filter: Callable[[Key, Value], object] | None = None, **options: Unpack[RangeOptions]
    ) -> int:
        return await self._worker.read(self._blocking.count, filter=filter, **options)

    def scan(
        self, *, filter: Callable[[Key, Value], object] | None = None, **options: Unpack[RangeOptions]
    ) -> AsyncIterator[tuple[Key, Value]]:
        return self._stream(scan_chunks(self._blocking, filter, options))

    async def _stream(self, chunks: Chunks) -> AsyncIterator[tuple[Key, Value]]:
        try:
            while (chunk := await self._worker.read(next, chunks, None)) is not None:
                for pair in chunk:
                    yield pair
        finally:
            # After a cancellation a thread may still run the generator, which ends with that call.
            with suppress(ValueError):
                chunks.close()


@documented_by(blocking.Snapshot)
class Snapshot(AsyncReadVerbs[Key, Value, Found]):
    """A read-only view of a level as it was when the snapshot was taken.

    Close the snapshot, or use it in an ``async with`` block: the store keeps overwritten data for
    it.
    """

    _blocking: blocking.Snapshot[Key, Value, Found]

    def __init__(self, counterpart: blocking.Snapshot[Key, Value, Found], worker: Worker) -> None:
        self._blocking = counterpart
        self._worker = worker

    async def close(self) -> None:
        self._blocking.close()

    async def __aenter__(self) -> Snapshot[Key, Value, Found]:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


@documented_by(blocking.Snapshot)
class PastSnapshot(Snapshot[Key, Value, Found]):
    """A read-only view of a level as it was at an earlier CID.

    It reads the log, so each of its calls runs in a thread.
    """

    @overload
    async def get(self, key: Key) -> Found: ...

    @overload
    async def get(self, key: Key, default: Default) -> Value | Default: ...

    async def get(self, key: Key, default: Any = None) -> Any:
        return await self._worker.read(self._blocking.get, key, default)

    async def has(self, key: Key) -> bool:
        return await self._worker.read(self._blocking.has, key)

    @overload
    async def get_many(self, keys: Iterable[Key]) -> list[Found]: ...

    @overload
    async def get_many(self, keys: Iterable[Key], default: Default) -> list[Value | Default]: ...

    async def get_many(self, keys: Iterable[Key], default: Any = None) -> list[Any]:
        return await self._worker.read(self._blocking.get_many, keys, default)


@documented_by(WriteVerbs)
class AsyncWriteVerbs(Generic[Key, Written]):
    """The verbs that write: see `blocking.writes.WriteVerbs`."""

    _blocking: WriteVerbs[Key, Written]
    _namespace: Namespace
    _worker: Worker

    async def put(
        self,
        key: Key,
        value: Written,
        *,
        durable: bool | None = None,
        if_absent: bool = False,
        if_value: Wanted[Written] = ANY_VALUE,
    ) -> None:
        namespace = self._namespace
        if not namespace.store.guard.is_open:
            raise namespace.store.not_open()
        if if_absent or if_value is not ANY_VALUE:
            options: dict[str, Any] = {"durable": durable, "if_absent": if_absent, "if_value": if_value}
            await self._worker.write(partial(self._blocking.put, key, value, **options))
            return
        entry = namespace.codec.encoder.put(key, value)
        await self._worker.commit(
            [entry], namespace.durable if durable is None else check_durable(durable, namespace.durable)
        )

    async def delete(self, key: Key, *, durable: bool | None = None, if_value: Wanted[Written] = ANY_VALUE) -> None:
        self._namespace.store.require_open()
        if if_value is ANY_VALUE:
            await self._commit([self._namespace.codec.encoder.delete(key)], durable)
        else:
            await self._worker.write(self._blocking.delete, key, durable=durable, if_value=if_value)

    async def del_(self, key: Key, *, durable: bool | None = None, if_value: Wanted[Written] = ANY_VALUE) -> None:
        await self.delete(key, durable=durable, if_value=if_value)

    async def batch(
        self, ops: Iterable[Operation], *, durable: bool | None = None, together: bool | None = None
    ) -> None:
        self._namespace.store.require_open()
        items = ops if not isinstance(ops, Iterator) else await self._page(ops, None)
        await self._commit(await self._encoded(items, self._namespace.codec.encoder.ops), durable, together)

    def write_batch(self, *, durable: bool | None = None, together: bool | None = None) -> WriteBatch[Key, Written]:
        self._namespace.store.require_open()
        return WriteBatch(self, durable, check_together(together))

    async def load(
        self,
        items: Iterable[tuple[Key, Written]] | AsyncIterable[tuple[Key, Written]],
        *,
        batch_size: int = BATCH_SIZE,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        self._namespace.store.require_open()
        check_batch_size(batch_size)
        done = 0
        async for page in self._pages(items, batch_size):
            await self._commit(await self._encoded(page, self._namespace.codec.encoder.pairs), None)
            done += len(page)
            if progress is not None:
                progress(done)
        return done

    async def clear(self, **bounds: Unpack[KeyRange]) -> int:
        return await self._worker.read(self._blocking.clear, **bounds)

    async def _commit(self, entries: Sequence[Entry], durable: bool | None, together: bool | None = False) -> None:
        durable = check_durable(durable, self._namespace.durable)
        is_batch = check_together(together) is not False and is_group(self._namespace.store.mode, entries, together)
        if entries:
            await self._worker.commit(entries, durable, is_batch)

    async def _encoded(self, items: Any, encode: Callable[[Any], list[Entry]]) -> list[Entry]:
        """Encode items, in slices if they are many."""
        if not isinstance(items, (list, tuple)) or len(items) <= _SLICE:
            return encode(items)
        items, entries = items[:], []
        for start in range(0, len(items), _SLICE):
            try:
                entries += encode(items[start : start + _SLICE])
            except (TypeError, ValueError):
                return encode(items)  # its error message counts from the first item
            await self._worker.yield_if_due()
        return entries

    async def _pages(self, items: Iterable[Any] | AsyncIterable[Any], size: int) -> AsyncIterator[list[Any]]:
        """Yield items in lists of ``size``, the last of them shorter."""
        if not isinstance(items, AsyncIterable):
            iterator = iter(items)
            while page := await self._page(iterator, size):
                yield page
            return
        page = []
        async for item in items:
            page.append(item)
            if len(page) % _SLICE == 0:
                await self._worker.yield_if_due()
            if len(page) == size:
                yield page
                page = []
        if page:
            yield page

    async def _page(self, items: Iterator[Any], size: int | None) -> list[Any]:
        """Return the next items, at most ``size``, taken in slices."""
        page: list[Any] = []
        while taken := [*islice(items, _SLICE if size is None else min(_SLICE, size - len(page)))]:
            page += taken
            await self._worker.yield_if_due()
        return page


class WriteBatch(Operations[Key, Written]):
    """A batch that is written at the end of its ``async with`` block. Made by ``write_batch()``."""

    def __init__(self, target: AsyncWriteVerbs[Key, Written], durable: bool | None, together: bool | None) -> None:
        super().__init__(target._namespace.codec)
        self._target = target
        self._durable = durable
        self._together = together

    async def __aenter__(self) -> WriteBatch[Key, Written]:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        entries = self.take()
        if kind is None:
            await self._target._commit(entries, self._durable, self._together)
