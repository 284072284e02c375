"""Faults to inject into the product.

Each fault removes one mechanism of the protocol, or brings back one failure of ``@treehub/level``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final
from unittest import mock

import orjson

from treehub_level import _core, blocking
from treehub_level.engine import commits, log
from treehub_level.engine import identity as _identity
from treehub_level.engine import store as engine
from treehub_level.engine.base_values import BaseRecording, Bases
from treehub_level.engine.following import Following
from treehub_level.engine.modes import Client as ClientMode
from treehub_level.engine.modes import Plan
from treehub_level.engine.modes import Server as ServerMode
from treehub_level.engine.records import Floor, OwnRecords
from treehub_level.errors import ModeMismatchError
from treehub_level.replication import (
    base_values,
    client,
    limits,
    manual,
    merging,
    push,
    ranges,
    reply_handler,
    retention,
    server,
    session,
    withdrawals,
)
from treehub_level.replication.effects import Effects
from treehub_level.replication.fill import FillPartHandler
from treehub_level.replication.losses import Loss
from treehub_level.replication.messages import LogPage
from treehub_level.replication.reply_handler import ReplyHandler
from treehub_level.replication.state import ClientState
from treehub_level.replication.verdict import Verdict
from treehub_level.types import Changes, Mode

#: The object to patch, the name of its attribute, and the replacement.
Patch = tuple[Any, str, Any]

#: The originals of functions that a fault replaces.
_READ_LOG: Final = log.read_log
_REPEATS: Final = server._Exchange._repeats
_IDENTIFY: Final = _identity.identify
_PUSHABLE_ROWS: Final = limits.PushLimits.pushable_rows
_BATCH: Final = blocking.Level.batch
_COMPARE: Final = FillPartHandler._compare
_PUSHABLE_GROUPS: Final = push._pushable_groups
_LOSE: Final = Effects.lose
_LOSS_OF: Final = Loss.of
_REJECTIONS: Final = server._Exchange._rejection_entries
_RANGES: Final = ranges.requested_ranges
_ADD_PRESENT: Final = server._Exchange.add_present
_JUDGE: Final = Verdict.judge
_RECEIVE: Final = session._receive
_LEARN_MERGED: Final = base_values.BaseValueChanges.learn_merged
_SETTLE: Final = merging.ReplySettler.settle


def _distance_alone(exchange: Any) -> bool:
    return bool(exchange._head - exchange._request.cid > int(vars(server)["MAX_DISTANCE"]))


def _recording_during_resets(bases: Any, following: Any, cid: int) -> Any:
    if bases is None or not bases.kept:
        return None
    return BaseRecording(bases.generation, following, keeps_all=True, has_log=bool(cid) or following.is_resetting)


def _judge_without_groups(verdict: Any, groups: Any, changed: Any) -> Any:
    return _JUDGE(verdict, (), changed)


def _distance_in_records(exchange: Any) -> bool:
    records = _READ_LOG(exchange._reader, exchange._mode, exchange._request.cid, 1000, 1 << 30)
    return len(records) > int(vars(server)["MAX_DISTANCE"])


def _distance_of_the_request(exchange: Any) -> bool:
    return bool(exchange._head - exchange._request.cid > exchange._request.limit)


def _repeats_of_the_same_principal(exchange: Any, decision: Any) -> bool:
    return bool(_REPEATS(exchange, decision) and exchange._owns(decision))


def _compare_in_every_range(handler: Any, key: bytes, value: bytes | None) -> None:
    with mock.patch.object(handler._effects, "is_unchecked", return_value=True):
        _COMPARE(handler, key, value)


def _groups_with_unchecked(reader: Any, own: Any, limits: Any, state: Any, lost: Any, groups: Any) -> Any:
    return _PUSHABLE_GROUPS(reader, own, limits, replace(state, following=Following({})), lost, groups)


def _lose_unless_refused(effects: Any, key: bytes, loss: Loss) -> None:
    if loss.kind != "refused":
        _LOSE(effects, key, loss)


def _loss_that_ends_with_its_change(loss: Loss, record: bytes) -> Loss | None:
    return _LOSS_OF(loss._replace(is_overtaken=False), record) and loss


def _rejections_without_refusals(exchange: Any, ack: Any, refused: Any) -> Any:
    return [] if refused else _REJECTIONS(exchange, ack, refused)


def _ranges_without_the_filled_part(request: Any, space: Any, access: Any) -> Any:
    requested = _RANGES(request, space, access)
    return requested._replace(log=_RANGES(replace(request, fill=None), space, access).log)


def _present_on_every_page(*parts: str) -> Any:
    """Return a function that adds parts of the state at the head to pages that end before it."""

    def add_present(exchange: Any, page: LogPage) -> None:
        more, page.more = page.more, False
        _ADD_PRESENT(exchange, page)
        page.more = more
        if more:
            page.values = page.values if "values" in parts else []
            page.fill = page.fill if "fill" in parts else None

    return add_present


_LATE: Final[list[tuple[bytes, bytes | None]]] = []


def _merge_later(effects: Any, key: bytes, value: bytes | None, remote: bytes | None, *, is_filled: bool) -> int:
    effects.take(key, remote)
    _LATE.append((key, value))
    return 0


def _receive_and_merge(run: Any, mode: Any, *arguments: Any) -> Any:
    _LATE.clear()
    outcome = _RECEIVE(run, mode, *arguments)
    late = [*_LATE]
    if outcome is not None and late:
        run(lambda transaction, cid: mode.plan_write(transaction, cid, late))
    return outcome


def _keep_the_old_base(bases: Any, key: bytes, value: bytes | None, *, is_filled: bool) -> None:
    bases._changed.pop(key, None)


def _learn_unless_unchecked(bases: Any, key: bytes, value: bytes | None, *, is_filled: bool) -> None:
    if is_filled or not bases._following.is_unchecked(key):
        _LEARN_MERGED(bases, key, value, is_filled=is_filled)


def _settle_one_by_one(settler: Any, losses: Any) -> Any:
    return [answer for lost in losses for answer in _SETTLE(settler, [lost])]


def receive_slowly() -> None:
    """Let the sessions of this process wait before each batch of a reply."""
    receive = session._receive

    def receive_later(run: Callable[[Any], Any], *arguments: Any) -> Any:
        def run_later(step: Any) -> Any:
            time.sleep(0.1)
            return run(step)

        return receive(run_later, *arguments)

    session._receive = receive_later  # type: ignore[assignment]


#: The patches that remove each mechanism from the product. (`processes` removes the other ones.)
REMOVALS: Final[dict[str, list[Patch]]] = {
    "compare_and_clean": [(reply_handler, "is_as_frozen", lambda *_: True)],
    "decision_record": [(server, "read_decision", lambda *_: None), (server, "read_withdrawal", lambda *_: None)],
    "withheld_echo": [(ReplyHandler, "_withheld_records", lambda _: {})],
    "own_range": [(ReplyHandler, "_is_own_change", lambda *_: False)],
    "stale_replies": [(session, "is_reply_to", lambda *_: True)],
    "epochs": [(server, "last_common_cid", lambda request, *_: request.max_head)],
    "drained_own_range": [
        (
            ClientState,
            "may_freeze",
            property(lambda state: not (state.push or state.withheld_push or state.following.is_resetting)),
        )
    ],
    "floor": [(OwnRecords, "floor", lambda *_: Floor(0, 0))],
    "floor_of_pushes": [(server._Exchange, "_is_too_far_behind", _distance_alone)],
    "rejected_in_repeats": [(server._Exchange, "_unconfirmed", lambda *_: [])],
    "cid_distance": [(server._Exchange, "_is_too_far_behind", _distance_in_records)],
    "fixed_distance": [(server._Exchange, "_is_too_far_behind", _distance_of_the_request)],
    "withdrawal_record": [(server._Exchange, "_rejection_entries", lambda *_: [])],
    "withdrawal_lifetime": [(withdrawals.Withdrawal, "has_ended", lambda *_: True)],
    "lasting_decisions": [(retention, "is_past", lambda *_: True)],
    "repeat_by_nonce": [(server._Exchange, "_repeats", _repeats_of_the_same_principal)],
    "base_value_of_server": [(base_values.BaseValueChanges, "learn", lambda *_: None)],
    "base_values_reset": [(Bases, "void", lambda bases: bases), (BaseRecording, "of", _recording_during_resets)],
    "whole_log": [(server._Exchange, "_log_between", lambda *_: iter(()))],
    "whole_commits": [(commits, "_between_commits", lambda reader, mode, head, part, *_: part)],
    "piece_at_head": [(server._Exchange, "add_present", _present_on_every_page("fill"))],
    "values_at_head": [(server._Exchange, "add_present", _present_on_every_page("values"))],
    "whole_values": [(server._Exchange, "_room_for_values", lambda exchange, page: exchange._max_bytes)],
    "filled_part": [(server, "requested_ranges", _ranges_without_the_filled_part)],
    "absent_in_piece": [(FillPartHandler, "_sweep", lambda *_: None)],
    "piece_beats_unchecked": [(FillPartHandler, "_compare", lambda *_: None)],
    "base_of_unchecked": [(base_values.BaseValueChanges, "known", lambda *_: None)],
    "base_of_accepted": [(base_values.BaseValueChanges, "learn_accepted", base_values.BaseValueChanges.learn)],
    "log_decides": [(FillPartHandler, "_compare", _compare_in_every_range)],
    "reset_checks_dirty": [(Effects, "has_dirty", lambda _: False)],
    "uncompared": [(Effects, "record_uncompared", lambda *_: None)],
    "leaving_in_flight": [(client, "_has_log_of_leaving", lambda *_: True)],
    "leaving": [(Following, "leave", lambda following, _: following)],
    "unfilled_write": [(Following, "is_uncompared", lambda *_: False)],
    "unfollow_checks_dirty": [(Following, "checking", lambda following, _: following)],
    "unchecked_freeze": [(push, "_pushable_groups", _groups_with_unchecked)],
    "evict": [(session, "evict_step", lambda mode: lambda *_: Plan(False))],
    "groups": [(Verdict, "judge", _judge_without_groups)],
    "groups_lose_whole": [(Effects, "lose_group", lambda effects, key: effects.loss(key) is not None)],
    "merge_in_batch": [(Effects, "_write_merged", _merge_later), (session, "_receive", _receive_and_merge)],
    "merge_base": [(base_values.BaseValueChanges, "learn_merged", _keep_the_old_base)],
    "merge_knows": [(base_values.BaseValueChanges, "learn_merged", _learn_unless_unchecked)],
    "merge_groups": [(merging.ReplySettler, "settle", _settle_one_by_one)],
    "repair_bound": [(merging, "MAX_REPAIRS", 1000)],
    "refusals_heal": [(Effects, "lose", _lose_unless_refused)],
    "overtaken": [(Loss, "of", _loss_that_ends_with_its_change)],
    "refusal_record": [(server._Exchange, "_rejection_entries", _rejections_without_refusals)],
}


def _log_in_the_order_of_text(reader: Any, mode: Any, after: int, limit: int, max_bytes: int) -> Any:
    everything = _READ_LOG(reader, mode, 0, 1_000_000, 1 << 40)
    return sorted((row for row in everything if str(row[0]) > str(after)), key=lambda row: str(row[0]))[:limit]


class _PageThatClaimsToBeAll(LogPage):
    def __init__(self, *address: Any, **fields: Any) -> None:
        super().__init__(*address, **fields | {"cid": fields["head"], "more": False})


def _reaches(space: Any, key: bytes) -> bool:
    """Return True if a dirty change is in the range of ``@treehub/level``: it ends at U+FFFF."""
    return bool(key < space.prefix + "\uffff".encode())


def _dirty_up_to_u_ffff(reader: Any, space: Any) -> bool:
    return any(_reaches(space, key) for key, _ in _PUSHABLE_ROWS(limits.PushLimits(), reader, space))


def _rows_up_to_u_ffff(self: Any, reader: Any, space: Any) -> Any:
    return (row for row in _PUSHABLE_ROWS(self, reader, space) if _reaches(space, row[0]))


def _change_of_any_cid(level: Any, cid: Any, changes: Any) -> int:
    mode, store = level._store.server("change"), level._store
    return int(store.step(manual.change_step(mode, level.cid, level._codec.encoder.changes(changes))))


def _change_of_any_key(level: Any, cid: Any, changes: Any) -> int:
    mode, store = level._store.server("change"), level._store
    return int(store.step(manual.change_step(mode, cid, _core.Encoder().changes(changes))))


def _change_of_anything(level: Any, cid: Any, changes: Any) -> int:
    if not isinstance(changes, list):
        changes = [[item] for item in changes]
    return int(
        level._store.step(manual.change_step(level._store.server("change"), cid, level._codec.encoder.changes(changes)))
    )


def _apply_to_any_cid(level: Any, cid: Any, changes: Any = None) -> Any:
    """Store a CID of any type, unchecked."""
    cid, changes = cid[:2] if isinstance(cid, Changes) else (cid, changes)
    space, entries = level._store.space, level._codec.encoder.changes(changes)
    with level._store.backend.exclusive() as transaction:
        transaction.write([*entries, (space.prefix, orjson.dumps(cid))])
    level._store._cid = None
    return cid


def _batch_that_keeps_what_it_adds(level: Any, ops: Any, **options: Any) -> None:
    _BATCH(level, ops, **options)
    ops += [{"type": "put", "key": "!", "value": level.cid}]


def _identify_in_any_mode(backend: Any, mode: Mode, records: Any, **options: Any) -> Any:
    try:
        return _IDENTIFY(backend, mode, records, **options)
    except ModeMismatchError:
        return (ServerMode if mode is Mode.SERVER else ClientMode)(records, "f" * 32)


#: The failures of ``@treehub/level``, named as in ``tests/replication/test_npm_failures.py``.
FAILURES: Final[dict[str, list[Patch]]] = {
    "order after CID 9": [(module, "read_log", _log_in_the_order_of_text) for module in (server, commits)],
    "more than 100 changes": [(server, "LogPage", _PageThatClaimsToBeAll)],
    "a local write between dirty and clean": [
        (reply_handler, "is_as_frozen", lambda *_: True),
        (manual, "same_record", lambda *_: True),
    ],
    "a lost reply then a local edit": REMOVALS["own_range"] + REMOVALS["decision_record"],
    "a late apply": [(manual, "_check_not_older", lambda *_: None)],
    "starvation while others write": [
        (server._Exchange, "_is_too_far_behind", lambda exchange: exchange._request.cid != exchange._head)
    ],
    "a restored server": REMOVALS["epochs"],
    "another server": REMOVALS["epochs"],
    "keys above U+FFFF": [
        (limits, "is_dirty", _dirty_up_to_u_ffff),
        (limits.PushLimits, "pushable_rows", _rows_up_to_u_ffff),
    ],
    "pushed keys that forge the CID and the log": [(blocking.Level, "change", _change_of_any_key)],
    "changes that are none": [(blocking.Level, "change", _change_of_anything)],
    "a CID that is no int, pushed": [(blocking.Level, "change", _change_of_any_cid)],
    "a CID that is no int, pulled": [(blocking.Level, "apply", _apply_to_any_cid)],
    "the caller's operations mutated": [(blocking.Level, "batch", _batch_that_keeps_what_it_adds)],
    "a client store opened as a server": [(engine, "identify", _identify_in_any_mode)],
}

FAULTS: Final = REMOVALS | FAILURES
