"""Rows in one piece: how the compiled core and the native engine hand each other many at once.

One row behind the other, each the size of its key and of its value in ``size_t``, the key, the value. A value of the
size -1 is none: the key is to be deleted. It never leaves the process. The twin of ``packed.pyx``; nothing is packed in
Python, where an object for each row costs less than a piece that holds them.
"""

from __future__ import annotations

import struct
from typing import Final

from ..backends.base import Entry

_HEAD: Final = struct.Struct("@NN")
_NO_VALUE: Final = 2 ** (8 * struct.calcsize("@N")) - 1


def unpack(rows: bytes) -> list[Entry]:
    """Packed rows as entries.

    Raises:
        ValueError: They end within a row.
    """
    entries: list[Entry] = []
    at = 0
    while at < len(rows):
        if at + _HEAD.size > len(rows):
            raise ValueError("these are not packed rows: they end within one")
        key_size, value_size = _HEAD.unpack_from(rows, at)
        at += _HEAD.size
        key_end = at + key_size
        value_end = key_end if value_size == _NO_VALUE else key_end + value_size
        if value_end > len(rows):
            raise ValueError("these are not packed rows: they end within one")
        entries.append((rows[at:key_end], None if value_size == _NO_VALUE else rows[key_end:value_end]))
        at = value_end
    return entries
