"""Reading a message field by field: what is wrong is refused with a `ProtocolError` that names the field.

Fields that nobody knows are ignored, so that a later version may add some.
"""

from __future__ import annotations

import operator
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from .. import _core
from ..engine.modes import Epoch
from ..errors import ProtocolError

#: The version of the protocol that is spoken here.
PROTOCOL: Final = 1
#: The most changes, or keys, in a page or a push.
MAX_CHANGES: Final = 1000

NONCE: Final = re.compile(r"[0-9a-f]{32}")
ID: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")


class Ack(NamedTuple):
    """What became of a push: its accepted changes have the CIDs from ``before``, exclusive, to ``after``.

    ``epoch`` is the epoch they are in; ``None`` if none was accepted.
    """

    before: int
    after: int
    epoch: str | None


class Fields:
    """The fields of one message, each checked as it is read.

    Every method but ``error`` raises:
        ProtocolError: The field is missing, of a wrong type, or out of bounds.

    Args:
        message: The message, decoded from JSON.
        what: What it is called in messages of errors.
    """

    def __init__(self, message: object, what: str) -> None:
        if not isinstance(message, Mapping):
            raise ProtocolError(f"the {what} must be an object, not {shown(message)}")
        self._message: Mapping[Any, Any] = message
        self._what = what

    def __contains__(self, name: str) -> bool:
        return name in self._message

    def error(self, name: str, fault: str) -> ProtocolError:
        """What to raise for a field."""
        return ProtocolError(f'the field "{name}" of the {self._what}: {fault}')

    def get(self, name: str) -> Any:
        """The field, whatever it is."""
        try:
            return self._message[name]
        except KeyError:
            raise self.error(name, "it is missing") from None

    def protocol(self) -> None:
        """Check the version of the protocol."""
        version = self.get("protocol")
        if type(version) is not int or version != PROTOCOL:
            raise self.error("protocol", f"version {shown(version)} is not spoken here, only version {PROTOCOL}")

    def integer(self, name: str, low: int, high: int) -> int:
        """An int within bounds, both inclusive."""
        value = self.get(name)
        if type(value) is not int or not low <= value <= high:
            raise self.error(name, f"an int from {low} to {high} is needed, not {shown(value)}")
        return value

    def cid(self, name: str) -> int:
        """A CID, or a number that has the bounds of one."""
        return self.integer(name, 0, _core.MAX_CID)

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.get(name)
        if not isinstance(value, bool):
            raise self.error(name, f"true or false is needed, not {shown(value)}")
        return value

    def text(self, name: str, pattern: re.Pattern[str]) -> str:
        """A string of one form."""
        value = self.get(name)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self.error(name, f"a string like {pattern.pattern} is needed, not {shown(value)}")
        return value

    def optional_text(self, name: str, pattern: re.Pattern[str]) -> str | None:
        """A string of one form, or null."""
        return None if self.get(name) is None else self.text(name, pattern)

    def cursor(self, name: str) -> str | None:
        """A key behind which to go on, "" for the first one, or null."""
        value = self.get(name)
        if value is None:
            return None
        try:
            if isinstance(value, str) and len(value.encode()) <= _core.MAX_KEY_BYTES:
                return value
        except UnicodeEncodeError:
            pass
        raise self.error(name, f'null, "" or a key is needed, not {shown(value)}')

    def items(self, name: str, most: int | None = None) -> Sequence[Any]:
        """An array, of at most so many items."""
        value = self.get(name)
        if not isinstance(value, (list, tuple)):
            raise self.error(name, f"an array is needed, not {shown(value)}")
        if most is not None and len(value) > most:
            raise self.error(name, f"{len(value)} items, and at most {most} are allowed")
        return value

    def numbered_changes(self, name: str, base: int, to: int) -> tuple[Sequence[int], Sequence[Any]]:
        """The CIDs and the changes of a page behind CID ``base`` that goes to ``to``; changes are not looked into."""
        rows = self.items(name, MAX_CHANGES)
        if not rows:
            return (), ()
        if not {list, tuple}.issuperset(map(type, rows)) or set(map(len, rows)) != {2}:
            raise self.error(name, "each item is [CID, change]")
        cids, changes = zip(*rows, strict=True)
        rising = set(map(type, cids)) == {int} and all(map(operator.lt, (base, *cids), cids))
        if not rising or cids[-1] > to:
            raise self.error(name, f"the CIDs rise from behind {base} to {to}, and these do not: {shown(cids)}")
        return cids, changes

    def keys(self, name: str) -> list[str]:
        """An array of strings."""
        keys = self.items(name, MAX_CHANGES)
        for key in keys:
            if not isinstance(key, str):
                raise self.error(name, f"each item is a key, not {shown(key)}")
        return list(keys)

    def epochs(self, name: str, most: int | None = None) -> list[Epoch]:
        """Epochs in the order of their CIDs."""
        epochs: list[Epoch] = []
        for item in self.items(name, most):
            match item:
                case [str(id), int(start)] if ID.fullmatch(id) and type(start) is int:
                    if 0 <= start <= _core.MAX_CID and (not epochs or epochs[-1].start < start):
                        epochs.append(Epoch(id, start))
                        continue
            raise self.error(name, f"each item is [id, CID], and the CIDs rise: {shown(item)} does not fit")
        return epochs

    def ack(self) -> Ack | None:
        """What became of a push, or null."""
        value = self.get("ack")
        if value is None:
            return None
        match value:
            case [int(before), int(after), None | str() as epoch] if type(before) is type(after) is int:
                if 0 <= before <= after <= _core.MAX_CID and (epoch is None) == (before == after):
                    return Ack(before, after, epoch)
        raise self.error("ack", f"null or [CID, CID, epoch] is needed, not {shown(value)}")


def shown(value: object) -> str:
    """A short form of what came, however large or deep it is."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an int of thousands of digits
        return f"a {type(value).__name__}"
