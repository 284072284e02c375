"""What the conformance suite reads, writes and compares with."""

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
from ..errors import NotOpenError

#: Where order, prefixes and bounds go wrong: the empty key, both ends of the alphabet, keys that
#: begin with others.
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
    """A batch that cannot be read to its end."""

    def __init__(self, entries: list[Entry]) -> None:
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries) + 1

    def __getitem__(self, index: int) -> Entry:  # type: ignore[override]  # nobody slices it
        if index < len(self._entries):
            return self._entries[index]
        raise ArithmeticError("this batch cannot be read to its end")


class Closable(Protocol):
    """A cursor or a snapshot."""

    def close(self) -> None:
        """Give back what it holds."""


Held = TypeVar("Held", bound=Closable)


@contextmanager
def closing(held: Held) -> Iterator[Held]:
    """Close ``held`` at the end of the block."""
    try:
        yield held
    finally:
        held.close()


def write(backend: Backend, batch: Batch, *, durable: bool = False) -> None:
    """Write as the engine does."""
    with backend.exclusive() as transaction:
        transaction.write(batch, durable=durable)


def assert_not_open(backend: Backend) -> None:
    """Whatever reads or writes is refused."""
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


def counted_together(backends: Sequence[Backend], turns: int, patience: float) -> int:
    """What a stored number becomes that each of these raises so many times, all at once.

    Each gives way between reading and writing it, to whoever is not kept out.
    """
    begin = threading.Barrier(len(backends))

    def count(backend: Backend) -> None:
        begin.wait(patience)
        for _ in range(turns):
            with backend.exclusive() as transaction:
                before = int(transaction.get(b"count") or b"0")
                time.sleep(0.0005)
                transaction.write([(b"count", b"%d" % (before + 1))])

    with ThreadPoolExecutor(len(backends)) as pool:
        for counting in [pool.submit(count, backend) for backend in backends]:
            counting.result(patience)
    return int(backends[0].get(b"count") or b"0")


def rows(
    reader: Reader, start: bytes | None = None, stop: bytes | None = None, *, reverse: bool = False, chunk: int = 1000
) -> list[Row]:
    """Everything in a range."""
    found: list[Row] = []
    with closing(reader.scan(start, stop, reverse=reverse)) as cursor:
        while fetched := cursor.fetch(chunk):
            found += fetched
    return found


def keys(
    reader: Reader, start: bytes | None = None, stop: bytes | None = None, *, reverse: bool = False, chunk: int = 1000
) -> list[bytes]:
    """Every key in a range."""
    found: list[bytes] = []
    with closing(reader.scan(start, stop, reverse=reverse, values=False)) as cursor:
        while fetched := cursor.fetch_keys(chunk):
            found += fetched
    return found


def apply(model: dict[bytes, bytes], batch: Batch) -> None:
    """What ``write`` means."""
    for key, value in batch:
        if value is None:
            model.pop(key, None)
        else:
            model[key] = value


def model_rows(
    model: dict[bytes, bytes], start: bytes | None, stop: bytes | None, *, reverse: bool = False
) -> list[Row]:
    """What ``scan`` means."""
    inside = [row for row in model.items() if (start is None or start <= row[0]) and (stop is None or row[0] < stop)]
    return sorted(inside, reverse=reverse)


def random_key(chance: random.Random) -> bytes:
    """A key from few letters, so that keys collide, neighbour and begin with each other."""
    return bytes(chance.choices(b"\0\x01ab\xfe\xff", k=chance.choice([0, 1, 1, 2, 2, 3, 4])))


def random_batch(chance: random.Random) -> list[Entry]:
    """Puts, and half as many deletes."""
    return [
        (random_key(chance), None if chance.random() < 1 / 3 else chance.randbytes(chance.choice([0, 1, 20])))
        for _ in range(chance.randrange(60))
    ]


def random_bound(chance: random.Random) -> bytes | None:
    """An end of a range: none, or one that may or may not be a key."""
    return None if chance.random() < 0.2 else random_key(chance)
