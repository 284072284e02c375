"""Helpers of the conformance suite: reads, writes, random data and the model to compare with."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

import pytest

from ..backends.base import Backend, Batch, Entry, Reader, Row
from ..blocking import Level, LevelTransaction
from ..errors import NotOpenError

#: Keys at which order, prefixes and bounds go wrong: the empty key, the lowest and the highest
#: bytes, and keys that are prefixes of others.
EDGES = [
    b"",
    b"\0",
    b"\0\0",
    b"\0\xff",
    b"a",
    b"a\0",
    b"a\0\0",
    b"aa",
    b"ab",
    b"b",
    b"\xc3\xbc",
    b"\xfe",
    b"\xff",
    b"\xff\xff",
]


class FailingBatch(Sequence[Entry]):
    """A batch that raises ``ArithmeticError`` after its last entry."""

    def __init__(self, entries: list[Entry]) -> None:
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries) + 1

    def __getitem__(self, index: int) -> Entry:  # type: ignore[override]  # batches are not sliced
        if index < len(self._entries):
            return self._entries[index]
        raise ArithmeticError("this batch cannot be read to its end")


class Closable(Protocol):
    """A cursor or a snapshot."""

    def close(self) -> None:
        """Release the resources."""


C = TypeVar("C", bound=Closable)


@contextmanager
def closing(resource: C) -> Iterator[C]:
    """Close a cursor or a snapshot at the end of the block."""
    try:
        yield resource
    finally:
        resource.close()


def write(backend: Backend, batch: Batch, *, durable: bool = False) -> None:
    """Write a batch in a transaction of its own, as the engine does."""
    with backend.exclusive() as transaction:
        transaction.write(batch, durable=durable)


def assert_not_open(backend: Backend) -> None:
    """Assert that every read and write raises `NotOpenError`."""
    with pytest.raises(NotOpenError):
        backend.get(b"k")
    with pytest.raises(NotOpenError):
        backend.get_many([b"k"])
    with pytest.raises(NotOpenError):
        backend.scan(None, None)
    with pytest.raises(NotOpenError):
        backend.snapshot()
    with pytest.raises(NotOpenError):
        write(backend, [(b"k", b"v")])


def count_concurrently(backends: Sequence[Backend], turns: int, timeout: float) -> int:
    """Return the value of a stored counter after all backends have incremented it concurrently.

    Each transaction sleeps between reading and writing the counter, so that another writer loses an
    increment if the transactions overlap.

    Args:
        backends: The backends. Each one increments the counter in a thread of its own.
        turns: The number of increments by each backend.
        timeout: Seconds until each thread must have ended.
    """
    start = threading.Barrier(len(backends))

    def count(backend: Backend) -> None:
        start.wait(timeout)
        for _ in range(turns):
            with backend.exclusive() as transaction:
                before = int(transaction.get(b"count") or b"0")
                time.sleep(0.0005)
                transaction.write([(b"count", b"%d" % (before + 1))])

    with ThreadPoolExecutor(len(backends)) as pool:
        for counter in [pool.submit(count, backend) for backend in backends]:
            counter.result(timeout)
    return int(backends[0].get(b"count") or b"0")


def increment_concurrently(levels: Sequence[Level], turns: int, timeout: float) -> None:
    """Increment the key ``count`` in all levels concurrently, by `Level.transact`.

    Each function sleeps between reading and writing, as in `count_concurrently`.

    Args:
        levels: The levels. Each one is used by a thread of its own, and may be given several times.
        turns: The number of increments by each thread.
        timeout: Seconds until each thread must have ended.
    """
    start = threading.Barrier(len(levels))

    def increment(tx: LevelTransaction) -> None:
        before = tx.get("count", 0)
        time.sleep(0.0005)
        tx.put("count", before + 1)

    def count(level: Level) -> None:
        start.wait(timeout)
        for _ in range(turns):
            level.transact(increment)

    with ThreadPoolExecutor(len(levels)) as pool:
        for counter in [pool.submit(count, level) for level in levels]:
            counter.result(timeout)


def rows(
    reader: Reader, start: bytes | None = None, stop: bytes | None = None, *, reverse: bool = False, chunk: int = 1000
) -> list[Row]:
    """Return all rows of a range, read in chunks."""
    found: list[Row] = []
    with closing(reader.scan(start, stop, reverse=reverse)) as cursor:
        while fetched := cursor.fetch(chunk):
            found += fetched
    return found


def keys(
    reader: Reader, start: bytes | None = None, stop: bytes | None = None, *, reverse: bool = False, chunk: int = 1000
) -> list[bytes]:
    """Return all keys of a range, read in chunks."""
    found: list[bytes] = []
    with closing(reader.scan(start, stop, reverse=reverse, values=False)) as cursor:
        while fetched := cursor.fetch_keys(chunk):
            found += fetched
    return found


def apply_batch(model: dict[bytes, bytes], batch: Batch) -> None:
    """Write a batch to the model: later entries of a key replace earlier ones, ``None`` deletes."""
    for key, value in batch:
        if value is None:
            model.pop(key, None)
        else:
            model[key] = value


def model_rows(
    model: dict[bytes, bytes], start: bytes | None, stop: bytes | None, *, reverse: bool = False
) -> list[Row]:
    """Return the rows that ``scan`` must return for the model."""
    inside = [row for row in model.items() if (start is None or start <= row[0]) and (stop is None or row[0] < stop)]
    return sorted(inside, reverse=reverse)


def random_key(rng: random.Random) -> bytes:
    """Return a random key of few letters: keys often are equal, adjacent or prefixes of others."""
    return bytes(rng.choices(b"\0\x01ab\xfe\xff", k=rng.choice([0, 1, 1, 2, 2, 3, 4])))


def random_batch(rng: random.Random) -> list[Entry]:
    """Return up to 59 random entries, about a third of them deletes."""
    return [
        (random_key(rng), None if rng.random() < 1 / 3 else rng.randbytes(rng.choice([0, 1, 20])))
        for _ in range(rng.randrange(60))
    ]


def random_bound(rng: random.Random) -> bytes | None:
    """Return a random bound of a range: ``None`` in one of five cases, else a random key."""
    return None if rng.random() < 0.2 else random_key(rng)
