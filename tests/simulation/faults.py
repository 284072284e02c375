"""Faults to put into the product: each mechanism of the protocol removed, each failure of the original put back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import orjson

from treehub_level import _core, blocking
from treehub_level.engine import identity as _identity
from treehub_level.engine import log
from treehub_level.engine import store as engine
from treehub_level.engine.modes import Client as ClientMode
from treehub_level.engine.modes import Server as ServerMode
from treehub_level.errors import ModeMismatchError
from treehub_level.replication import client, server, session
from treehub_level.replication import limits as limits
from treehub_level.replication import manual as seed
from treehub_level.replication.messages import Keys, LogPage
from treehub_level.replication.state import Resetting
from treehub_level.types import Changes, Mode

#: Where to patch, what, and with what.
Patch = tuple[Any, str, Any]

#: What they are before they are replaced.
_READ_LOG: Final = log.read_log
_DECISION: Final = server._Exchange._decision
_IDENTIFY: Final = _identity.identify
_ROWS: Final = limits.PushLimits.rows
_BATCH: Final = blocking.Level.batch


def _keys_without_sweep(receipt: Any, reply: Keys) -> None:
    reset = None if reply.end else Resetting(receipt._state.reset.common, "B", reply.keys[-1].decode())
    receipt._state = replace(receipt._state, reset=reset)


def _is_far_in_records(exchange: Any) -> bool:
    records = _READ_LOG(exchange._transaction, exchange._mode.space, exchange._request.cid, 1000, 1 << 30)
    return bool(len(records) > exchange._request.limit)


def _forgetting_what_was_taken_back(exchange: Any, ack: Any) -> Any:
    key, record = _DECISION(exchange, ack)
    return (key, record) if ack.epoch else (key + b"/nowhere", record)


#: How each mechanism is removed from the real code. (The others are removed around it: see `processes`.)
REMOVALS: Final[dict[str, list[Patch]]] = {
    "casclean": [(client, "_is_as_sent", lambda *_: True)],
    "dedupe": [(server, "read_decision", lambda *_: None)],
    "echo": [(client._Receipt, "_set_aside", lambda _: {})],
    "skip": [(client._Receipt, "_is_own", lambda *_: False)],
    "respcas": [(session, "answers", lambda *_: True)],
    "epoch": [(server, "last_agreed", lambda request, *_: request.hi)],
    "drain": [(client, "_may_freeze", lambda state: not (state.push or state.aside or state.reset))],
    "floor": [(server, "read_floor", lambda *_: (0, 0))],
    "sweep": [(client._Receipt, "keys", _keys_without_sweep)],
    "rejected": [(server._Exchange, "_unproven", lambda *_: [])],
    "distance": [(server._Exchange, "_is_far", _is_far_in_records)],
    "withdraw": [(server._Exchange, "_decision", _forgetting_what_was_taken_back)],
    "whole": [(server._Exchange, "_behind", lambda *_: iter(()))],
}


def _log_in_the_order_of_text(reader: Any, space: Any, after: int, limit: int, max_bytes: int) -> Any:
    everything = _READ_LOG(reader, space, 0, 1_000_000, 1 << 40)
    return sorted((row for row in everything if str(row[0]) > str(after)), key=lambda row: str(row[0]))[:limit]


class _PageThatClaimsToBeAll(LogPage):
    def __init__(self, *address: Any, **fields: Any) -> None:
        super().__init__(*address, **fields | {"cid": fields["head"], "more": False})


def _reaches(space: Any, key: bytes) -> bool:
    """Whether the original's range of dirty changes, which ended at U+FFFF, reaches this one."""
    return bool(key < space.prefix + "\uffff".encode())


def _dirty_up_to_u_ffff(reader: Any, space: Any) -> bool:
    return any(_reaches(space, key) for key, _ in _ROWS(limits.PushLimits(), reader, space))


def _rows_up_to_u_ffff(self: Any, reader: Any, space: Any) -> Any:
    return (row for row in _ROWS(self, reader, space) if _reaches(space, row[0]))


def _change_of_any_cid(level: Any, cid: Any, changes: Any) -> int:
    mode, store = level._server("change"), level._store
    return int(store.step(seed.change_step(mode, level.cid, level._codec.encoder.changes(changes))))


def _change_of_any_key(level: Any, cid: Any, changes: Any) -> int:
    mode, store = level._server("change"), level._store
    return int(store.step(seed.change_step(mode, cid, _core.Encoder().changes(changes))))


def _change_of_anything(level: Any, cid: Any, changes: Any) -> int:
    if not isinstance(changes, list):
        changes = [[item] for item in changes]
    return int(level._store.step(seed.change_step(level._server("change"), cid, level._codec.encoder.changes(changes))))


def _apply_to_any_cid(level: Any, cid: Any, changes: Any = None) -> Any:
    """A CID of any type is stored as it comes."""
    cid, changes = cid[:2] if isinstance(cid, Changes) else (cid, changes)
    space, entries = level._store.space, level._codec.encoder.changes(changes)
    with level._store.backend.exclusive() as transaction:
        transaction.write([*entries, (space.prefix, orjson.dumps(cid))])
    level._store._cid = None
    return cid


def _batch_that_keeps_what_it_adds(level: Any, ops: Any, **options: Any) -> None:
    _BATCH(level, ops, **options)
    ops += [{"type": "put", "key": "!", "value": level.cid}]


def _identify_as_whatever(backend: Any, mode: Mode, space: Any) -> Any:
    try:
        return _IDENTIFY(backend, mode, space)
    except ModeMismatchError:
        return (ServerMode if mode is Mode.SERVER else ClientMode)(space, "f" * 32)


#: What the original does, one failure each: the names are those of ``tests/replication/test_original_failures.py``.
FAILURES: Final[dict[str, list[Patch]]] = {
    "order after CID 9": [(module, "read_log", _log_in_the_order_of_text) for module in (server, seed)],
    "more than 100 changes": [(server, "LogPage", _PageThatClaimsToBeAll)],
    "a local write between dirty and clean": [
        (client, "_is_as_sent", lambda *_: True),
        (seed, "same_record", lambda *_: True),
    ],
    "a lost reply then a local edit": REMOVALS["skip"] + REMOVALS["dedupe"],
    "a late apply": [(seed, "_refuse_backwards", lambda *_: None)],
    "starvation while others write": [
        (server._Exchange, "_is_far", lambda exchange: exchange._request.cid != exchange._head)
    ],
    "a restored server": REMOVALS["epoch"],
    "another server": REMOVALS["epoch"],
    "keys above U+FFFF": [
        (limits, "is_dirty", _dirty_up_to_u_ffff),
        (limits.PushLimits, "rows", _rows_up_to_u_ffff),
    ],
    "pushed keys that forge the CID and the log": [(blocking.Level, "change", _change_of_any_key)],
    "changes that are none": [(blocking.Level, "change", _change_of_anything)],
    "a CID that is no int, pushed": [(blocking.Level, "change", _change_of_any_cid)],
    "a CID that is no int, pulled": [(blocking.Level, "apply", _apply_to_any_cid)],
    "the caller's operations mutated": [(blocking.Level, "batch", _batch_that_keeps_what_it_adds)],
    "a client store opened as a server": [(engine, "identify", _identify_as_whatever)],
}

FAULTS: Final = REMOVALS | FAILURES
