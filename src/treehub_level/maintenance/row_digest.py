"""`RowDigest`: the SHA-256 of rows, by which copies and dumps of a store are compared."""

from __future__ import annotations

import hashlib

from ..backends.base import Row


class RowDigest:
    """The SHA-256 of rows in their order: see `CopyReport.sha256`."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, row: Row) -> None:
        """Add a row."""
        for part in row:
            self._hash.update(len(part).to_bytes(8, "big"))
            self._hash.update(part)

    @property
    def text(self) -> str:
        """The digest as hexadecimal text."""
        return self._hash.hexdigest()
