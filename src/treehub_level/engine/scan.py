"""Iteration over a range of stored keys, in chunks and in bounded memory."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

from ..backends.base import Reader, Row

#: Rows in a chunk: enough to make the cost of a call negligible, few enough to stay in a CPU cache.
CHUNK = 1000


def row_chunks(
    reader: Reader, start: bytes | None, stop: bytes | None, *, reverse: bool = False, size: int = CHUNK
) -> Generator[list[Row], None, None]:
    """Yield the rows of a range in key order, in lists of at most ``size``."""
    with closing(reader.scan(start, stop, reverse=reverse)) as cursor:
        while chunk := cursor.fetch(size):
            yield chunk


def key_chunks(
    reader: Reader, start: bytes | None, stop: bytes | None, *, size: int = CHUNK
) -> Generator[list[bytes], None, None]:
    """Yield the keys of a range in order, in lists of at most ``size``."""
    with closing(reader.scan(start, stop, values=False)) as cursor:
        while chunk := cursor.fetch_keys(size):
            yield chunk


def rows(
    reader: Reader, start: bytes | None, stop: bytes | None, *, reverse: bool = False, size: int = CHUNK
) -> Generator[Row, None, None]:
    """Yield the rows of a range one by one. ``size`` is the number of rows fetched at a time."""
    for chunk in row_chunks(reader, start, stop, reverse=reverse, size=size):
        yield from chunk


def rows_in(reader: Reader, folder: bytes) -> Generator[Row, None, None]:
    """Yield own records of one kind: the rows whose keys begin with ``folder``, up to a slash."""
    yield from rows(reader, folder, folder[:-1] + b"0")  # "0" follows "/" in ASCII


def first_key(reader: Reader, start: bytes | None, stop: bytes | None) -> bytes | None:
    """Return the first key of a range; ``None`` if the range is empty."""
    with closing(reader.scan(start, stop, values=False)) as cursor:
        return next(iter(cursor.fetch_keys(1)), None)
