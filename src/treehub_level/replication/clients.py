"""The clients that a server knows: by the decisions on their last pushes."""

from __future__ import annotations

from collections.abc import Iterator

from ..backends.base import Entry, Reader, Transaction
from ..engine import clock
from ..engine.commits import commits_between
from ..engine.modes import Plan, Step
from ..engine.records import ID, OwnRecords
from ..engine.scan import rows_in
from ..engine.store import Store
from ..types import ClientInfo
from .records import Decision, decision_key, parse_decision
from .withdrawals import Withdrawal, withdrawal_key


def clients_of(store: Store) -> list[ClientInfo]:
    """Return the clients of a server, in the order of their ids: see ``Level.clients``.

    Raises:
        NotOpenError, ModeError: The store is closed, or in another mode.
        CorruptionError: A record is damaged.
    """
    records = store.server("clients").records

    def read(reader: Reader, head: int) -> list[ClientInfo]:
        found = {client: withdrawal.decision for client, withdrawal in _withdrawals(reader, records, head)}
        found |= dict(read_decisions(reader, records, head))
        return [_info_of(reader, records, head, client, found[client]) for client in sorted(found)]

    return store.read_step(read)


def forget_step(store: Store, client: str) -> Step[bool]:
    """Return the step that removes the records of a client: see ``Level.forget_client``.

    Raises:
        NotOpenError, ModeError: The store is closed, or in another mode.
        TypeError: ``client`` is no str.
    """
    space = store.server("forget_client").records.space
    if not isinstance(client, str):
        raise TypeError(f"the id of a client is a str, not {client!r:.80}")
    keys = [decision_key(space, client), withdrawal_key(space, client)] if ID.fullmatch(client) else []

    def step(transaction: Transaction, cid: int) -> Plan[bool]:
        stored = [key for key in keys if transaction.get(key) is not None]
        entries: list[Entry] = [(key, None) for key in stored]
        return Plan(bool(stored), entries)

    return step


def client_document(client: ClientInfo) -> dict[str, object]:
    """Return a client as a JSON object."""
    return {**client._asdict(), "pushed_at": None if client.pushed_at is None else clock.utc_text(client.pushed_at)}


def _info_of(reader: Reader, records: OwnRecords, head: int, client: str, decision: Decision) -> ClientInfo:
    after = decision.ack.after
    has_pushed = after > decision.ack.before
    commits = commits_between(reader, records, head, after, after) if has_pushed else []
    pushed_at = next((clock.moment(commit.ms) for commit in commits if commit.ms is not None), None)
    return ClientInfo(
        id=client,
        name=decision.principal,
        pushed_cid=after if has_pushed else None,
        pushed_at=pushed_at,
        behind=head - after,
        refused=sum(count for _, runs in decision.refused for _, count in runs),
    )


def read_decisions(reader: Reader, records: OwnRecords, head: int) -> Iterator[tuple[str, Decision]]:
    """Yield the id of each client with a decision record, and the decision.

    Raises:
        CorruptionError: A record is damaged.
    """
    start = decision_key(records.space, "")
    for key, record in rows_in(reader, start):
        yield key[len(start) :].decode(), parse_decision(records, key, record, head)


def _withdrawals(reader: Reader, records: OwnRecords, head: int) -> Iterator[tuple[str, Withdrawal]]:
    start = withdrawal_key(records.space, "")
    for key, record in rows_in(reader, start):
        yield key[len(start) :].decode(), Withdrawal.from_stored(records, key, record, head)
