"""Records of withdrawn pushes, for clients from which the server has accepted no push yet.

A withdrawal is recorded, since a late copy of the push may still arrive. Such a record has an end:
a copy's base is at most the CID of the withdrawal, so once the log is `MAX_CHANGES` CIDs further,
every copy is refused for its distance. The records of clients with an accepted push are decision
records, of which each client has one.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any, Final, NamedTuple

import orjson

from .. import _core
from ..backends.base import Entry, Reader, Row
from ..errors import CorruptionError, UnavailableError
from .fields import MAX_CHANGES

#: The most records of a store that have not ended, and of one principal among them.
MAX_WITHDRAWALS: Final = 1000
MAX_OF_PRINCIPAL: Final = 100


class Withdrawal(NamedTuple):
    """The record of a withdrawn push.

    Attributes:
        seq: The sequence number of the push.
        nonce: The nonce of the push.
        before: The server's CID at the withdrawal.
        principal: The principal of the client; ``None`` without authentication.
    """

    seq: int
    nonce: str
    before: int
    principal: str | None

    @classmethod
    def from_stored(cls, key: bytes, record: bytes) -> Withdrawal:
        """Return the withdrawal that `to_stored` has encoded.

        Raises:
            CorruptionError: The record is malformed.
        """
        match _parse(record):
            case [int(seq), str(nonce), int(before), None | str() as principal]:
                return cls(seq, nonce, before, principal)
        raise CorruptionError(f"the record {key!r} of a withdrawn push cannot be read: {record[:80]!r}")

    def to_stored(self) -> bytes:
        """Return the withdrawal as it is stored."""
        return orjson.dumps([*self])

    def has_ended(self, head: int) -> bool:
        """Return True if no copy of the push can be accepted any more, at the server's CID."""
        return head - self.before > MAX_CHANGES


def _parse(record: bytes) -> Any:
    try:
        return orjson.loads(record)
    except orjson.JSONDecodeError:
        return None


def withdrawal_key(space: _core.KeySpace, client: str) -> bytes:
    """Return the key of the withdrawal record of a client."""
    return space.own_key(f"withdrawn/{client}")


def read_withdrawal(reader: Reader, space: _core.KeySpace, client: str) -> Withdrawal | None:
    """Return the withdrawal record of a client; ``None`` if there is none.

    Raises:
        CorruptionError: The record is malformed.
    """
    key = withdrawal_key(space, client)
    record = reader.get(key)
    return None if record is None else Withdrawal.from_stored(key, record)


def withdrawal_entries(reader: Reader, space: _core.KeySpace, client: str, withdrawal: Withdrawal) -> list[Entry]:
    """Return the entries that record a withdrawal, and that drop the records which have ended.

    Args:
        reader: The transaction.
        space: The key space of the store.
        client: The id of the client.
        withdrawal: The record, with the CID of now.

    Raises:
        CorruptionError: A record is malformed.
        UnavailableError: There are too many records that have not ended.
    """
    own = withdrawal_key(space, client)
    others = [(key, Withdrawal.from_stored(key, record)) for key, record in _rows(reader, space) if key != own]
    ended = [key for key, other in others if other.has_ended(withdrawal.before)]
    lasting = [other for _, other in others if not other.has_ended(withdrawal.before)]
    of_principal = sum(other.principal == withdrawal.principal for other in lasting)
    if len(lasting) >= MAX_WITHDRAWALS or (withdrawal.principal is not None and of_principal >= MAX_OF_PRINCIPAL):
        raise UnavailableError(
            "too many clients have withdrawn their first push: try again once this store has "
            f"{MAX_CHANGES} more changes"
        )
    return [*((key, None) for key in ended), (own, withdrawal.to_stored())]


def _rows(reader: Reader, space: _core.KeySpace) -> list[Row]:
    start = withdrawal_key(space, "")
    with closing(reader.scan(start, start[:-1] + b"0")) as cursor:  # "0" follows "/"
        return cursor.fetch(MAX_WITHDRAWALS + 1)
