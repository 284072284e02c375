"""`Following`: the ranges of keys that a client follows, and how far it has filled them.

It is stored in the record ``P + P + "follow"``. A client without that record follows all keys: it
has them if its CID is above 0, and has yet to fill them otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal, NamedTuple, get_args

import orjson

from .. import _core
from ..backends.base import Entry, Reader
from ..errors import CorruptionError, StateError
from .key_ranges import KeyRanges
from .records import OwnRecords

#: The name of the record.
FOLLOW: Final = "follow"
#: The name of the record in which earlier versions kept the progress of a reset.
EARLIER_RESET: Final = "reset"

#: The state of a range that a client follows.
#:
#: - ``complete``: all keys of the range are as they were on the server at the client's CID.
#: - ``checked``: the range is being filled, and the log is pulled for it: its dirty changes are
#:   compared with the log. So a part of the fill leaves them alone.
#: - ``unchecked``: the range is being filled, and the log is not pulled for it: a part of the fill
#:   is a conflict for a dirty change.
RangeState = Literal["complete", "checked", "unchecked"]
COMPLETE: Final = "complete"
CHECKED: Final = "checked"
UNCHECKED: Final = "unchecked"


class FilledPart(NamedTuple):
    """The part of a range that is filled: its keys up to a key.

    Attributes:
        prefix: The prefix of the range.
        after: The last key of the filled part; ``""`` if nothing is filled yet.
    """

    prefix: str
    after: str


@dataclass(frozen=True)
class Following:
    """The ranges that a client follows.

    Attributes:
        ranges: The state of each followed prefix.
        filled: The range that is being filled, and the part of it that is filled.
        is_resetting: True during a reset: keys that a fill proves absent go to the journal.
        is_evicting: True while the store may hold clean keys that are not followed any more.
        leaving: The prefixes that are not followed any more, but had dirty changes when the client
            last looked, in order. The log is pulled for them, so that these changes lose to those
            that others make meanwhile.
    """

    ranges: dict[str, RangeState]
    filled: FilledPart | None = None
    is_resetting: bool = False
    is_evicting: bool = False
    leaving: tuple[str, ...] = ()

    # ------------------------------------------------------------------------------------- reading

    @property
    def prefixes(self) -> list[str]:
        """All followed prefixes, in order."""
        return sorted(self.ranges)

    @cached_property
    def complete(self) -> tuple[str, ...]:
        """The prefixes of which the client has all keys, in order."""
        return self._in_state(COMPLETE)

    @cached_property
    def checked(self) -> tuple[str, ...]:
        """The prefixes that are being filled, and for which the log is pulled, in order."""
        return self._in_state(CHECKED)

    @cached_property
    def unchecked(self) -> tuple[str, ...]:
        """The prefixes that are being filled, and for which the log is not pulled, in order."""
        return self._in_state(UNCHECKED)

    def _in_state(self, state: RangeState) -> tuple[str, ...]:
        return tuple(prefix for prefix in self.prefixes if self.ranges[prefix] == state)

    @property
    def is_complete(self) -> bool:
        """True if no range is to be filled."""
        return not (self.checked or self.unchecked)

    @cached_property
    def fill(self) -> FilledPart | None:
        """The range to fill next, and the part of it that is filled; ``None`` if all are."""
        pending = sorted((*self.checked, *self.unchecked))
        if self.filled is not None and self.filled.prefix in pending:
            return self.filled
        return FilledPart(pending[0], "") if pending else None

    @cached_property
    def follows_all(self) -> bool:
        """True if every key is followed."""
        return "" in self.ranges

    def wants(self, key: bytes) -> bool:
        """Return True if a stored key lies in a followed range."""
        return self.follows_all or key.startswith(self._all)

    def has(self, key: bytes) -> bool:
        """Return True if a stored key lies in a complete range."""
        return bool(self.complete) and key.startswith(self._complete)

    def is_filled(self, key: bytes) -> bool:
        """Return True if the client has the server's value of a stored key, or a dirty change."""
        return self.has(key) or self._is_in_filled_part(key)

    def _is_in_filled_part(self, key: bytes) -> bool:
        prefix, after = self._filled
        return bool(after) and key.startswith(prefix) and key <= after

    def is_unchecked(self, key: bytes) -> bool:
        """Return True if a dirty change of a stored key was compared with nothing of the server."""
        if not self.unchecked or key.startswith(self._logged) or self._is_in_filled_part(key):
            return False
        return key.startswith(self._unchecked)

    def is_uncompared(self, key: bytes) -> bool:
        """Return True if a new dirty change of a stored key has to be marked as uncompared.

        The log is pulled for the range, but the client has not got the server's value of the key.
        """
        if not self.checked or not key.startswith(self._logged):
            return False
        return not self.is_filled(key)

    def needs_base_values(self, cid: int) -> bool:
        """Return True if a fill compares dirty changes with the values that they were made with.

        Args:
            cid: The client's CID. At 0 nothing of an unchecked range was pulled, except before a
                reset.
        """
        return bool(self.checked or ((cid or self.is_resetting) and self.unchecked))

    @cached_property
    def _all(self) -> tuple[bytes, ...]:
        return _encoded(self.ranges)

    @cached_property
    def _complete(self) -> tuple[bytes, ...]:
        return _encoded(self.complete)

    @cached_property
    def _logged(self) -> tuple[bytes, ...]:
        return _encoded((*self.complete, *self.checked))

    @cached_property
    def _unchecked(self) -> tuple[bytes, ...]:
        return _encoded(self.unchecked)

    @cached_property
    def _filled(self) -> tuple[bytes, bytes]:
        prefix, after = self.fill or FilledPart("", "")
        return prefix.encode(), after.encode()

    def unfollowed(self, space: _core.KeySpace) -> KeyRanges:
        """Return the user keys that are not followed."""
        return KeyRanges([(space.user_start, None)]).without(KeyRanges.of_prefixes(self._all))

    # ------------------------------------------------------------------------------------ changing

    def follow(self, prefix: str, cid: int) -> Following:
        """Return the state after a prefix is followed.

        Args:
            prefix: The prefix.
            cid: The client's CID. Above 0, or with prefixes that are leaving, the client has
                dirty changes that the log decides on.
        """
        if prefix in self.ranges:
            return self
        wider = [state for other, state in sorted(self.ranges.items()) if prefix.startswith(other)]
        default: RangeState = CHECKED if cid or self.leaving else UNCHECKED
        state: RangeState = COMPLETE if COMPLETE in wider else wider[0] if wider else default
        leaving = tuple(other for other in self.leaving if other != prefix)
        return replace(self, ranges={**self.ranges, prefix: state}, leaving=leaving)

    def unfollow(self, prefix: str) -> Following:
        """Return the state after a prefix is not followed any more, and has no dirty changes."""
        if prefix not in self.ranges:
            return self
        ranges = {other: state for other, state in self.ranges.items() if other != prefix}
        is_filled = self.filled is not None and self.filled.prefix == prefix
        return replace(self, ranges=ranges, filled=None if is_filled else self.filled, is_evicting=True)

    def leave(self, prefix: str) -> Following:
        """Return the state after `unfollow` of a prefix that has dirty changes."""
        return replace(self, leaving=tuple(sorted({*self.leaving, prefix})))

    def checking(self, prefix: str) -> Following:
        """Return the state in which the log is pulled for all ranges that overlap with a prefix."""
        overlapping = [other for other in self.unchecked if prefix.startswith(other) or other.startswith(prefix)]
        states: dict[str, RangeState] = dict.fromkeys(overlapping, CHECKED)
        return replace(self, ranges={**self.ranges, **states})

    def fill_again(self, state: RangeState) -> Following:
        """Return the state at the beginning of a fill of all followed ranges."""
        return replace(self, ranges=dict.fromkeys(self.ranges, state), filled=None)

    def filled_to(self, prefix: str, to: str, *, end: bool) -> Following:
        """Return the state after a part of a range was filled.

        Args:
            prefix: The prefix of the range.
            to: The last key that is filled.
            end: True if the whole range is filled.
        """
        if not end:
            return replace(self, filled=FilledPart(prefix, to))
        ranges: dict[str, RangeState] = {
            other: COMPLETE if other.startswith(prefix) else state for other, state in self.ranges.items()
        }
        return replace(self, ranges=ranges, filled=None)

    def completed(self) -> Following:
        """Return the state of a client that has all keys of its ranges."""
        return replace(self, ranges=dict.fromkeys(self.ranges, COMPLETE), filled=None)

    # ------------------------------------------------------------------------------------- storing

    @classmethod
    def without_record(cls, cid: int) -> Following:
        """Return the state of a client without the record.

        Args:
            cid: The CID of the client.
        """
        return cls({"": COMPLETE if cid else UNCHECKED})

    def to_stored(self, cid: int) -> bytes | None:
        """Return the record; ``None`` if a client at a CID needs none."""
        if self == Following.without_record(cid):
            return None
        document: dict[str, Any] = {
            "ranges": [[prefix, self.ranges[prefix]] for prefix in self.prefixes],
            "fill": self.filled,
            "resetting": self.is_resetting,
            "evicting": self.is_evicting,
        }
        if self.leaving:
            document["leaving"] = self.leaving
        return orjson.dumps(document, default=list)

    @classmethod
    def from_document(cls, document: Any) -> Following:
        """Return the record that was decoded from JSON.

        Raises:
            ValueError: The record is malformed.
        """
        match document:
            case {
                "ranges": list(items),
                "fill": fill,
                "resetting": bool(is_resetting),
                "evicting": bool(is_evicting),
                **others,
            } if not others or [*others] == ["leaving"]:
                ranges, leaving = dict(map(_parse_range, items)), _parse_leaving(others)
                if len(ranges) == len(items) and [*ranges] == sorted(ranges) and ranges.keys().isdisjoint(leaving):
                    return cls(ranges, _parse_filled(fill), is_resetting, is_evicting, leaving)
        raise ValueError('it is not {"ranges", "fill", "resetting", "evicting", "leaving"?} with sorted ranges')


