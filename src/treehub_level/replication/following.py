"""The steps by which a client follows other ranges than before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Final

from .. import _core
from ..backends.base import Entry, Reader, Transaction
from ..engine.following import COMPLETE, Following
from ..engine.key_ranges import encode_prefix
from ..engine.modes import Client, Plan, Step
from ..engine.records import OwnRecords
from ..engine.scan import key_chunks
from ..engine.uncompared import UncomparedChanges, uncompared_entry
from ..types import Followed, Mode
from .messages import prefixes_fault
from .records import read_state
from .state import ClientState

#: The most keys that one batch removes.
EVICTED_KEYS: Final = 1000


def check_follow(mode: Mode, space: _core.KeySpace, follow: object) -> list[str] | None:
    """Return the prefixes that a client is to follow; ``None`` if none are given.

    Raises:
        TypeError: ``follow`` is not an iterable of ``str``, or is itself one.
        InvalidKeyError: No key can begin with a prefix.
        ValueError: There are too many prefixes, or the mode is not CLIENT.
    """
    if follow is None:
        return None
    if mode is not Mode.CLIENT:
        raise ValueError(f"follow= names the keys that a client follows: it needs CLIENT mode, not {mode.name}")
    if isinstance(follow, (str, bytes)):
        raise TypeError(f"follow= takes several prefixes, not the one prefix {follow!r:.80}: put it in a list")
    try:
        prefixes = list(dict.fromkeys(follow))  # type: ignore[call-overload]  # not iterable: the error below
    except TypeError:
        raise TypeError(f"follow= is a list of prefixes, not {follow!r:.80}") from None
    for prefix in prefixes:
        encode_prefix(space, prefix)
    _check_bound(prefixes)
    return prefixes


def _check_bound(prefixes: Sequence[str]) -> None:
    fault = prefixes_fault(prefixes)
    if fault is not None:
        raise ValueError(fault)


def follow_step(mode: Client, prefixes: Sequence[str]) -> Step[None]:
    """Follow the keys that begin with one of some prefixes.

    If the range is checked, it may contain an unchecked one. The dirty changes in that one were
    compared with nothing, and are remembered as uncompared.

    Raises:
        InvalidKeyError, TypeError: No key can begin with a prefix.
        ValueError: The client would follow too many prefixes (raised by the step).
    """
    for prefix in prefixes:
        encode_prefix(mode.space, prefix)

    def step(transaction: Transaction, cid: int) -> Plan[None]:
        before = read_state(transaction, mode.records, cid)
        had = following = before.following
        for prefix in prefixes:
            following = following.follow(prefix, cid)
        uncompared: list[Entry] = []
        if had.unchecked and following.checked:
            is_unchecked = UncomparedChanges(transaction, mode.space, had).is_unchecked
            dirty = filter(is_unchecked, _dirty_keys(transaction, mode.space))
            uncompared = [uncompared_entry(mode.space, key) for key in dirty if not following.is_unchecked(key)]
        return _changing(mode, before, following, uncompared)

    return step


def unfollow_step(mode: Client, prefix: str) -> Step[None]:
    """Stop to follow the keys that begin with a prefix. `evict_step` removes them.

    Another range that is being filled may overlap with the prefix. The dirty changes in it that
    were compared with the server's values stay so: the log is pulled for that range from now on,
    and the other dirty changes are remembered as uncompared. If dirty changes are not followed any
    more, the log is pulled for the prefix until the server has decided on them.

    Raises:
        InvalidKeyError, TypeError: No key can begin with the prefix.
        ValueError: There are too many prefixes with dirty changes (raised by the step).
    """
    encode_prefix(mode.space, prefix)

    def step(transaction: Transaction, cid: int) -> Plan[None]:
        before = read_state(transaction, mode.records, cid)
        if prefix not in before.following.ranges:
            return Plan(None)
        following = before.following.unfollow(prefix)
        uncompared: list[Entry] = []
        if following.unchecked:
            had = UncomparedChanges(transaction, mode.space, before.following)
            has = UncomparedChanges(transaction, mode.space, following)
            dirty = [*_dirty_keys(transaction, mode.space)]
            if any(has.is_unchecked(key) and not had.is_unchecked(key) for key in dirty):
                following = following.checking(prefix)
                uncompared = [uncompared_entry(mode.space, key) for key in dirty if had.is_unchecked(key)]
        if not all(map(following.wants, _dirty_keys(transaction, mode.space, prefix))):
            following = following.leave(prefix)
        return _changing(mode, before, following, uncompared)

    return step


def still_leaving(following: Following, reader: Reader, space: _core.KeySpace) -> Following:
    """Return the state without the leaving prefixes of which no key is dirty any more."""
    left = (prefix for prefix in following.leaving if next(_dirty_keys(reader, space, prefix), None) is not None)
    return replace(following, leaving=tuple(left)) if following.leaving else following


def _changing(mode: Client, before: ClientState, following: Following, also: Sequence[Entry] = ()) -> Plan[None]:
    """Return the plan by which a client follows other ranges.

    Raises:
        ValueError: There are too many prefixes.
    """
    _check_bound([*following.prefixes, *following.leaving])
    after = replace(before, following=following).with_bases()
    batch = [*after.replacing(before, mode.space), *also]
    return Plan(None, batch, durable=True, after_commit=partial(setattr, mode, "recording", after.recording))


def evict_step(mode: Client) -> Step[bool]:
    """Remove some clean keys that are not followed. The result is True if there may be more."""
    space = mode.space

    def step(transaction: Transaction, cid: int) -> Plan[bool]:
        before = read_state(transaction, mode.records, cid)
        if not before.following.is_evicting:
            return Plan(False)
        keys = _unfollowed_keys(transaction, space, before.following)
        batch: list[Entry] = [(key, None) for key in keys]
        if len(keys) < EVICTED_KEYS:
            after = replace(before, following=replace(before.following, is_evicting=False))
            batch += after.replacing(before, space)
        return Plan(len(keys) == EVICTED_KEYS, batch)

    return step


def _unfollowed_keys(reader: Reader, space: _core.KeySpace, following: Following) -> list[bytes]:
    """Return the first clean keys that are not followed, at most `EVICTED_KEYS`."""
    found: list[bytes] = []
    for start, stop in following.unfollowed(space):
        with closing(reader.scan(start, stop, values=False)) as cursor:
            while keys := cursor.fetch_keys(EVICTED_KEYS):
                dirty = {*_user_keys(reader, space, space.dirty_key(keys[0]), space.dirty_key(keys[-1]) + b"\0")}
                found += [key for key in keys if key not in dirty]
                if len(found) >= EVICTED_KEYS:
                    return found[:EVICTED_KEYS]
    return found


def _dirty_keys(reader: Reader, space: _core.KeySpace, prefix: str = "") -> Iterator[bytes]:
    """Iterate over the dirty keys with a prefix, in order."""
    start = space.dirty_key(prefix.encode())
    stop = _core.successor(start) if prefix else space.dirty_stop
    return _user_keys(reader, space, max(start, space.dirty_start), stop)


def _user_keys(reader: Reader, space: _core.KeySpace, start: bytes, stop: bytes | None) -> Iterator[bytes]:
    """Iterate over the keys of the dirty changes in a range of the store, in order."""
    return (key[len(space.prefix) :] for keys in key_chunks(reader, start, stop) for key in keys)


def read_followed(reader: Reader, own: OwnRecords, cid: int) -> list[Followed]:
    """Return the prefixes that a client follows, in order.

    Raises:
        CorruptionError: The record is malformed.
    """
    following = read_state(reader, own, cid).following
    return [Followed(prefix, following.ranges[prefix] == COMPLETE, cid) for prefix in following.prefixes]
