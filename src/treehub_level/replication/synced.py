"""The time at which a client was last in sync: a record of its own, for people.

The record is written in the batch of a reply after which nothing is left to pull or to push, and,
while replies bring nothing, once in `REFRESH_MS`. So it may be older than the truth by that time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Final

from ..backends.base import Entry, Reader
from ..engine import clock
from ..engine.modes import Client, Plan, Step
from ..engine.records import OwnRecords
from ..engine.scan import first_key

#: The name of the record.
SYNCED: Final = "synced"
#: Milliseconds after which an exchange that brings nothing writes the record again.
REFRESH_MS: Final = 60_000

_DIGITS: Final = re.compile(rb"0|[1-9][0-9]{0,14}")


def synced_entry(mode: Client, after: Callable[[], None]) -> tuple[Entry, Callable[[], None]]:
    """Return the entry that records the present time, and a function to call after its commit.

    Args:
        mode: The client.
        after: The function that the other one calls first.
    """
    ms = clock.now()

    def after_commit() -> None:
        after()
        mode.synced_ms = ms

    return (mode.space.own_key(SYNCED), None if ms is None else b"%d" % ms), after_commit


def is_refresh_due(mode: Client, reader: Reader) -> bool:
    """Return True if an exchange that brings nothing is to write the record."""
    now = clock.now()
    if mode.synced_ms is None:  # the first time since the opening
        record = reader.get(mode.space.own_key(SYNCED))
        mode.synced_ms = None if record is None else parse_synced(mode.records, record)
    return now is not None and (mode.synced_ms is None or not 0 <= now - mode.synced_ms < REFRESH_MS)


def refresh_step(mode: Client) -> Step[None]:
    """Write the record if that is due, unless a dirty change is left."""

    def step(transaction: Reader, cid: int) -> Plan[None]:
        if not is_refresh_due(mode, transaction):
            return Plan(None)
        if first_key(transaction, mode.space.dirty_start, mode.space.dirty_stop) is not None:
            return Plan(None)
        entry, after = synced_entry(mode, lambda: None)
        return Plan(None, [entry], after_commit=after)

    return step


def parse_synced(own: OwnRecords, record: bytes) -> int:
    """Return the time in a record, in milliseconds since 1970.

    Raises:
        CorruptionError: The record is malformed.
    """
    if _DIGITS.fullmatch(record) is None or int(record) > clock.MAX_MS:
        raise own.damaged(own.key(SYNCED), "does not hold a time in milliseconds", record)
    return int(record)


def read_synced(reader: Reader, own: OwnRecords) -> datetime | None:
    """Return the time at which a client was in sync last; ``None`` if it never was.

    Raises:
        CorruptionError: The record is malformed.
    """
    record = reader.get(own.key(SYNCED))
    return None if record is None else clock.moment(parse_synced(own, record))