def _parse_range(item: Any) -> tuple[str, RangeState]:
    match item:
        case [str(prefix), str(state)] if state in get_args(RangeState):
            prefix.encode()
            return prefix, state  # type: ignore[return-value]  # checked by the guard
    raise ValueError(f"{item!r:.80} is not [prefix, state] of a range")


def _parse_leaving(members: dict[Any, Any]) -> tuple[str, ...]:
    match members:
        case {"leaving": [_, *_] as prefixes} if all(isinstance(prefix, str) for prefix in prefixes):
            "".join(prefixes).encode()
            if prefixes == sorted({*prefixes}):
                return tuple(prefixes)
        case {}:
            return ()
    raise ValueError('"leaving" is not a list of sorted prefixes')


def _parse_filled(item: Any) -> FilledPart | None:
    match item:
        case None:
            return None
        case [str(prefix), str(after)] if after.startswith(prefix) or not after:
            (prefix + after).encode()
            return FilledPart(prefix, after)
    raise ValueError(f"{item!r:.80} is not [prefix, key] of a filled part")


def _encoded(prefixes: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(prefix.encode() for prefix in prefixes)


def read_following(reader: Reader, own: OwnRecords, cid: int) -> Following:
    """Read the ranges that a client follows.

    Raises:
        CorruptionError: The record is malformed.
    """
    key = own.key(FOLLOW)
    record = reader.get(key)
    return Following.without_record(cid) if record is None else parse_following(own, record)


def parse_following(own: OwnRecords, record: bytes) -> Following:
    """Decode the record of the ranges that a client follows.

    Raises:
        CorruptionError: The record is malformed.
    """
    key = own.key(FOLLOW)
    try:
        return Following.from_document(own.decode(key, record))
    except ValueError as error:
        raise own.damaged(key, f"is malformed ({error!s:.200})", record) from error


def following_at_opening(
    reader: Reader, own: OwnRecords, wanted: Iterable[str] | None, *, is_new: bool
) -> tuple[Following | None, list[Entry]]:
    """Return the ranges that an opened client follows, and the entries to write.

    A reset of an earlier version, whose progress is in the record ``reset``, becomes a fill. Its
    dirty changes were compared with the log up to the last common CID.

    Args:
        reader: The reader.
        own: The own records of the client.
        wanted: The prefixes given to the constructor; ``None`` without any.
        is_new: True if the store is being created.

    Returns:
        The ranges, ``None`` if a record is damaged: the client opens, and ``sync`` reports it.

    Raises:
        StateError: The store follows other prefixes than ``wanted``.
    """
    entries: list[Entry] = []
    try:
        cid = own.cid(reader)
        following = read_following(reader, own, cid)
        common = common_of_earlier_reset(reader, own)
    except CorruptionError:
        return None, []
    if common is not None:
        cid = max(cid, common)
        following = replace(following.fill_again(CHECKED), is_resetting=True)
        entries = [(own.key(EARLIER_RESET), None), (own.space.prefix, b"%d" % cid)]
    if wanted is not None and is_new:
        following = Following(dict.fromkeys(wanted, UNCHECKED))
    elif wanted is not None and {*wanted} != {*following.ranges}:
        raise StateError(
            f"the store follows {following.prefixes!r:.200}, and the argument follow= names other prefixes, "
            f"{sorted(wanted)!r:.200}: leave it out, and call follow() or unfollow()"
        )
    record = following.to_stored(cid)
    key = own.key(FOLLOW)
    if record != reader.get(key):
        entries.append((key, record))
    return following, entries


def common_of_earlier_reset(reader: Reader, own: OwnRecords) -> int | None:
    """Return the last common CID of a reset that an earlier version has begun; else ``None``.

    Raises:
        CorruptionError: The record is malformed.
    """
    match own.read(reader, EARLIER_RESET):
        case None:
            return None
        case {"common": int(common), "phase": "A" | "B"} if 0 <= common <= _core.MAX_CID:
            return common
    raise own.damaged(own.key(EARLIER_RESET), "does not hold the progress of a reset")
