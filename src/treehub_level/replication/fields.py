"""Read a message field by field. A malformed field raises `ProtocolError`, which names the field.

`decode_message` decodes the text of a message from a client, except its changes: parsed, 16 MiB of
`[[],[],…]` would take 0.5 GB.

Unknown fields are ignored, so that a later version of the protocol may add some.
"""

from __future__ import annotations

import operator
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from .. import _core
from ..engine.codec import RepeatedMemberError, decode_json
from ..engine.records import ID, Commit, Epoch
from ..errors import ProtocolError

#: The version of the protocol.
PROTOCOL: Final = 2
#: The maximum number of changes in a page.
MAX_CHANGES: Final = 65_536
#: The maximum number of changes in a push. A push is decided and written in one step, for which all
#: other writers wait; a page is read beside them.
MAX_PUSH: Final = 16_384
#: The maximum number of keys whose present values one request may ask for.
MAX_READ: Final = 1000
#: The maximum number of prefixes that a client may follow, and of their bytes.
MAX_PREFIXES: Final = 256
MAX_PREFIX_BYTES: Final = 16 << 10
#: The maximum number of characters in the reason of a refusal.
MAX_REASON: Final = 500
#: The most CIDs that a client may be behind when its push is judged. It is the same for all copies
#: of a push: a copy that was refused for its distance is refused for ever. So it may shrink in a
#: later version, and must not grow.
MAX_DISTANCE: Final = 65_536

#: The maximum number of values in a message, without its changes. The groups of a push are up to
#: 8192 arrays of two numbers, a withdrawal has `MAX_PUSH` keys; besides these there are `MAX_READ`
#: keys, `MAX_PREFIXES` prefixes and about 200 other values.
MAX_NODES: Final = 30_000
#: The maximum number of fields in a message whose changes are not decoded.
_MAX_FIELDS: Final = 100
_CHANGES_FIELD: Final = re.compile(rb'"changes"[ \t\r\n]*:(.*)', re.DOTALL)

NONCE: Final = re.compile(r"[0-9a-f]{32}")


class Ack(NamedTuple):
    """The server's decision on a push.

    Attributes:
        before: The server's CID before it applied the push.
        after: The server's CID afterwards: the accepted changes have the CIDs ``before + 1`` to
            ``after``.
        epoch: The id of the epoch that these CIDs belong to; ``None`` if no change was accepted.
    """

    before: int
    after: int
    epoch: str | None


class Fill(NamedTuple):
    """The range that a client fills, and the key up to which it is filled.

    Attributes:
        prefix: The prefix of the keys in the range.
        after: The last key of the filled part; ``""`` if nothing is filled yet.
    """

    prefix: str
    after: str

    def covers(self, key: str) -> bool:
        """Return True if the key lies in the filled part."""
        return key.startswith(self.prefix) and key <= self.after


class Refusal(NamedTuple):
    """Changes that the server refuses for one reason: a rule, or the rights of a token.

    Attributes:
        reason: The reason, for the user of the client.
        keys: The keys of the changes.
    """

    reason: str
    keys: list[str]


