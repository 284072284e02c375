"""`Access`: the part of a server's keys that a principal may read and write."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from ..errors import ForbiddenError
from .key_ranges import KeyRanges

#: The prefixes that a message names.
_SHOWN: Final = 3


class Access(NamedTuple):
    """The rights of one caller to a store. The default is full access, as within this process.

    Attributes:
        principal: The name of the caller, as a token gives it; ``None`` for a caller without one.
        prefixes: The stored prefixes: each permitted key begins with one of them.
        write: True if the caller may write.
    """

    principal: str | None = None
    prefixes: tuple[bytes, ...] = (b"",)
    write: bool = True

    def covers(self, key: bytes) -> bool:
        """Return True if a stored key has a permitted prefix."""
        return key.startswith(self.prefixes)

    def may_cover(self, prefix: bytes) -> bool:
        """Return True if a key that begins with a stored prefix may have a permitted one."""
        return any(prefix.startswith(own) or own.startswith(prefix) for own in self.prefixes)

    @property
    def shown(self) -> str:
        """The permitted prefixes, for messages: the first ones if they are many."""
        shown = [repr(prefix[:60].decode(errors="replace")) for prefix in self.prefixes[:_SHOWN]]
        return " or ".join([*shown, *(["…"] if len(self.prefixes) > _SHOWN else [])])

    @property
    def keys(self) -> KeyRanges:
        """The permitted keys."""
        return KeyRanges.of_prefixes(self.prefixes)

    def check_write(self, keys: Iterable[bytes]) -> None:
        """Check that all of these keys may be written.

        Raises:
            ForbiddenError: The caller may not write, or a key lacks a permitted prefix.
        """
        if not self.write:
            raise ForbiddenError("this token may read and not write: ask for one that may write")
        self.check_read(keys)

    def check_read(self, keys: Iterable[bytes]) -> None:
        """Check that all of these keys may be read.

        Raises:
            ForbiddenError: A key lacks a permitted prefix.
        """
        for key in keys:
            if not self.covers(key):
                raise ForbiddenError(
                    f"the key {key[:60].decode(errors='replace')!r} does not begin with "
                    f"{self.shown}, and this token is for keys that do"
                )


#: Full access, for callers in this process.
FULL = Access()
