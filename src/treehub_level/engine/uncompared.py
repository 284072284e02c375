"""Uncompared changes: those of a checked range that were compared with nothing of the server.

In a checked range the log decides on the dirty changes, from the CID at which the client began to
pull it. Values from before that CID are not in the log. A change may have missed one of them if it
was made in a range that is not filled yet, or was not compared when a reset began. So a part of the
fill decides on it, as in an unchecked range. Each one has a row ``P + P + "uncompared/" + key``
until then.
"""

from __future__ import annotations

from typing import Final

from .. import _core
from ..backends.base import Entry, Reader
from .following import Following
from .scan import first_key

_UNCOMPARED: Final = "uncompared/"
#: The first name after those of uncompared changes: "0" follows "/" in ASCII.
_AFTER_UNCOMPARED: Final = "uncompared0"
#: The value of a row.
ROW: Final = b"true"


def uncompared_entry(space: _core.KeySpace, key: bytes) -> Entry:
    """Return the entry that marks the dirty change of a key as uncompared."""
    return space.own_key(_UNCOMPARED) + key, ROW


def uncompared_bounds(space: _core.KeySpace) -> tuple[bytes, bytes]:
    """Return the range of the keys of all uncompared changes."""
    return space.own_key(_UNCOMPARED), space.own_key(_AFTER_UNCOMPARED)


class UncomparedChanges:
    """The uncompared changes of a client.

    Args:
        reader: The reader.
        space: The key space of the store.
        following: The ranges that the client follows.
    """

    def __init__(self, reader: Reader, space: _core.KeySpace, following: Following) -> None:
        self._reader = reader
        self._following = following
        self._prefix = space.own_key(_UNCOMPARED)
        self._has_some = first_key(reader, *uncompared_bounds(space)) is not None

    def is_unchecked(self, key: bytes) -> bool:
        """Return True if a dirty change waits for a part of a fill to be compared with.

        The change of a key that is not followed waits for nothing: no fill has the key.
        """
        if self._following.is_unchecked(key):
            return True
        is_uncompared = self._has_some and self._reader.get(self._prefix + key) is not None
        return is_uncompared and self._following.wants(key)

    def removing(self, key: bytes) -> list[Entry]:
        """Return the entries that remove the change of a key."""
        return [(self._prefix + key, None)] if self._has_some else []
