"""`Access`: the part of a server's keys that a principal may read and write."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .. import _core
from ..errors import ForbiddenError
from .key_ranges import KeyRanges


class Access(NamedTuple):
    """The rights of one caller to a store. The default is full access, as within this process.

    Attributes:
        principal: The name of the caller, as a token gives it; ``None`` for a caller without one.
        prefix: The stored bytes that every permitted key begins with; empty for all keys.
        write: True if the caller may write.
    """

    principal: str | None = None
    prefix: bytes = b""
    write: bool = True

    def covers(self, key: bytes) -> bool:
        """Return True if a stored key has the permitted prefix."""
        return key.startswith(self.prefix)

    @property
    def keys(self) -> KeyRanges:
        """The permitted keys."""
        return KeyRanges.of_prefixes([self.prefix])

    def check_write(self, keys: Iterable[bytes]) -> None:
        """Check that all of these keys may be written.

        Raises:
            ForbiddenError: The caller may not write, or a key lacks the permitted prefix.
        """
        if not self.write:
            raise ForbiddenError("this token may read and not write: ask for one that may write")
        self.check_read(keys)

    def check_read(self, keys: Iterable[bytes]) -> None:
        """Check that all of these keys may be read.

        Raises:
            ForbiddenError: A key lacks the permitted prefix.
        """
        for key in keys:
            if not self.covers(key):
                raise ForbiddenError(
                    f"the key {key[:60].decode(errors='replace')!r} does not begin with "
                    f"{self.prefix.decode()!r}, and this token is for keys that do"
                )

    def bounds(self, start: bytes | None, stop: bytes | None) -> tuple[bytes, bytes | None]:
        """Return the permitted part of a range of stored keys: start inclusive, stop exclusive."""
        ends = [end for end in (stop, _core.successor(self.prefix)) if end is not None]
        return max(start or b"", self.prefix), min(ends, default=None)


#: Full access, for callers in this process.
FULL = Access()
