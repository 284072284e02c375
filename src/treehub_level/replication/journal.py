"""The conflict journal of a client: the local changes that lost to the server's.

A conflict stays in the journal until the application restores or dismisses it.

A record is stored under ``P + P + "conflict/" + cidkey(n)``, and is the JSON object ``{"key",
"local", "remote", "cid"}``. ``remote`` is ``null`` if a reset removed the key; ``cid`` is then the
client's CID at that time.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any, NamedTuple

import orjson

from .. import _core
from ..backends.base import Entry, Reader, Transaction
from ..engine.modes import Client, Plan, Step
from ..engine.scan import rows
from ..errors import CorruptionError, StateError
from ..types import Change, Conflict


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


def journal_entries(reader: Reader, space: _core.KeySpace, lost: Sequence[LostChange]) -> list[Entry]:
    """Return entries that append lost changes to the journal, numbered after its last record."""
    if not lost:
        return []
    first = _last_number(reader, space) + 1
    return [(_journal_key(space, number), loss.record()) for number, loss in enumerate(lost, first)]


def read_conflicts(reader: Reader, space: _core.KeySpace) -> list[Conflict]:
    """Return all conflicts in the journal, oldest first.

    Raises:
        CorruptionError: A record is malformed.
    """
    return [parse_conflict(space, key, record) for key, record in rows(reader, *_bounds(space))]


def parse_conflict(space: _core.KeySpace, key: bytes, record: bytes) -> Conflict:
    """Decode a journal record.

    Raises:
        CorruptionError: The record is malformed.
    """
    try:
        fields = orjson.loads(record)
        remote = fields["remote"]
        return Conflict(
            key=fields["key"],
            local=_change(fields["local"], None),
            remote=None if remote is None else _change(remote, fields["cid"]),
            id=_core.parse_cid_key(key[len(_bounds(space)[0]) :]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptionError(f"the conflict journal holds a malformed record under {key!r}: {record!r:.80}") from error


def restore_step(mode: Client, conflict: Conflict) -> Step[None]:
    """Write a lost change again, as a new local change, and remove its conflict from the journal.

    Raises:
        TypeError: ``conflict`` is not a `Conflict`.
        StateError: The conflict is not in the journal (raised by the step).
    """
    _check_type(conflict)

    def step(transaction: Transaction, cid: int) -> Plan[None]:
        key = _find(transaction, mode.space, conflict)
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
        key = _find(transaction, mode.space, conflict)
        return Plan(None, [] if key is None else [(key, None)])

    return step


def _check_type(conflict: object) -> None:
    if not isinstance(conflict, Conflict):
        raise TypeError(f"a Conflict is needed, as conflicts() returns them, not {conflict!r:.80}")


def _find(reader: Reader, space: _core.KeySpace, conflict: Conflict) -> bytes | None:
    """Return the key of a conflict's record; ``None`` if the journal does not hold the conflict.

    Numbers are reused after the last record is removed, so the contents are compared too.
    """
    if conflict.id < 1:
        return None
    key = _journal_key(space, conflict.id)
    record = reader.get(key)
    return key if record is not None and parse_conflict(space, key, record) == conflict else None


def _bounds(space: _core.KeySpace) -> tuple[bytes, bytes]:
    return space.own_key("conflict/"), space.own_key("conflict0")  # "0" follows "/" in ASCII


def _journal_key(space: _core.KeySpace, number: int) -> bytes:
    return _bounds(space)[0] + _core.cid_key(number)


def _last_number(reader: Reader, space: _core.KeySpace) -> int:
    start, stop = _bounds(space)
    with closing(reader.scan(start, stop, reverse=True, values=False)) as cursor:
        keys = cursor.fetch_keys(1)
    try:
        return _core.parse_cid_key(keys[0][len(start) :]) if keys else 0
    except ValueError as error:
        raise CorruptionError(f"the key {keys[0]!r} in the conflict journal has no number") from error


def _change(items: list[Any], cid: int | None) -> Change:
    change: Change = tuple.__new__(Change, items)
    if cid is not None:
        change.cid = cid
    return change
