"""Records of withdrawn pushes, for clients from which the server has accepted no push yet.

A withdrawal is recorded, since a late copy of the push may still arrive. So is a push of which
nothing was accepted, and a part was refused: a rule may change its mind. Such a record has an end:
a copy's base is at most the CID of the withdrawal, so once the log is `MAX_DISTANCE` CIDs further,
every copy is refused for its distance. The records of clients with an accepted push are decision
records, of which each client has one.
"""

from __future__ import annotations

from itertools import islice
from typing import Final, NamedTuple

import orjson

from .. import _core
from ..backends.base import Entry, Reader, Row
from ..engine.records import OwnRecords, is_cid
from ..engine.scan import rows_in
from ..errors import ProtocolError, UnavailableError
from .fields import MAX_DISTANCE, NONCE, Ack
from .records import Decision, StoredRefusal, parse_refusals, stored_refusals

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
        refused: The refusals of some of its changes: the push was not withdrawn, but refused.
    """

    seq: int
    nonce: str
    before: int
    principal: str | None
    refused: tuple[StoredRefusal, ...] = ()

    @property
    def decision(self) -> Decision:
        """The withdrawal as a decision on the push."""
        return Decision(self.seq, self.nonce, Ack(self.before, self.before, None), self.principal, self.refused)

    @classmethod
    def from_stored(cls, own: OwnRecords, key: bytes, record: bytes, head: int) -> Withdrawal:
        """Return the withdrawal that `to_stored` has encoded.

        Args:
            own: The own records of the server.
            key: The key of the record.
            record: The record.
            head: The CID of the server in the same state: no withdrawal is beyond it.

        Raises:
            CorruptionError: The record is malformed.
        """
        match own.decode(key, record):
            case [seq, str(nonce), before, None | str() as principal, *refused] if is_cid(seq) and is_cid(before):
                if NONCE.fullmatch(nonce) and before <= head:
                    try:
                        return cls(seq, nonce, before, principal, parse_refusals(refused))
                    except (ProtocolError, ValueError) as error:
                        raise own.damaged(key, f"is malformed ({error!s:.200})", record) from error
        raise own.damaged(key, f"is not [seq, nonce, CID, principal, refusals] with a CID up to {head}", record)

    def to_stored(self) -> bytes:
        """Return the withdrawal as it is stored."""
        return orjson.dumps([self.seq, self.nonce, self.before, self.principal, *stored_refusals(self.refused)])

    def has_ended(self, head: int) -> bool:
        """Return True if no copy of the push can be accepted any more, at the server's CID."""
        return head - self.before > MAX_DISTANCE


def withdrawal_key(space: _core.KeySpace, client: str) -> bytes:
    """Return the key of the withdrawal record of a client."""
    return space.own_key(f"withdrawn/{client}")


def read_withdrawal(reader: Reader, own: OwnRecords, client: str, head: int) -> Withdrawal | None:
    """Return the withdrawal record of a client; ``None`` if there is none.

    Raises:
        CorruptionError: The record is malformed.
    """
    key = withdrawal_key(own.space, client)
    record = reader.get(key)
    return None if record is None else Withdrawal.from_stored(own, key, record, head)


def withdrawal_entries(reader: Reader, records: OwnRecords, client: str, withdrawal: Withdrawal) -> list[Entry]:
    """Return the entries that record a withdrawal, and that drop the records which have ended.

    Args:
        reader: The transaction.
        records: The own records of the server.
        client: The id of the client.
        withdrawal: The record, with the CID of now.

    Raises:
        CorruptionError: A record is malformed.
        UnavailableError: There are too many records that have not ended.
    """
    own, head = withdrawal_key(records.space, client), withdrawal.before
    rows = [row for row in _rows(reader, records.space) if row[0] != own]
    others = [(key, Withdrawal.from_stored(records, key, record, head)) for key, record in rows]
    ended = [key for key, other in others if other.has_ended(withdrawal.before)]
    lasting = [other for _, other in others if not other.has_ended(withdrawal.before)]
    of_principal = sum(other.principal == withdrawal.principal for other in lasting)
    if len(lasting) >= MAX_WITHDRAWALS or (withdrawal.principal is not None and of_principal >= MAX_OF_PRINCIPAL):
        raise UnavailableError(
            "too many clients have withdrawn their first push, or had it refused: try again once this store has "
            f"{MAX_DISTANCE} more changes"
        )
    return [*((key, None) for key in ended), (own, withdrawal.to_stored())]


def _rows(reader: Reader, space: _core.KeySpace) -> list[Row]:
    return [*islice(rows_in(reader, withdrawal_key(space, "")), MAX_WITHDRAWALS + 1)]