class Fields:
    """The fields of one message, each validated when it is read.

    Every method except ``error`` raises:
        ProtocolError: The field is missing, has the wrong type, or is out of range.

    Args:
        message: The message, decoded from JSON.
        kind: The name of the message in error messages: ``"request"`` or ``"reply"``.
    """

    def __init__(self, message: object, kind: str) -> None:
        if not isinstance(message, Mapping):
            raise ProtocolError(f"the {kind} must be a JSON object, not {shown(message)}")
        self._message: Mapping[Any, Any] = message
        self._kind = kind

    def __contains__(self, name: str) -> bool:
        return name in self._message

    def error(self, name: str, fault: str) -> ProtocolError:
        """Return the error for a malformed field."""
        return ProtocolError(f'the field "{name}" of the {self._kind}: {fault}')

    def has(self, name: str) -> bool:
        """Return True if the message has the field."""
        return name in self._message

    def get(self, name: str) -> Any:
        """Return the field, of any type."""
        try:
            return self._message[name]
        except KeyError:
            raise self.error(name, "it is missing") from None

    def protocol(self) -> None:
        """Check the version of the protocol. The error says which side is to be upgraded."""
        version = self.get("protocol")
        if type(version) is not int:
            raise self.error("protocol", f"version {PROTOCOL} is needed, not {shown(version)}")
        if version == PROTOCOL:
            return
        here, there = ("server", "client") if self._kind == "request" else ("client", "server")
        older = there if version < PROTOCOL else here
        raise self.error(
            "protocol",
            f"the {there} speaks version {shown(version)} of the protocol, and this {here} version {PROTOCOL}: "
            f"upgrade treehub-level on the {older}. Nothing was changed on either side",
        )

    def integer(self, name: str, low: int, high: int) -> int:
        """Return an int from ``low`` to ``high``, both inclusive."""
        value = self.get(name)
        if type(value) is not int or not low <= value <= high:
            raise self.error(name, f"an int from {low} to {high} is needed, not {shown(value)}")
        return value

    def cid(self, name: str) -> int:
        """Return a CID, or another number from 0 to 2^53 - 1."""
        return self.integer(name, 0, _core.MAX_CID)

    def boolean(self, name: str) -> bool:
        """Return a bool."""
        value = self.get(name)
        if not isinstance(value, bool):
            raise self.error(name, f"true or false is needed, not {shown(value)}")
        return value

    def text(self, name: str, pattern: re.Pattern[str]) -> str:
        """Return a string that matches ``pattern`` as a whole."""
        value = self.get(name)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self.error(name, f"a string like {pattern.pattern} is needed, not {shown(value)}")
        return value

    def optional_text(self, name: str, pattern: re.Pattern[str]) -> str | None:
        """Return a string that matches ``pattern``, or ``None`` for null."""
        return None if self.get(name) is None else self.text(name, pattern)

    def array(self, name: str, max_items: int | None = None) -> Sequence[Any]:
        """Return an array of at most ``max_items`` items. The items are not validated."""
        value = self.get(name)
        if not isinstance(value, (list, tuple)):
            raise self.error(name, f"an array is needed, not {shown(value)}")
        if max_items is not None and len(value) > max_items:
            raise self.error(name, f"{len(value)} items, and at most {max_items} are allowed")
        return value

    def numbered_changes(self, name: str, base: int, to: int) -> tuple[Sequence[int], Sequence[Any]]:
        """Return the CIDs and the changes of a page.

        The CIDs rise, and lie in the range ``base + 1`` to ``to``. The changes are not validated.
        """
        rows = self.array(name, MAX_CHANGES)
        if not rows:
            return (), ()
        if not {list, tuple}.issuperset(map(type, rows)) or set(map(len, rows)) != {2}:
            raise self.error(name, "each item is [CID, change]")
        cids, changes = zip(*rows, strict=True)
        rising = set(map(type, cids)) == {int} and all(map(operator.lt, (base, *cids), cids))
        if not rising or cids[-1] > to:
            raise self.error(name, f"the CIDs must rise from {base} (exclusive) to {to}; these do not: {shown(cids)}")
        return cids, changes

    def keys(self, name: str, max_items: int) -> list[str]:
        """Return an array of at most ``max_items`` strings."""
        keys = self.array(name, max_items)
        for key in keys:
            if not isinstance(key, str):
                raise self.error(name, f"each item is a key, not {shown(key)}")
        return list(keys)

    def prefix(self, name: str) -> str:
        """Return a string that may be a key, or the beginning of one."""
        value = self.get(name)
        if not _is_text(value):
            raise self.error(name, f"a key, a prefix of keys or an empty string is needed, not {shown(value)}")
        return str(value)

    def prefixes(self, name: str, default: Sequence[str]) -> list[str]:
        """Return an array of at most `MAX_PREFIXES` prefixes; ``default`` if the field is absent.

        Their number of bytes is not checked, and not if a key can begin with them.
        """
        if name not in self:
            return [*default]
        prefixes = self.array(name, MAX_PREFIXES)
        for prefix in prefixes:
            if not _is_text(prefix):
                raise self.error(name, f"each item is a prefix of keys, not {shown(prefix)}")
        return [*prefixes]

    def fill(self, name: str) -> Fill | None:
        """Return the range that is filled; ``None`` for null, or if the field is absent."""
        value = self.get(name) if name in self else None
        if value is None:
            return None
        match value:
            case [str(prefix), str(after)] if _is_text(prefix) and _is_text(after):
                if not after or after.startswith(prefix):
                    return Fill(prefix, after)
        raise self.error(name, f'null or [prefix, key with this prefix or ""] is needed, not {shown(value)}')

    def runs(self, name: str, count: int, shortest: int = 2) -> list[tuple[int, int]]:
        """Return runs ``[first, count]`` of ``count`` items; none if the field is absent.

        They rise, do not overlap, and have ``shortest`` items or more.
        """
        runs: list[tuple[int, int]] = []
        end = 0
        for item in self.array(name) if name in self else ():
            match item:
                case [int(first), int(length)] if type(first) is type(length) is int:
                    if end <= first and shortest <= length <= count - first:
                        runs.append((first, length))
                        end = first + length
                        continue
            raise self.error(
                name, f"each item is [first, count] of two and more of {count} items: {shown(item)} is not"
            )
        return runs

    def refusals(self, name: str, rejected: Sequence[str]) -> list[Refusal]:
        """Return the refusals of some rejected keys; none if the field is absent."""
        refusals: list[Refusal] = []
        known = {*rejected}
        for item in self.array(name, MAX_PUSH) if name in self else ():
            match item:
                case [str(reason), list(keys)] if 0 < len(reason) <= MAX_REASON and keys:
                    if all(type(key) is str and key in known for key in keys):
                        refusals.append(Refusal(reason, [*keys]))
                        continue
            raise self.error(name, f"each item is [reason, rejected keys], and {shown(item)} is not")
        return refusals

    def epochs(self, name: str, max_items: int | None = None) -> list[Epoch]:
        """Return an array of epochs whose CIDs rise."""
        epochs: list[Epoch] = []
        for item in self.array(name, max_items):
            match item:
                case [str(id), int(start)] if ID.fullmatch(id) and type(start) is int:
                    if 0 <= start <= _core.MAX_CID and (not epochs or epochs[-1].start < start):
                        epochs.append(Epoch(id, start))
                        continue
            raise self.error(name, f"each item is [id, CID], and the CIDs rise: {shown(item)} does not fit")
        return epochs

    def commits(self, name: str, base: int, to: int) -> list[Commit]:
        """Return an array of commits, in order and disjoint; empty if the field is absent.

        Each has changes after the CID ``base``, and begins at the CID ``to`` at the latest.
        """
        commits: list[Commit] = []
        for item in self.array(name, MAX_CHANGES) if name in self else ():
            commit = Commit.parse(item)
            if commit is None or not base < commit.last or not commit.first <= to:
                raise self.error(
                    name, f"{shown(item)} is not [first, last, client, principal, time, groups] of a commit"
                )
            if commits and commit.first <= commits[-1].last:
                raise self.error(name, f"the commits must rise; {shown(item)} does not")
            commits.append(commit)
        return commits

    def ack(self) -> Ack | None:
        """Return the decision on a push, or ``None`` for null."""
        value = self.get("ack")
        if value is None:
            return None
        match value:
            case [int(before), int(after), None | str() as epoch] if type(before) is type(after) is int:
                if 0 <= before <= after <= _core.MAX_CID and (epoch is None) == (before == after):
                    return Ack(before, after, epoch)
        raise self.error("ack", f"null or [CID, CID, epoch] is needed, not {shown(value)}")


