"""How much one push may hold. Something on the way, a proxy say, may carry less than the protocol allows."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import chain

from .. import _core
from ..backends.base import Entry, Reader, Row
from .messages import MAX_BYTES
from .seed import same_record

#: Dirty changes that are read at a time: values may be large.
_FETCH = 64


def is_dirty(reader: Reader, space: _core.KeySpace) -> bool:
    """Whether a client has dirty changes."""
    with closing(reader.scan(space.dirty_start, space.dirty_stop, values=False)) as cursor:
        return bool(cursor.fetch_keys(1))


class Allowance:
    """What may be pushed: as much as the protocol allows, and less after each refusal for its size.

    Attributes:
        size: Bytes of keys and values that a push may have. One change is a push, whatever its size.
    """

    def __init__(self) -> None:
        self.size = MAX_BYTES
        self._too_large: dict[bytes, bytes] = {}

    def refused(self, push: Sequence[Entry], space: _core.KeySpace) -> None:
        """A push was too large: take half of it next time; if it is a single change, hold it back until it changes."""
        if len(push) == 1:
            ((key, value),) = push
            self._too_large[space.dirty_key(key)] = _core.join_record(key, value)
        else:
            self.size = sum(len(key) + len(value or b"") for key, value in push) // 2

    def rows(self, reader: Reader, space: _core.KeySpace) -> Generator[Row, None, None]:
        """The dirty changes that may be pushed, in key order."""
        with closing(reader.scan(space.dirty_start, space.dirty_stop)) as cursor:
            for row in chain.from_iterable(iter(lambda: cursor.fetch(_FETCH), [])):
                if not self._holds(*row):
                    yield row

    def is_used(self, reader: Reader, space: _core.KeySpace) -> bool:
        """Whether there is anything to push."""
        if self._too_large:
            with closing(self.rows(reader, space)) as rows:
                return next(rows, None) is not None
        return is_dirty(reader, space)

    def held_back(self, reader: Reader) -> list[bytes]:
        """The records of the changes that are held back, being dirty and too large still."""
        keys = list(self._too_large)
        records = zip(keys, reader.get_many(keys), strict=True)
        self._too_large = {key: record for key, record in records if record is not None and self._holds(key, record)}
        return list(self._too_large.values())

    def _holds(self, key: bytes, record: bytes) -> bool:
        return key in self._too_large and same_record(record, self._too_large[key])
