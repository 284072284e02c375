"""Groups: the keys that one local batch of a client has written, to be pushed together.

A group is stored under ``P + P + "group/"`` and the cidkey of its number, as a JSON array of keys.
Dirty changes stay single records. So groups that share a dirty key belong together from then on,
and the push has the latest value of each key. A group ends when fewer than two of its keys are
dirty, when a push with it is decided, or when a later group has all of its keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from typing import Final

from .. import _core
from ..backends.base import Entry, Reader
from ..errors import CorruptionError, InvalidValueError
from ..types import Mode
from .records import OwnRecords
from .scan import rows

#: The most keys, and bytes of change records, of a batch that is a group without being asked for.
MAX_GROUP_KEYS: Final = 1000
MAX_GROUP_BYTES: Final = 4 << 20

#: The last groups that a new one may replace.
_RECENT: Final = 32
_GROUP: Final = "group/"
#: The first name after those of groups: "0" follows "/" in ASCII.
_AFTER_GROUPS: Final = "group0"


def group_bounds(space: _core.KeySpace) -> tuple[bytes, bytes]:
    """Return the range of the keys of all groups."""
    return space.own_key(_GROUP), space.own_key(_AFTER_GROUPS)


def group_key(space: _core.KeySpace, number: int) -> bytes:
    """Return the key of the group of a number, which is at least 1."""
    return space.own_key(_GROUP) + _core.cid_key(number)


class RecentGroups:
    """The last groups of a client. A new group replaces those whose keys it all has.

    Such a group connects no more keys than the new one. A client that writes the same keys in
    batches for weeks without a server would store a group for each batch otherwise.

    Args:
        own: The own records of the client.
    """

    def __init__(self, own: OwnRecords) -> None:
        self._own = own
        self._last: int | None = None
        self._keys: dict[int, frozenset[bytes]] = {}

    def new_entries(self, reader: Reader, keys: Sequence[bytes]) -> Iterator[Entry]:
        """Yield the entries of a new group, and of those that it replaces.

        Raises:
            CorruptionError: The key of a group has no number.
        """
        if self._last is None:
            self._read(reader)
        last = self._last or 0
        members = frozenset(keys)
        for number in [number for number, others in self._keys.items() if others <= members]:
            del self._keys[number]
            yield group_key(self._own.space, number), None
        self._last = last + 1
        self._keys[last + 1] = members
        if len(self._keys) > _RECENT:
            del self._keys[next(iter(self._keys))]
        yield group_key(self._own.space, last + 1), group_record(keys)

    def forget(self) -> None:
        """Forget the groups. The next call of `new_entries` reads them again."""
        self._last = None
        self._keys.clear()

    def _read(self, reader: Reader) -> None:
        """Read the last groups, as far as they are not damaged: a write does not need them."""
        last = last_group(reader, self._own)
        with closing(reader.scan(*group_bounds(self._own.space), reverse=True, values=True)) as cursor:
            found = cursor.fetch(_RECENT)
        for row in reversed(found):
            with suppress(CorruptionError):
                number, keys = parse_group(self._own, *row)
                self._keys[number] = frozenset(keys)
        self._last = last


def last_group(reader: Reader, own: OwnRecords) -> int:
    """Return the highest number of a group; 0 if there is none.

    Raises:
        CorruptionError: The key of the group has no number.
    """
    start, stop = group_bounds(own.space)
    with closing(reader.scan(start, stop, reverse=True, values=False)) as cursor:
        keys = cursor.fetch_keys(1)
    return _number(own, keys[0]) if keys else 0


def _number(own: OwnRecords, stored_key: bytes) -> int:
    try:
        return _core.parse_cid_key(stored_key[len(own.key(_GROUP)) :])
    except ValueError:
        raise own.damaged(stored_key, "of a group has no number") from None


def group_record(keys: Iterable[bytes]) -> bytes:
    """Return the keys of a group as they are stored."""
    return b"[%b]" % b",".join(map(_core.encode_json_key, keys))


def parse_group(own: OwnRecords, stored_key: bytes, record: bytes) -> tuple[int, list[bytes]]:
    """Return the number and the keys of a group.

    Raises:
        CorruptionError: The record is malformed.
    """
    document = own.decode(stored_key, record)
    if isinstance(document, list) and len(document) > 1 and all(isinstance(key, str) and key for key in document):
        keys = [*map(str.encode, document)]
        if len({*keys}) == len(keys):
            return _number(own, stored_key), keys
    raise own.damaged(stored_key, "of a group is not a list of two keys or more", record)


def distinct_keys(entries: Sequence[Entry]) -> list[bytes]:
    """Return the keys of a write, each once."""
    return [*dict.fromkeys(key for key, _ in entries)]


def belongs_together(mode: Mode, entries: Sequence[Entry], together: bool | None, limits: tuple[int, int]) -> bool:
    """Return True if the changes of a batch are to stay together.

    Args:
        mode: The mode of the store.
        entries: The batch.
        together: The caller's wish: ``None`` for a group if the batch is not too large for one.
        limits: The maximum number of changes, and bytes of change records, of a push.

    Raises:
        InvalidValueError: ``together`` is True, and the batch cannot be pushed as a whole.
    """
    if together is False or len(entries) < 2:
        return False
    if mode is not Mode.CLIENT:
        return True
    last = dict(entries)
    size = sum(len(_core.join_record(key, value)) for key, value in last.items())
    if together is None:
        return len(last) <= MAX_GROUP_KEYS and size <= MAX_GROUP_BYTES
    if len(last) > limits[0] or size > limits[1]:
        raise InvalidValueError(
            f"the batch has {len(last):,} changes of {size:,} bytes. With together=True it may have as many as one "
            f"push: {limits[0]:,} changes of {limits[1]:,} bytes. Write smaller batches, or leave together=True out"
        )
    return True


def check_together(together: object) -> bool | None:
    """Return the argument ``together`` if it is True, False or None.

    Raises:
        TypeError: It is something else.
    """
    if together is None or isinstance(together, bool):
        return together
    raise TypeError(f"together is True, False or None, not {together!r:.80}")


class Groups:
    """The groups of a client, in memory.

    Args:
        groups: The keys of each group, by its number.
    """

    def __init__(self, groups: dict[int, list[bytes]]) -> None:
        self._groups = groups
        self._of_key: dict[bytes, list[int]] = {}
        for number, keys in groups.items():
            for key in keys:
                self._of_key.setdefault(key, []).append(number)

    @classmethod
    def load(cls, reader: Reader, own: OwnRecords) -> Groups:
        """Read all groups. Memory grows with the number of their keys.

        Raises:
            CorruptionError: A record is malformed.
        """
        return cls(dict(parse_group(own, *row) for row in rows(reader, *group_bounds(own.space))))

    def __bool__(self) -> bool:
        return bool(self._groups)

    def __contains__(self, key: bytes) -> bool:
        return key in self._of_key

    def component(self, key: bytes, is_dirty: Callable[[bytes], bool]) -> list[bytes]:
        """Return the dirty keys that belong together with a dirty key, itself included, in order.

        Args:
            key: The key.
            is_dirty: Says of a key if it is dirty: the groups of a clean key are not connected.
        """
        if key not in self._of_key:
            return [key]
        found, pending = {key}, [key]
        followed: set[int] = set()
        while pending:
            for number in self._of_key.get(pending.pop(), ()):
                if number in followed:
                    continue
                followed.add(number)
                for other in self._groups[number]:
                    if other not in found and is_dirty(other):
                        found.add(other)
                        pending.append(other)
        return sorted(found)

    def ended(
        self,
        cleaned: Iterable[bytes],
        is_dirty: Callable[[bytes], bool],
        accepted: frozenset[bytes] = frozenset(),
        frozen_to: int = 0,
    ) -> list[int]:
        """Return the numbers of the groups that have ended.

        Args:
            cleaned: The keys whose groups may have ended.
            is_dirty: Says of a key if it is dirty now.
            accepted: The keys of a push that were accepted.
            frozen_to: The highest number of a group when that push was frozen.
        """
        numbers = sorted({number for key in cleaned for number in self._of_key.get(key, ())})
        return [number for number in numbers if self._has_ended(number, is_dirty, accepted, frozen_to)]

    def _has_ended(
        self, number: int, is_dirty: Callable[[bytes], bool], accepted: frozenset[bytes], frozen_to: int
    ) -> bool:
        dirty = [key for key in self._groups[number] if is_dirty(key)]
        return len(dirty) < 2 or (number <= frozen_to and accepted.issuperset(dirty))
