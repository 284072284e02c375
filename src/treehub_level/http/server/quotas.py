"""Quotas: the keys and bytes of a database, and the writes a minute of a database and of a token.

A database that is full refuses puts, and goes on to take deletes, and to answer pulls. A client
pulls, pushes its deletes, and keeps its other changes until there is room.

The size of a database is counted by a scan, in a thread. Later writes are added to it as if each
put a new key, so the sum is never too low. Once it reaches the quota, it is counted again before a
write is refused.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from typing import Final, NamedTuple, Protocol

from ... import _core
from ...aio.level import Level, internals
from ...backends.base import Entry, Reader
from ...engine.scan import row_chunks
from ...engine.store import Store
from ...errors import LevelError
from ...types import Delete, Put
from .refusals import RefusedError, retry_later

#: Among the names of quotas: every database that has none of its own.
ALL_DATABASES: Final = "*"
#: Seconds for which a write waits for the first count of a large database. Then it goes on.
_FIRST_COUNT_SECONDS: Final = 1.0
#: A database is counted again after so many times the duration of the last count, at the earliest;
#: at once if that took less than so many seconds.
_COUNT_PAUSE: Final = 10
_QUICK_SECONDS: Final = 0.02
#: Seconds in ``Retry-After`` of a database that is full.
_FULL_RETRY: Final = 60
#: The most callers whose rate is remembered. One that is forgotten has its full rate again.
_MAX_RATES: Final = 10_000

logger = logging.getLogger("treehub_level.http")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """Limits of one database. ``None`` is no limit.

    Attributes:
        bytes: The most bytes of the keys and values of its entries, as they are stored.
        keys: The most entries.
        writes_per_minute: The most changes that are written in a minute, by all clients together.

    Raises:
        ValueError: A limit is no whole number, or is negative.
    """

    bytes: int | None = None
    keys: int | None = None
    writes_per_minute: int | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and (type(value) is not int or value < 0):
                raise ValueError(f"{name} is a number or None, not {value!r:.80}")

    @property
    def has_size(self) -> bool:
        """True if the size of the database is limited."""
        return self.bytes is not None or self.keys is not None


class Written(NamedTuple):
    """The changes of a request.

    Attributes:
        puts: The number of puts.
        bytes: The bytes of their keys and values.
        changes: The number of changes, deletes included.
    """

    puts: int
    bytes: int
    changes: int

    @classmethod
    def of_records(cls, records: Sequence[object]) -> Written:
        """Return the changes in records of a message. A malformed one is refused later."""
        entries: list[Entry] = []
        for record in records:
            try:
                entries.append(_core.split_record(record if isinstance(record, bytes) else b""))
            except ValueError:
                entries.append((b"", None))
        return cls.of_entries(entries)

    @classmethod
    def of_operations(cls, ops: Iterable[Put | Delete]) -> Written:
        """Return the changes of operations with encoded values."""
        return cls.of_entries(
            (op.key.encode(errors="surrogatepass"), op.value if isinstance(op, Put) else None) for op in ops
        )

    @classmethod
    def of_entries(cls, entries: Iterable[Entry]) -> Written:
        """Return the changes in entries."""
        puts = size = changes = 0
        for key, value in entries:
            changes += 1
            if value is not None:
                puts += 1
                size += len(key) + len(value)
        return cls(puts, size, changes)


class Usage(NamedTuple):
    """The size of a database.

    Attributes:
        keys: The number of its entries.
        bytes: The bytes of their keys and values.
    """

    keys: int
    bytes: int


class CountableDatabases(Protocol):
    """The part of a hub that quotas use."""

    @property
    def quotas(self) -> Mapping[str, Quota] | Quota | None:
        """The quota of each database, or one for each name."""

    def use(self, name: str) -> AbstractAsyncContextManager[Level]:
        """Provide a database, open for the length of the block."""

    def wants_closed(self, name: str) -> bool:
        """Return True if the use of the database should end."""


class _Meter:
    """The size of one database: the last count, and the writes since.

    Attributes:
        usage: The size, at most; ``None`` before the first count.
        counting: The count in progress.
    """

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.counting: asyncio.Task[None] | None = None
        self._since = Usage(0, 0)
        self._next_count = 0.0

    def add(self, written: Written) -> None:
        added = Usage(self._since.keys + written.puts, self._since.bytes + written.bytes)
        self._since = added
        if self.usage is not None:
            self.usage = Usage(self.usage.keys + written.puts, self.usage.bytes + written.bytes)

    @property
    def may_count(self) -> bool:
        return time.monotonic() >= self._next_count

    async def count(self, counted: Callable[[], Usage | None]) -> None:
        """Count the database in a thread. ``counted`` returns ``None`` if it was interrupted."""
        begin = time.monotonic()
        self._since = Usage(0, 0)
        found = await asyncio.to_thread(counted)
        end = time.monotonic()
        self._next_count = end + (_COUNT_PAUSE * (end - begin) if end - begin > _QUICK_SECONDS else 0)
        if found is not None:
            self.usage = Usage(found.keys + self._since.keys, found.bytes + self._since.bytes)


class _Rate:
    """A rate of writes: a bucket of tokens that may go below zero.

    So a push that is larger than the rate is admitted, too, and the next one waits for longer.
    """

    __slots__ = ("_left", "_limit", "_updated")

    def __init__(self, limit: int, now: float) -> None:
        self._limit = limit
        self._left = float(limit)
        self._updated = now

    def wait(self, limit: int, now: float) -> float:
        """Return the seconds until a write is admitted; 0 for now."""
        self._limit = limit
        self._left = min(float(limit), self._left + (now - self._updated) * limit / 60)
        self._updated = now
        if self._left >= 1:
            return 0.0
        return math.inf if not limit else (1 - self._left) * 60 / limit

    def take(self, count: int) -> None:
        self._left -= count


class Quotas:
    """Admits the writes to the databases of a hub within their quotas, and within those of callers.

    Args:
        hub: The hub.
    """

    def __init__(self, hub: CountableDatabases) -> None:
        self._hub = hub
        self._meters: dict[str, _Meter] = {}
        self._rates: dict[tuple[str, str], _Rate] = {}

    def of(self, database: str) -> Quota | None:
        """Return the quota of a database."""
        quotas = self._hub.quotas
        if quotas is None or isinstance(quotas, Quota):
            return quotas
        return quotas.get(database, quotas.get(ALL_DATABASES))

    def usages(self) -> dict[str, tuple[Quota, Usage]]:
        """Return the quota and the size of each database that was counted, for metrics."""
        found = {}
        for name, meter in tuple(self._meters.items()):
            quota = self.of(name)
            if quota is not None and meter.usage is not None:
                found[name] = quota, meter.usage
        return found

    async def admit(self, database: str, caller: str, rate: int | None, written: Written) -> None:
        """Admit a write, and count it.

        Args:
            database: The database.
            caller: The id of the caller, as for other limits.
            rate: The most changes of the caller in a minute; ``None`` for no limit.
            written: The changes.

        Raises:
            RefusedError: The database is full (507), or the rate is exceeded (429).
        """
        quota = self.of(database)
        self._admit_rates(database, caller, rate, quota, written.changes)
        if quota is None or not quota.has_size or not written.puts:
            return
        meter = self._meters.setdefault(database, _Meter())
        if meter.usage is None:
            await asyncio.wait([self._count(database, meter)], timeout=_FIRST_COUNT_SECONDS)
        if not _fits(quota, meter.usage, written):
            if meter.may_count or meter.counting is not None:
                await asyncio.wait([self._count(database, meter)])
            if meter.usage is not None and not _fits(quota, meter.usage, written):
                raise _full(database, quota, meter.usage)
        meter.add(written)

    def _count(self, database: str, meter: _Meter) -> asyncio.Task[None]:
        """Return the count in progress, or begin one."""
        if meter.counting is None:
            meter.counting = asyncio.ensure_future(self._run_count(database, meter))
        return meter.counting

    async def _run_count(self, database: str, meter: _Meter) -> None:
        try:
            async with self._hub.use(database) as level:
                store = internals(level)[0].store
                await meter.count(lambda: count_entries(store, lambda: self._hub.wants_closed(database)))
        except LevelError as error:
            logger.error("the size of database %s could not be counted: %s", database, error.code)
        finally:
            meter.counting = None

    def _admit_rates(self, database: str, caller: str, rate: int | None, quota: Quota | None, count: int) -> None:
        limits = [
            (("caller", caller), rate),
            (("database", database), None if quota is None else quota.writes_per_minute),
        ]
        now = time.monotonic()
        found: list[_Rate] = []
        for key, limit in limits:
            if limit is None:
                continue
            if key not in self._rates and len(self._rates) >= _MAX_RATES:
                del self._rates[next(iter(self._rates))]
            bucket = self._rates.setdefault(key, _Rate(limit, now))
            seconds = bucket.wait(limit, now)
            if seconds:
                raise _too_fast(key[0], limit, seconds)
            found.append(bucket)
        for bucket in found:
            bucket.take(count)


def count_entries(store: Store, is_interrupted: Callable[[], bool]) -> Usage | None:
    """Count the entries of a server. Return ``None`` if the count was interrupted."""
    start = store.server("counting").space.user_start

    def read(reader: Reader, _: int) -> Usage | None:
        keys = size = 0
        for chunk in row_chunks(reader, start, None):
            keys += len(chunk)
            size += sum(len(key) + len(value) for key, value in chunk)
            if is_interrupted():
                return None
        return Usage(keys, size)

    return store.read_step(read)


def _fits(quota: Quota, usage: Usage | None, written: Written) -> bool:
    if usage is None:
        return True
    has_keys = quota.keys is None or usage.keys + written.puts <= quota.keys
    return has_keys and (quota.bytes is None or usage.bytes + written.bytes <= quota.bytes)


def _full(database: str, quota: Quota, usage: Usage) -> RefusedError:
    limits = {name: value for name, value in (("bytes", quota.bytes), ("keys", quota.keys)) if value is not None}
    shown = " and ".join(f"{value:,} {name}" for name, value in limits.items())
    return RefusedError(
        507,
        "LEVEL_QUOTA",
        f"the database {database} is full: it may have {shown}, and has {usage.bytes:,} bytes in {usage.keys:,} keys. "
        "It takes deletes: delete entries, or ask its operator for more",
        headers={"retry-after": str(_FULL_RETRY)},
        details={"quota": limits, "used": usage._asdict()},
    )


def _too_fast(subject: str, limit: int, seconds: float) -> RefusedError:
    whose = "this token" if subject == "caller" else "this database"
    wait = _FULL_RETRY if math.isinf(seconds) else math.ceil(seconds)
    return retry_later(
        429, "LEVEL_RATE", f"{whose} may write {limit:,} changes a minute: try again in {wait} seconds", seconds=wait
    )
