"""The conflict journal of a client: each local change that lost, kept until somebody deals with it.

A record lies under ``P + P + "conflict/" + cidkey(n)``: ``{"key", "local", "remote", "cid"}``. ``remote`` is ``null``
where nothing won and a reset removed the key; ``cid`` is then the client's own at that moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any, NamedTuple

import orjson

from .. import _core
from ..backends.base import Entry, Reader, Transaction
from ..engine.modes import Client, Plan, Step
from ..errors import CorruptionError, StateError
from ..types import Change, Conflict

#: Records that are read at a time.
_FETCH = 1000


class LostChange(NamedTuple):
    """A local change that is losing now.

    Attributes:
        key: The key, encoded.
        local: The change record that loses.
        remote: The change record that wins; ``None`` if a reset removes the key.
        cid: The CID of the winner.
    """

    key: bytes
    local: bytes
    remote: bytes | None
    cid: int

    def record(self) -> bytes:
        """What the journal holds of it."""
        return b'{"key":%b,"local":%b,"remote":%b,"cid":%d}' % (
            _core.encode_json_key(self.key),
            self.local,
            b"null" if self.remote is None else self.remote,
            self.cid,
        )


def journal_entries(reader: Reader, space: _core.KeySpace, lost: Sequence[LostChange]) -> list[Entry]:
    """What to write so that the journal holds these too, numbered on from its last record."""
    if not lost:
        return []
    first = _last_number(reader, space) + 1
    return [(_journal_key(space, number), loss.record()) for number, loss in enumerate(lost, first)]


def read_conflicts(reader: Reader, space: _core.KeySpace) -> list[Conflict]:
    """Everything in the journal, oldest first.

    Raises:
        CorruptionError: A record cannot be read.
    """
    with closing(reader.scan(*_bounds(space))) as cursor:
        pages = iter(lambda: cursor.fetch(_FETCH), [])
        return [parse_conflict(space, key, record) for page in pages for key, record in page]


def parse_conflict(space: _core.KeySpace, key: bytes, record: bytes) -> Conflict:
    """A stored record as the application sees it.

    Raises:
        CorruptionError: It cannot be read.
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
        raise CorruptionError(f"{record!r:.80} stands in the conflict journal, under {key!r}, and is none") from error


def restore_step(mode: Client, conflict: Conflict) -> Step[None]:
    """Write the change that lost again, as a new local change, and take it out of the journal.

    Raises:
        TypeError: Not a `Conflict`.
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
    """Take a change that lost out of the journal, if it is still there.

    Raises:
        TypeError: Not a `Conflict`.
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
    """Where the journal holds this very conflict. Numbers are given anew as it empties, so contents decide too."""
    if conflict.id < 1:
        return None
    key = _journal_key(space, conflict.id)
    record = reader.get(key)
    return key if record is not None and parse_conflict(space, key, record) == conflict else None


def _bounds(space: _core.KeySpace) -> tuple[bytes, bytes]:
    return space.own_key("conflict/"), space.own_key("conflict0")  # "0" follows "/"


def _journal_key(space: _core.KeySpace, number: int) -> bytes:
    return _bounds(space)[0] + _core.cid_key(number)


def _last_number(reader: Reader, space: _core.KeySpace) -> int:
    start, stop = _bounds(space)
    with closing(reader.scan(start, stop, reverse=True, values=False)) as cursor:
        keys = cursor.fetch_keys(1)
    try:
        return _core.parse_cid_key(keys[0][len(start) :]) if keys else 0
    except ValueError as error:
        raise CorruptionError(f"{keys[0]!r} lies in the conflict journal and is not numbered") from error


def _change(items: list[Any], cid: int | None) -> Change:
    change: Change = tuple.__new__(Change, items)
    if cid is not None:
        change.cid = cid
    return change
