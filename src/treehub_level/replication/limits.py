"""What may be pushed: what is on the way, a proxy say, may carry less than the protocol allows, a token nothing."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import chain

from .. import _core
from ..backends.base import Entry, Reader, Row
from ..errors import ForbiddenError, SyncError, TransportError
from .fields import MAX_CHANGES
from .manual import same_record
from .messages import MAX_BYTES

#: Dirty changes that are read at a time: values may be large.
_FETCH = 64
#: Bytes of a push that something on the way may find too many without a word: it hangs up.
_LARGE = 64 << 10
#: Keys that a message names.
_SHOWN = 5


def is_dirty(reader: Reader, space: _core.KeySpace) -> bool:
    """Whether a client has dirty changes."""
    with closing(reader.scan(space.dirty_start, space.dirty_stop, values=False)) as cursor:
        return bool(cursor.fetch_keys(1))


class PushLimits:
    """What may be pushed: as much as the protocol allows, less after each refusal for its size, nothing if forbidden.

    Attributes:
        size: Bytes of keys and values that a push may have. One change is a push, whatever its size.
        refusal: What forbids to push.
    """

    def __init__(self) -> None:
        self.size = MAX_BYTES
        self.refusal: ForbiddenError | None = None
        self._too_large: dict[bytes, bytes] = {}

    @property
    def withholds(self) -> bool:
        """Whether there may be changes that are not pushed."""
        return self.refusal is not None or bool(self._too_large)

    def doubts(self, push: Sequence[Entry], error: TransportError) -> bool:
        """Whether a push may have failed for its size: somebody said so, or it is large and the connection broke."""
        return bool(push) and (error.status == 413 or (error.status is None and _size(push) > _LARGE))

    def refused(self, push: Sequence[Entry], space: _core.KeySpace) -> None:
        """A push was too large: take half of it next time; if it is a single change, hold it back until it changes."""
        if len(push) == 1:
            ((key, value),) = push
            self._too_large[space.dirty_key(key)] = _core.join_record(key, value)
        else:
            self.size = _size(push) // 2

    def rows(self, reader: Reader, space: _core.KeySpace) -> Generator[Row, None, None]:
        """The dirty changes that may be pushed, in key order."""
        with closing(reader.scan(space.dirty_start, space.dirty_stop)) as cursor:
            for row in chain.from_iterable(iter(lambda: cursor.fetch(_FETCH), [])):
                if not self._holds(*row):
                    yield row

    def is_used(self, reader: Reader, space: _core.KeySpace) -> bool:
        """Whether there is anything to push."""
        if self.refusal is not None:
            return False
        if self._too_large:
            with closing(self.rows(reader, space)) as rows:
                return next(rows, None) is not None
        return is_dirty(reader, space)

    def complaint(self, reader: Reader, space: _core.KeySpace) -> SyncError | None:
        """The error that names what is dirty still and could not be pushed; ``None`` if nothing is."""
        return self._too_large_still(reader) if self.refusal is None else self._forbidden_still(reader, space)

    def _forbidden_still(self, reader: Reader, space: _core.KeySpace) -> ForbiddenError | None:
        with closing(reader.scan(space.dirty_start, space.dirty_stop, values=False)) as cursor:
            keys = [_core.decode_key(key[len(space.prefix) :]) for key in cursor.fetch_keys(MAX_CHANGES)]
        if not keys:
            return None
        return ForbiddenError(
            f"{self.refusal}. What the server has is here, and what was changed here stays here until it may be "
            f"pushed: {_named([f'{key!r:.80}' for key in keys])}",
            keys=keys,
        )

    def _too_large_still(self, reader: Reader) -> TransportError | None:
        stored = list(self._too_large)
        records = zip(stored, reader.get_many(stored), strict=True)
        self._too_large = {key: record for key, record in records if record is not None and self._holds(key, record)}
        if not self._too_large:
            return None
        held = self._too_large.values()
        sizes = {_core.decode_key(_core.split_record(record)[0]): len(record) for record in held}
        return TransportError(
            "too large to be sent to the server, or through what stands before it: "
            f"{_named([f'{key!r:.80} ({size:,} bytes)' for key, size in sizes.items()])}. Everything else is "
            "synchronised: write something smaller there, or have the limit raised",
            status=413,
            keys=list(sizes),
        )

    def _holds(self, key: bytes, record: bytes) -> bool:
        return key in self._too_large and same_record(record, self._too_large[key])


def _size(push: Sequence[Entry]) -> int:
    return sum(len(key) + len(value or b"") for key, value in push)


def _named(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
