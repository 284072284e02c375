"""Who asks a server over the network, and how much of it is theirs to see and to change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .. import _core
from ..errors import ForbiddenError


class Access(NamedTuple):
    """The right to a store. Without arguments: all of it, for nobody in particular, as within this very process.

    Attributes:
        principal: Who asks; ``None`` where nobody needs to say.
        prefix: What the keys begin with that may be seen and changed; empty for all of them.
        write: Whether they may be changed.
    """

    principal: str | None = None
    prefix: bytes = b""
    write: bool = True

    def sees(self, key: bytes) -> bool:
        """Whether a key is within."""
        return key.startswith(self.prefix)

    def check_write(self, keys: Iterable[bytes]) -> None:
        """Raise unless all of these keys may be written.

        Raises:
            ForbiddenError: Nothing may be written, or one of the keys is without.
        """
        if not self.write:
            raise ForbiddenError("this token may read and not write: ask for one that may write")
        self.check_seen(keys)

    def check_seen(self, keys: Iterable[bytes]) -> None:
        """Raise unless all of these keys are within.

        Raises:
            ForbiddenError: One of them is not.
        """
        for key in keys:
            if not self.sees(key):
                raise ForbiddenError(
                    f"the key {key[:60].decode(errors='replace')!r} does not begin with "
                    f"{self.prefix.decode()!r}, and this token is for keys that do"
                )

    def bounds(self, start: bytes | None, stop: bytes | None) -> tuple[bytes | None, bytes | None]:
        """The part of a range of keys that may be seen."""
        ends = [end for end in (stop, _core.successor(self.prefix)) if end is not None]
        return max(start or b"", self.prefix), min(ends, default=None)


#: All of a store, for whoever holds the store itself.
FULL = Access()
