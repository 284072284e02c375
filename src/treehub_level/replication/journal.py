"""The conflict journal of a client: the local changes that lost to the server's.

A conflict stays in the journal until the application restores or dismisses it.

A record is stored under ``P + P + "conflict/" + cidkey(n)``, and is the JSON object ``{"key",
"local", "remote", "cid"}``. ``remote`` is ``null`` if a reset removed the key; ``cid`` is then the
client's CID at that time.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

from .. import _core
from ..backends.base import Entry, Reader, Transaction
from ..engine.modes import Client, Plan, Step
from ..engine.records import OwnRecords
from ..engine.scan import rows
from ..errors import StateError
from ..types import Conflict
from .records import conflict_number, journal_bounds, parse_conflict


class LostChange(NamedTuple):
    """A local change that is about to be overwritten.

    Attributes:
        key: The key, encoded.
        local: The record of the local change.
        remote: The record of the server's change; ``None`` if a reset removes the key.
        cid: The CID of the server's change.
    """

    key: bytes
    local: bytes
    remote: bytes | None
    cid: int

    def record(self) -> bytes:
        """Return the journal record."""
        return b'{"key":%b,"local":%b,"remote":%b,"cid":%d}' % (
            _core.encode_json_key(self.key),
            self.local,
            b"null" if self.remote is None else self.remote,
            self.cid,
        )


def journal_entries(reader: Reader, own: OwnRecords, lost: Sequence[LostChange]) -> list[Entry]:
    """Return entries that append lost changes to the journal, numbered after its last record."""
    if not lost:
        return []
    first = _last_number(reader, own) + 1
    return [(_journal_key(own.space, number), loss.record()) for number, loss in enumerate(lost, first)]


def read_conflicts(reader: Reader, own: OwnRecords) -> list[Conflict]:
    """Return all conflicts in the journal, oldest first.

    Raises:
        CorruptionError: A record is malformed.
    """
    return [parse_conflict(own, key, record) for key, record in rows(reader, *journal_bounds(own.space))]


def restore_step(mode: Client, conflict: Conflict) -> Step[None]:
    """Write a lost change again, as a new local change, and remove its conflict from the journal.

    Raises:
        TypeError: ``conflict`` is not a `Conflict`.
        StateError: The conflict is not in the journal (raised by the step).
    """
    _check_type(conflict)

    def step(transaction: Transaction, cid: int) -> Plan[None]:
        key = _find(transaction, mode.records, conflict)
        if key is None:
            raise StateError(
                f"the conflict over {conflict.key!r} is not in the journal: it was restored or dismissed before"
            )
        entries = _core.Encoder(mode.space).changes([conflict.local])
        return mode.plan_write(transaction, cid, entries, [(key, None)])

    return step


def dismiss_step(mode: Client, conflict: Conflict) -> Step[None]:
    """Remove a conflict from the journal, if the journal still holds it.

    Raises:
        TypeError: ``conflict`` is not a `Conflict`.
    """
    _check_type(conflict)

    def step(transaction: Transaction, cid: int) -> Plan[None]:
        key = _find(transaction, mode.records, conflict)
        return Plan(None, [] if key is None else [(key, None)])

    return step


def _check_type(conflict: object) -> None:
    if not isinstance(conflict, Conflict):
        raise TypeError(f"a Conflict is needed, as conflicts() returns them, not {conflict!r:.80}")


def _find(reader: Reader, own: OwnRecords, conflict: Conflict) -> bytes | None:
    """Return the key of a conflict's record; ``None`` if the journal does not hold the conflict.

    Numbers are reused after the last record is removed, so the contents are compared too.
    """
    if conflict.id < 1:
        return None
    key = _journal_key(own.space, conflict.id)
    record = reader.get(key)
    return key if record is not None and parse_conflict(own, key, record) == conflict else None


def _journal_key(space: _core.KeySpace, number: int) -> bytes:
    return journal_bounds(space)[0] + _core.cid_key(number)


def _last_number(reader: Reader, own: OwnRecords) -> int:
    start, stop = journal_bounds(own.space)
    with closing(reader.scan(start, stop, reverse=True, values=False)) as cursor:
        keys = cursor.fetch_keys(1)
    return conflict_number(own, keys[0]) if keys else 0
