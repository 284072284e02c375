"""Base values: the value that the server had of each dirty key of a client.

A client that keeps them writes one in the batch in which a key becomes dirty. So does every client
in a range that it is filling without pulling the log: the fill then knows which dirty changes were
made with knowledge of the server's value. A base value is stored under
``P + P + "base/" + key``, as ``[generation,value]``, or as ``[generation]`` if the server had no
such key. It counts only if its generation is the present one, in the record ``P + P + "bases"``. So
one write voids all base values, however many there are: a reset does, and an opening that does not
keep them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import orjson

from .. import _core
from ..backends.base import Entry, Reader
from ..errors import CorruptionError
from .following import Following, read_following
from .records import OwnRecords, is_cid
from .uncompared import uncompared_entry

#: The name of the record of `Bases`.
BASES: Final = "bases"
_BASE: Final = "base/"
#: The first name after those of base values: "0" follows "/" in ASCII.
_AFTER_BASES: Final = "base0"
_RECORD: Final = re.compile(rb"\[(0|[1-9][0-9]{0,15})(?:,(.+))?\]", re.DOTALL)


class Bases(NamedTuple):
    """The record of the base values of a store.

    Attributes:
        generation: The generation of the base values that count. It never decreases.
        kept: True if this opening keeps base values.
    """

    generation: int
    kept: bool

    def to_stored(self) -> bytes:
        """Return the record as it is stored."""
        return orjson.dumps(self._asdict())

    def void(self) -> Bases:
        """Return the record after all base values have become void."""
        return self._replace(generation=self.generation + 1)

    @classmethod
    def from_document(cls, document: Any) -> Bases:
        """Return the record that was decoded from JSON.

        Raises:
            ValueError: The record is malformed.
        """
        match document:
            case {"generation": generation, "kept": bool(kept)} if is_cid(generation) and len(document) == 2:
                return cls(generation, kept)
        raise ValueError('it is not {"generation", "kept"}')


class KnownBase(NamedTuple):
    """A base value that is known: the server's value, or ``None`` if it had no such key."""

    value: bytes | None


def bases_at_opening(reader: Reader, own: OwnRecords, keep: bool | None) -> tuple[Bases | None, list[Entry]]:
    """Return the record of an opening, and the entries to write.

    A damaged record counts as none: a client opens so that its data can be read, and ``sync``
    reports the damage.

    Args:
        reader: The reader.
        own: The own records of the client.
        keep: True to keep base values; ``None`` to keep them if the last opening did.
    """
    key = own.key(BASES)
    try:
        document = own.read(reader, BASES)
        found = None if document is None else Bases.from_document(document)
    except (CorruptionError, ValueError):
        return None, []
    if keep is None:
        keep = found is not None and found.kept
    if found is None:
        bases = Bases(1, True) if keep else None
    elif found.kept and not keep:
        bases = found.void()._replace(kept=False)
    else:
        bases = found._replace(kept=keep)
    return bases, [] if bases is None or bases == found else [(key, bases.to_stored())]


def base_key(space: _core.KeySpace, key: bytes) -> bytes:
    """Return the key of the base value of a user key."""
    return space.own_key(_BASE) + key


def base_bounds(space: _core.KeySpace) -> tuple[bytes, bytes]:
    """Return the range of the keys of all base values."""
    return space.own_key(_BASE), space.own_key(_AFTER_BASES)


def base_record(generation: int, value: bytes | None) -> bytes:
    """Return a base value as it is stored."""
    return b"[%d]" % generation if value is None else b"[%d,%b]" % (generation, value)


def parse_base(own: OwnRecords, stored_key: bytes, record: bytes, bases: Bases) -> KnownBase | None:
    """Return a base value; ``None`` if it is void.

    Raises:
        CorruptionError: The record is malformed, or is of a later generation than the present one.
    """
    document = own.decode(stored_key, record)
    found = _RECORD.fullmatch(record)
    if found is None or len(document) > 2:
        raise own.damaged(stored_key, "of a base value is neither [generation, value] nor [generation]", record)
    generation = int(found[1])
    if generation > bases.generation:
        raise own.damaged(
            stored_key, f"of a base value is of a later generation than the present one, {bases.generation}", record
        )
    return KnownBase(found[2]) if generation == bases.generation else None


class BaseRecording(NamedTuple):
    """The base values that local writes record.

    Attributes:
        generation: The generation of the base values.
        following: The ranges that the client follows.
        keeps_all: True to record those of all keys whose value on the server is known. Otherwise,
            and of other keys, only the values in ranges that are not filled: a part of the fill is
            compared with them.
        has_log: True if the client has pulled anything of the server.
    """

    generation: int
    following: Following
    keeps_all: bool
    has_log: bool

    @classmethod
    def of(cls, bases: Bases | None, following: Following, cid: int) -> BaseRecording | None:
        """Return the base values that a client records; ``None`` if it records none.

        Args:
            bases: The record of base values.
            following: The ranges that the client follows.
            cid: The CID of the client.
        """
        if bases is None or not (bases.kept or following.needs_base_values(cid)):
            return None
        return cls(bases.generation, following, bases.kept, cid > 0 or following.is_resetting)

    def _concerns(self, key: bytes) -> bool:
        if self.keeps_all and self.following.is_filled(key):
            return True
        return (self.has_log and self.following.is_unchecked(key)) or self.following.is_uncompared(key)

    def new_entries(
        self, reader: Reader, space: _core.KeySpace, entries: Sequence[Entry], *, shared: bool = False
    ) -> list[Entry]:
        """Return the base values of the keys that a local write makes dirty.

        In a checked range that is not filled they come with the mark of an uncompared change.

        Args:
            reader: The store before the write.
            space: The key space of the store.
            entries: The write. A key may occur more than once.
            shared: True if each read is a round trip to a database.
        """
        keys = [*{key: None for key, _ in entries if self._concerns(key)}]
        if len(keys) == 1 and not shared:  # LevelDB takes a snapshot for `get_many`
            change = reader.get(space.dirty_key(keys[0]))
            found = [change, reader.get(keys[0]) if change is None else None]
        else:
            found = reader.get_many([stored for key in keys for stored in (space.dirty_key(key), key)])
        prefix, following = space.own_key(_BASE), self.following
        recorded: list[Entry] = []
        for key, change, value in zip(keys, found[::2], found[1::2], strict=True):
            if change is not None:
                continue
            # Without a value, only a filled range tells that the server has no such key.
            if value is not None or following.is_filled(key):
                recorded.append((prefix + key, base_record(self.generation, value)))
            if following.is_uncompared(key):
                recorded.append(uncompared_entry(space, key))
        return recorded


def stored_recording(reader: Reader, own: OwnRecords) -> BaseRecording | None:
    """Return the base values that a client records, by its records; ``None`` if it records none.

    A damaged record counts as none: ``sync`` reports the damage.
    """
    try:
        document = own.read(reader, BASES)
        if document is None:
            return None
        cid = own.cid(reader)
        return BaseRecording.of(Bases.from_document(document), read_following(reader, own, cid), cid)
    except (CorruptionError, ValueError):
        return None