def _is_text(value: object) -> bool:
    """Return True if a value is valid text of at most the length of a key."""
    try:
        return isinstance(value, str) and len(value.encode()) <= _core.MAX_KEY_BYTES
    except UnicodeEncodeError:
        return False


def decode_message(text: bytes) -> Any:
    """Decode a message, except its changes: the field ``changes`` is a list of records in bytes.

    A record is the text of an item, unaltered. `_core.Encoder.records` validates it. So a message
    takes little more memory than its text.

    Raises:
        ValueError: The text is not JSON, names a member twice, holds an integer beyond 64 bits, is
            nested too deep, or has more than `MAX_NODES` values beside its changes.
    """
    split = _split_changes(text)
    if split is not None:
        members, records = split
        message = decode_json(b"{%b}" % b",".join(members), MAX_NODES)
        if "changes" in message:
            raise RepeatedMemberError("an object names the member 'changes' twice")
        return {**message, "changes": records}
    message = decode_json(text, MAX_NODES)
    if isinstance(message, dict) and isinstance(message.get("changes"), list):
        message["changes"] = [*map(orjson.dumps, message["changes"])]
    return message


def _split_changes(text: bytes) -> tuple[list[bytes], list[bytes]] | None:
    """Return the other members of a message, and its changes, each as written.

    ``None`` if the text has another form: it is malformed, or has too many items.
    """
    members = _core.split_items(text, b"{}", _MAX_FIELDS)
    if members is None:
        return None
    found = [*filter(None, map(_CHANGES_FIELD.fullmatch, members))]
    records = _core.split_items(found[0][1], b"[]", MAX_PUSH + 1) if len(found) == 1 else None
    if records is None:
        return None
    return [member for member in members if not _CHANGES_FIELD.fullmatch(member)], records


def shown(value: object) -> str:
    """Return a short representation of a received value of any size and depth."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an int of more than 4300 digits
        return f"a {type(value).__name__}"
