"""The steps by which a client follows other ranges than before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    Raises:
        InvalidKeyError, TypeError: No key can begin with a prefix.
        ValueError: The client would follow too many prefixes (raised by the step).
    """
    for prefix in prefixes:
        encode_prefix(mode.space, prefix)

    def change(state: ClientState) -> Following:
        following = state.following
        for prefix in prefixes:
            following = following.follow(prefix, state.cid)
        _check_bound(following.prefixes)
        return following

    return _changing_step(mode, change)


def unfollow_step(mode: Client, prefixes: Sequence[str]) -> Step[None]:
    """Stop to follow the keys that begin with one of some prefixes. `evict_step` removes them.

    Raises:
        InvalidKeyError, TypeError: No key can begin with a prefix.
    """
    for prefix in prefixes:
        encode_prefix(mode.space, prefix)

    def change(state: ClientState) -> Following:
        following = state.following
        for prefix in prefixes:
            following = following.unfollow(prefix)
        return following

    return _changing_step(mode, change)


def _changing_step(mode: Client, change: Callable[[ClientState], Following]) -> Step[None]:
    def step(transaction: Transaction, cid: int) -> Plan[None]:
        before = read_state(transaction, mode.records, cid)
        after = replace(before, following=change(before)).with_bases()
        recording = partial(setattr, mode, "recording", after.recording)
        return Plan(None, after.replacing(before, mode.space), durable=True, after_commit=recording)

    return step


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
                dirty = _dirty_keys(reader, space, keys[0], keys[-1])
                found += [key for key in keys if key not in dirty]
                if len(found) >= EVICTED_KEYS:
                    return found[:EVICTED_KEYS]
    return found


def _dirty_keys(reader: Reader, space: _core.KeySpace, first: bytes, last: bytes) -> set[bytes]:
    """Return the dirty keys from ``first`` to ``last``."""
    chunks = key_chunks(reader, space.dirty_key(first), space.dirty_key(last) + b"\0")
    return {key[len(space.prefix) :] for keys in chunks for key in keys}


def read_followed(reader: Reader, own: OwnRecords, cid: int) -> list[Followed]:
    """Return the prefixes that a client follows, in order.

    Raises:
        CorruptionError: The record is malformed.
    """
    following = read_state(reader, own, cid).following
    return [Followed(prefix, following.ranges[prefix] == COMPLETE, cid) for prefix in following.prefixes]
