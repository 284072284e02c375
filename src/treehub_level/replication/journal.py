"""The conflict journal of a client: the local changes that lost to the server's.

A conflict stays in the journal until the application restores or dismisses it.

A record is stored under ``P + P + "conflict/" + cidkey(n)``, and is the JSON object ``{"key",
"local", "remote", "cid", "kind", "noticed_at"}``. ``remote`` is ``null`` if a reset removed the
key; ``cid`` is then the client's CID at that time. ``read`` is ``true`` if ``cid`` is the CID at
which the server's value was read. The optional members are ``base``, ``reason``,
``by`` and ``at``; records of earlier versions also lack ``kind`` and ``noticed_at``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple

import orjson

from .. import _core
from ..backends.base import Entry, Reader, Row, Transaction
from ..engine import clock
from ..engine.modes import Client, Plan, Step
from ..engine.records import OwnRecords
from ..engine.scan import rows
from ..errors import StateError
from ..types import Conflict, ConflictKind
from .records import conflict_number, journal_bounds, parse_conflict


class LostChange(NamedTuple):
    """A local change that is about to be overwritten.

    Attributes:
        key: The key, encoded.
        local: The record of the local change.
        remote: The record of the server's change; ``None`` if a reset removes the key.
        cid: The CID of the server's change.
        base: The record of the base value, as a change; ``None`` if it is unknown.
        kind: See `Conflict.kind`.
        reason: The reason of a refusal.
        by: The author of the server's change, if it is known.
        at: The server's clock at its change, in milliseconds since 1970, if it is known.
        is_read: True if the server's value was read at the CID ``cid``: its change may be earlier.
    """

    key: bytes
    local: bytes
    remote: bytes | None
    cid: int
    base: bytes | None = None
    kind: ConflictKind = "conflict"
    reason: str | None = None
    by: str | None = None
    at: int | None = None
    is_read: bool = False

    def record(self, noticed_at: int | None) -> bytes:
        """Return the journal record.

        Args:
            noticed_at: The client's clock, in milliseconds since 1970; ``None`` if it is not set.
        """
        changes = b'"key":%b,"local":%b,"remote":%b,"cid":%d' % (
            _core.encode_json_key(self.key),
            self.local,
            b"null" if self.remote is None else self.remote,
            self.cid,
        )
        base = b"" if self.base is None else b',"base":%b' % self.base
        facts = {
            "read": self.is_read or None,
            "kind": self.kind,
            "reason": self.reason,
            "by": self.by,
            "at": self.at,
            "noticed_at": noticed_at,
        }
        known = {name: fact for name, fact in facts.items() if fact is not None}
        return b"{%b%b,%b" % (changes, base, orjson.dumps(known)[1:])

    def to_conflict(self, own: OwnRecords, noticed_at: int | None) -> Conflict:
        """Return the conflict before it has a number in the journal."""
        conflict = parse_conflict(own, _journal_key(own.space, 1), self.record(noticed_at))
        return replace(conflict, id=0)


def journal_entries(reader: Reader, own: OwnRecords, lost: Sequence[LostChange]) -> list[Entry]:
    """Return entries that append lost changes to the journal, numbered after its last record."""
    if not lost:
        return []
    noticed_at = clock.now()
    first = _last_number(reader, own) + 1
    return [(_journal_key(own.space, number), loss.record(noticed_at)) for number, loss in enumerate(lost, first)]


def read_conflicts(reader: Reader, own: OwnRecords, prefix: str = "") -> list[Conflict]:
    """Return the conflicts over the keys with a prefix, oldest first. The whole journal is read.

    Raises:
        CorruptionError: A record is malformed.
    """
    parsed = (parse_conflict(own, key, record) for key, record in rows(reader, *journal_bounds(own.space)))
    return [conflict for conflict in parsed if conflict.key.startswith(prefix)]


def check_prefix(prefix: object) -> str:
    """Return the prefix of the keys of conflicts; ``""`` for ``None``.

    Raises:
        TypeError: ``prefix`` is neither a ``str`` nor ``None``.
    """
    if prefix is None:
        return ""
    if not isinstance(prefix, str):
        raise TypeError(f"a prefix is a str, not {prefix!r:.80}")
    return prefix


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
        return mode.plan_write(transaction, cid, entries, also=[(key, None)])

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


def dismiss_rows_step(mode: Client, found: Sequence[Row], prefix: str) -> Step[int]:
    """Remove the conflicts over the keys with a prefix, if the journal still holds them.

    Args:
        mode: The client.
        found: Rows of the journal. A number is reused after the last record is removed, so the
            records are compared.
        prefix: The prefix.

    Returns:
        The number of conflicts removed.

    Raises:
        CorruptionError: A record is malformed.
    """
    matching = [row for row in found if parse_conflict(mode.records, *row).key.startswith(prefix)]

    def step(transaction: Transaction, cid: int) -> Plan[int]:
        present = transaction.get_many([key for key, _ in matching])
        batch: list[Entry] = [
            (key, None) for (key, record), now in zip(matching, present, strict=True) if now == record
        ]
        return Plan(len(batch), batch)

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
    if record is None:
        return None
    found = parse_conflict(own, key, record)
    return key if found == conflict and found.noticed_at == conflict.noticed_at else None


def _journal_key(space: _core.KeySpace, number: int) -> bytes:
    return journal_bounds(space)[0] + _core.cid_key(number)


def _last_number(reader: Reader, own: OwnRecords) -> int:
    start, stop = journal_bounds(own.space)
    with closing(reader.scan(start, stop, reverse=True, values=False)) as cursor:
        keys = cursor.fetch_keys(1)
    return conflict_number(own, keys[0]) if keys else 0
