"""Packed rows: the form in which the compiled core and the native engine pass many rows at once.

Each row is the size of its key and the size of its value, in ``size_t``, then the key, then the
value. The value size -1 stands for a deletion. Packed rows never leave the process. The counterpart
of ``packed.pyx``. Python code only unpacks rows: in Python, a tuple for each row costs less than
packing it.
"""

from __future__ import annotations

import struct
from typing import Final

from ..backends.base import Entry

_HEAD: Final = struct.Struct("@NN")
_NO_VALUE: Final = 2 ** (8 * struct.calcsize("@N")) - 1


def unpack(rows: bytes) -> list[Entry]:
    """Return packed rows as entries.

    Raises:
        ValueError: ``rows`` ends within a row.
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
