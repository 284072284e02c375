"""Limits on pushing that the protocol does not know of.

A proxy may limit the size of a request body, a token may forbid writing, and a database may be
full: it still accepts deletes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from typing import Final, NamedTuple

from .. import _core
from ..backends.base import Entry, Reader, Row, bounded_fetcher
from ..engine.scan import first_key
from ..errors import ForbiddenError, SyncError, TransportError
from .canonical import canonical
from .messages import MAX_BYTES

#: Dirty changes to read at a time, and their bytes.
_FETCH, _FETCH_BYTES = 1000, 1 << 20
#: A push of more bytes than this may be the reason for a broken connection: some proxies close the
#: connection instead of sending status 413.
_LARGE = 64 << 10
#: The status of a database that is full: "Insufficient Storage" (RFC 4918).
FULL_STATUS: Final = 507
#: The maximum number of keys that an error message lists.
_SHOWN = 5
#: The maximum number of keys in the attribute ``keys`` of a `ForbiddenError`.
_LISTED = 1000


def is_dirty(reader: Reader, space: _core.KeySpace) -> bool:
    """Return True if a client has dirty changes."""
    return first_key(reader, space.dirty_start, space.dirty_stop) is not None


class PushLimits:
    """Limits on pushing: at first those of the protocol, later those learnt from errors.

    Attributes:
        max_bytes: The maximum size of a push, in bytes of JSON. A push of one change may be larger.
        forbidden: The error that forbade pushing; ``None`` while pushing is allowed.
        full: The error of a database that is full; ``None`` if it has taken all changes. Only
            deletes are pushed in the rest of the session.
        contended: The stored keys of dirty changes that this session does not push any more, since
            others write their keys all the time.
    """

    def __init__(self) -> None:
        self.max_bytes = MAX_BYTES
        self.forbidden: ForbiddenError | None = None
        self.full: TransportError | None = None
        self.contended: frozenset[bytes] = frozenset()
        #: Deletes that belong together with other writes, while the database is full.
        self._mixed: set[bytes] = set()
        #: The changes that are held back, by their stored keys.
        self._too_large: dict[bytes, _HeldBack] = {}

    @property
    def may_hold_back(self) -> bool:
        """True if these limits may keep a dirty change from being pushed."""
        return self.forbidden is not None or self.full is not None or bool(self._too_large)

    def begin_session(self) -> None:
        """Forget the limits that may have changed since the last session."""
        self.contended = frozenset()
        self.full = None
        self._mixed.clear()

    def takes(self, rows: Sequence[Row]) -> bool:
        """Return False for changes that belong together, if a full database does not take them."""
        if self.full is None or all(_is_delete(record) for _, record in rows):
            return True
        self._mixed.update(key for key, _ in rows)
        return False

    def may_be_too_large(self, push: Sequence[Entry], error: TransportError) -> bool:
        """Return True if a push may have failed because of its size.

        That is: the database is full, the status is 413, or the push is large and the connection
        broke without a status.
        """
        is_large = error.status is None and _size(push) > _LARGE
        return bool(push) and (error.status in (413, FULL_STATUS) or is_large)

    def shrink(self, push: Sequence[Entry], groups: Sequence[tuple[int, int]], space: _core.KeySpace) -> None:
        """Lower the limits after a push that was too large.

        The next push holds half as many bytes. A push of a single change, or of one group, cannot
        be halved: it is held back until a value changes.

        Args:
            push: The push.
            groups: The runs of its changes that belong together.
            space: The key space of the store.
        """
        if len(push) == 1 or (0, len(push)) in groups:
            self._too_large |= {
                space.dirty_key(key): _HeldBack.of(_core.join_record(key, value)) for key, value in push
            }
        else:
            self.max_bytes = _size(push) // 2

    def hold_back(self, dirty_keys: Iterable[bytes], reader: Reader) -> None:
        """Hold back dirty changes that belong together, until the value of one of them changes."""
        for dirty_key in dirty_keys:
            record = reader.get(dirty_key)
            if record is not None:
                self._too_large[dirty_key] = _HeldBack.of(record)

    def pushable_rows(self, reader: Reader, space: _core.KeySpace) -> Generator[Row, None, None]:
        """Yield the dirty changes that are neither too large nor contended, in key order."""
        with closing(reader.scan(space.dirty_start, space.dirty_stop)) as cursor:
            fetch = bounded_fetcher(cursor)
            while rows := fetch(_FETCH, _FETCH_BYTES):
                for row in rows:
                    is_taken = self.full is None or (_is_delete(row[1]) and row[0] not in self._mixed)
                    if is_taken and not self._is_too_large(*row) and row[0] not in self.contended:
                        yield row

    def has_pushable(self, reader: Reader, space: _core.KeySpace) -> bool:
        """Return True if there is a dirty change that may be pushed."""
        if self.forbidden is not None:
            return False
        if self._too_large or self.contended or self.full is not None:
            with closing(self.pushable_rows(reader, space)) as rows:
                return next(rows, None) is not None
        return is_dirty(reader, space)

    def held_back_error(self, reader: Reader, space: _core.KeySpace) -> SyncError | None:
        """Return the error that lists the changes that cannot be pushed; ``None`` without any."""
        if self.forbidden is not None:
            return self._forbidden_error(reader, space)
        return self._too_large_error(reader, space) or (self.full and self._full_error(self.full, reader, space))

    def _forbidden_error(self, reader: Reader, space: _core.KeySpace) -> ForbiddenError | None:
        with closing(reader.scan(space.dirty_start, space.dirty_stop, values=False)) as cursor:
            keys = [_core.decode_key(key[len(space.prefix) :]) for key in cursor.fetch_keys(_LISTED)]
        if not keys:
            return None
        return ForbiddenError(
            f"{self.forbidden}. The server's changes were pulled; these local changes stay dirty until this client "
            f"may push: {_listed([f'{key!r:.80}' for key in keys])}",
            keys=keys,
        )

    def _full_error(self, full: TransportError, reader: Reader, space: _core.KeySpace) -> TransportError | None:
        with closing(reader.scan(space.dirty_start, space.dirty_stop, values=False)) as cursor:
            keys = [_core.decode_key(key[len(space.prefix) :]) for key in cursor.fetch_keys(_LISTED)]
        if not keys:
            return None
        return TransportError(
            f"{full}. The server's changes were pulled, and deletes were pushed; these local changes stay dirty until "
            f"there is room: {_listed([f'{key!r:.80}' for key in keys])}",
            status=full.status,
            retry_after=full.retry_after,
            keys=keys,
        )

    def _too_large_error(self, reader: Reader, space: _core.KeySpace) -> TransportError | None:
        present = ((key, reader.get(key)) for key in self._too_large)
        held_back = {key for key, record in present if record is not None and self._is_too_large(key, record)}
        self._too_large = {key: held for key, held in self._too_large.items() if key in held_back}
        if not self._too_large:
            return None
        sizes = {_core.decode_key(key[len(space.prefix) :]): held.size for key, held in self._too_large.items()}
        return TransportError(
            "changes, or changes that were written together, are too large for the server, or for a proxy in front of "
            f"it: "
            f"{_listed([f'{key!r:.80} ({size:,} bytes)' for key, size in sizes.items()])}. Everything else is "
            "synchronised. Write smaller values to these keys, or raise the limit on request bodies",
            status=413,
            keys=list(sizes),
        )

    def _is_too_large(self, key: bytes, record: bytes) -> bool:
        return key in self._too_large and self._too_large[key] == _HeldBack.of(record)


class _HeldBack(NamedTuple):
    """A change that is held back.

    Attributes:
        digest: The digest of its record.
        size: The size of the record, in bytes.
    """

    digest: bytes
    size: int

    @classmethod
    def of(cls, record: bytes) -> _HeldBack:
        """Return the change with a record."""
        form = canonical(record)
        return cls(hashlib.sha256(form).digest(), len(form))


def _is_delete(record: bytes) -> bool:
    return _core.split_record(record)[1] is None


def _size(push: Sequence[Entry]) -> int:
    return sum(len(_core.join_record(*entry)) for entry in push)


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
