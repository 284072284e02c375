"""Servers with one fault each, and the scenario that is named for it.

A fault is the removal of a mechanism (`simulation.faults`), or an intervention between a sound
server and its client.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from simulation.faults import FAULTS

from treehub_level.errors import Refused
from treehub_level.replication import server
from treehub_level.testing.exchange import ServerUnderTest
from treehub_level.testing.exchange.clients.played_server import (
    Intervention,
    PlayedServer,
    Response,
    Turn,
    edited,
    honest,
    refusal,
    reply_response,
)
from treehub_level.testing.exchange.servers import pushes

from .served import REFUSED, refuse


@dataclass(frozen=True)
class ServerFault:
    """A fault of a server.

    Attributes:
        removals: The mechanisms to remove, by their names in `simulation.faults`.
        usual: The intervention in each turn.
        receive: Changes the body of each request.
        check: The rule of the database.
        settings: Settings of the server under test that differ.
        patches: Further patches.
    """

    removals: Sequence[str] = ()
    usual: Intervention = honest
    receive: Callable[[bytes], bytes] = bytes
    check: Callable[..., object] = refuse
    settings: dict[str, Any] | None = None
    patches: Sequence[tuple[Any, str, Any]] = ()


class FaultyServer(PlayedServer):
    """A played server with a fault."""

    def __init__(self, fault: ServerFault) -> None:
        super().__init__(fault.check)
        self.usual = fault.usual
        self._receive = fault.receive

    def respond(self, body: bytes, *, wait: float = 0, takes_lines: bool = False) -> Response | None:
        return super().respond(self._receive(body), wait=wait, takes_lines=takes_lines)


@contextmanager
def faulty_server(fault: ServerFault) -> Iterator[ServerUnderTest]:
    """Run a server with a fault for the length of the block."""
    with ExitStack() as stack:
        removals = [patch for name in fault.removals for patch in FAULTS[name]]
        for patch in [*removals, *fault.patches]:
            stack.enter_context(mock.patch.object(*patch))
        running = stack.enter_context(FaultyServer(fault).running())
        yield replace(
            ServerUnderTest(
                running.url,
                refused_prefix=REFUSED,
                compact=lambda: running.level.compact_log(drop_deletes_before=running.level.cid + 1),
            ),
            **(fault.settings or {}),
        )


# ------------------------------------------------------------------------------ interventions


def changing(change: Callable[[dict[str, Any]], dict[str, Any]]) -> ServerFault:
    """Change each reply by a function that returns other fields."""

    def answer(turn: Turn) -> Response:
        reply = turn.answer()
        return reply_response({**reply, **change(reply)})

    return ServerFault(usual=answer)


def without(name: str) -> ServerFault:
    """Leave a field out of each reply."""

    def answer(turn: Turn) -> Response:
        reply = turn.answer()
        gone = (name, {"values": "value_count", "fill": "entries"}.get(name))
        return reply_response({field: value for field, value in reply.items() if field not in gone})

    return ServerFault(usual=answer)


def asking(**fields: Any) -> ServerFault:
    """Answer each request as if it had other fields."""
    return ServerFault(usual=lambda turn: reply_response(turn.answer(**fields)))


def _without_an_entry(reply: dict[str, Any]) -> dict[str, Any]:
    entries = reply.get("entries", [])[1:]
    return {"fill": {**reply["fill"], "count": len(entries)}, "entries": entries} if entries else {}


def _in_the_order_of_utf_16(reply: dict[str, Any]) -> dict[str, Any]:
    entries = sorted(reply.get("entries", []), key=lambda entry: entry[0].encode("utf-16-be"))
    return {"entries": entries} if entries else {}


def _without_deletes(reply: dict[str, Any]) -> dict[str, Any]:
    rows = [row for row in reply.get("page", []) if len(row[1]) == 2]
    return {"page": rows, "count": len(rows)} if reply["kind"] == "page" else {}


def _without_groups(reply: dict[str, Any]) -> dict[str, Any]:
    return {"commits": [[*commit[:5], []] for commit in reply.get("commits", [])]}


def _rounded(reply: dict[str, Any]) -> dict[str, Any]:
    rows = [[cid, [key, *map(_round, value)]] for cid, (key, *value) in reply.get("page", [])]
    return {"page": rows} if rows else {}


def _round(value: Any) -> Any:
    return int(float(value)) if type(value) is int and value < 2**64 - 1 else value


def _with_a_part(reply: dict[str, Any]) -> dict[str, Any]:
    part = {"prefix": "", "after": "", "to": "", "end": True, "count": 0}
    return {"fill": part, "entries": []} if reply.get("ack") else {}


def _lines_that_are_none(turn: Turn) -> Response:
    response = reply_response(turn.answer())
    lines = {**response.headers, "Content-Type": "application/x-ndjson"}
    return replace(response, headers=lines) if turn.takes_lines else response


def _rebasing(turn: Turn) -> Response:
    """Judge a push as if the client had pulled everything: the last writer wins."""
    if not turn.parsed.changes:
        return reply_response(turn.answer())
    cid = turn.server.level.cid
    return reply_response({**turn.answer(cid=cid, max_head=cid), "base": turn.parsed.cid})


def _rebasing_copies(turn: Turn) -> Response | None:
    """Judge the second copy of a push anew."""
    pushes = [request["push"] for request in turn.server.requests if request["push"]]
    return _rebasing(turn) if pushes.count(turn.parsed.push_nonce) > 1 else honest(turn)


def _ignoring_the_nonce(turn: Turn) -> Response:
    """Recognise a push by its number alone."""
    return reply_response(turn.answer(**({"push_nonce": "0" * 32} if turn.parsed.is_push else {})))


def _older_parts() -> ServerFault:
    """Send entries as they were at the first request for a part."""
    snapshot: dict[str, Any] = {}

    def answer(turn: Turn) -> Response:
        snapshot.update(snapshot or (turn.server.level.query() if turn.parsed.fill else ()))
        reply = turn.answer()
        entries = [[key, snapshot.get(key, value)] for key, value in reply.get("entries", [])]
        return reply_response({**reply, **({"entries": entries} if entries else {})})

    return ServerFault(usual=answer)


def _without_waiting(turn: Turn) -> Response | None:
    turn.wait = 0
    return honest(turn)


def _waiting_always(turn: Turn) -> Response | None:
    time.sleep(turn.wait)
    return honest(turn)


def _refusing_unknown_fields(turn: Turn) -> Response | None:
    is_unknown = b'"later"' in turn.body
    return refusal(400, "LEVEL_PROTOCOL") if is_unknown else honest(turn)


class _ChangesItsMind:
    """A rule that refuses the first change alone."""

    def __init__(self) -> None:
        self._is_first = True

    def __call__(self, _call: Any, _changes: Any, _read: Any) -> None:
        if self._is_first:
            self._is_first = False
            raise Refused("not yet")


_FORGETS_DECISIONS = ServerFault(["decision_record"])
_SKIPS_AN_ENTRY = changing(_without_an_entry)
_RESETS_TO_0 = changing(lambda reply: {"common": 0} if reply["kind"] == "reset" else {})
_NEVER_RESETS = ServerFault(["epochs"])

#: The fault that each scenario is to find.
SERVER_FAULTS: dict[str, ServerFault] = {
    # fills
    "a-range-is-filled-in-parts": _SKIPS_AN_ENTRY,
    "keys-are-in-the-order-of-their-utf-8-bytes": changing(_in_the_order_of_utf_16),
    "the-log-is-sent-for-the-filled-part": ServerFault(["filled_part"]),
    "a-part-is-read-at-the-head": ServerFault(["piece_at_head"]),
    "a-part-leaves-out-complete-ranges": asking(complete=()),
    "a-push-gets-no-part": changing(_with_a_part),
    "an-empty-range-ends-at-once": without("fill"),
    # history
    "a-cid-beyond-the-head-is-reset": _RESETS_TO_0,
    "a-head-that-the-server-never-had-is-reset": _NEVER_RESETS,
    "another-history-is-reset": _NEVER_RESETS,
    "an-epoch-that-ended-earlier-is-reset": _NEVER_RESETS,
    "a-reset-tells-the-decision-on-a-push": changing(lambda reply: {"ack": None} if reply["kind"] == "reset" else {}),
    "a-client-without-epochs-is-not-reset": ServerFault(usual=edited(epochs=[])),
    "a-client-below-the-floor-is-reset": ServerFault(["floor"]),
    "a-fill-below-the-floor-is-reset-once-it-has-data": ServerFault(["floor"]),
    "a-push-from-below-the-floor-is-not-decided": ServerFault(["floor_of_pushes"]),
    "a-compacted-log-leads-to-the-same-data": _SKIPS_AN_ENTRY,
    # pulls
    "a-pull-returns-the-log": changing(_without_deletes),
    "pages-of-a-limit-join-into-the-log": asking(limit=1000),
    "a-page-ends-before-a-group-that-does-not-fit": ServerFault(["whole_commits"]),
    "a-group-that-exceeds-a-page-is-cut": asking(limit=1000),
    "a-page-lists-the-commits-of-its-changes": changing(_without_groups),
    "the-log-is-filtered-by-the-ranges-of-the-request": asking(complete=("",)),
    "read-returns-present-values": without("values"),
    "values-come-back-as-they-were-sent": changing(_rounded),
    "unknown-fields-are-ignored-and-optional-ones-may-be-absent": ServerFault(usual=_refusing_unknown_fields),
    "lines-hold-the-same-as-one-document": ServerFault(usual=_lines_that_are_none),
    # pushes
    "a-push-is-accepted-with-the-next-cids": changing(
        lambda reply: {"ack": [*reply["ack"][:2], "e" * 32]} if reply.get("ack") else {}
    ),
    "a-repeat-gets-the-same-decision": _FORGETS_DECISIONS,
    "a-repeat-gets-the-same-decision-after-other-writes": _FORGETS_DECISIONS,
    "a-late-copy-of-an-earlier-push-is-forked": _FORGETS_DECISIONS,
    "two-stores-with-one-client-id-are-forked": ServerFault(usual=_ignoring_the_nonce),
    "a-change-of-a-key-that-has-changed-since-is-rejected": ServerFault(usual=_rebasing),
    "a-rejection-is-permanent": ServerFault(usual=_rebasing_copies),
    "the-whole-log-decides-on-a-push": ServerFault(["whole_log"]),
    "a-group-is-rejected-as-a-whole": ServerFault(["groups"]),
    "a-group-is-accepted-as-a-whole": ServerFault(["groups"]),
    "a-push-from-too-far-behind-is-not-decided": ServerFault(
        patches=[(pushes, "MAX_DISTANCE", 4), (server, "MAX_DISTANCE", 5)]
    ),
    # refusals
    "a-request-for-another-server-is-refused": asking(server=None),
    "another-version-of-the-protocol-is-refused": ServerFault(
        receive=lambda body: body.replace(b'"protocol": 1', b'"protocol": 2')
    ),
    "malformed-requests-are-refused": ServerFault(receive=lambda body: body.replace(b'"limit":0', b'"limit":1')),
    "well-formed-requests-are-answered": ServerFault(
        receive=lambda body: body.replace(b'"fill":["",""]', b'"fill":[""]')
    ),
    "a-reply-repeats-the-nonce-and-the-cid": ServerFault(usual=edited(nonce="1" * 32)),
    # rights
    "an-unknown-token-is-refused": ServerFault(settings={"token": "any"}),
    "a-token-that-may-not-write-pulls-and-does-not-push": ServerFault(settings={"read_token": "any"}),
    "a-token-of-a-prefix-sees-and-writes-its-keys-alone": ServerFault(settings={"prefix_token": "any"}),
    "a-rule-refuses-a-change-with-a-reason": without("refused"),
    "a-rule-refuses-a-group-as-a-whole": ServerFault(["groups"]),
    "a-refusal-is-recorded": ServerFault(["refusal_record"], check=_ChangesItsMind()),
    # waiting
    "a-long-poll-returns-at-a-change": ServerFault(usual=_without_waiting, settings={"patience": 2}),
    "a-long-poll-ends-without-a-change": ServerFault(usual=_without_waiting),
    "a-long-poll-with-a-push-returns-at-once": ServerFault(usual=_waiting_always, settings={"patience": 0.5}),
    # withdrawals
    "a-withdrawn-push-is-never-applied": ServerFault(["withdrawal_record"]),
    "a-withdrawal-of-an-accepted-push-tells-its-decision": _FORGETS_DECISIONS,
    "a-push-after-a-withdrawal-is-accepted": _FORGETS_DECISIONS,
}

#: Further faults, by the scenarios that are to find them.
FURTHER_SERVER_FAULTS: dict[str, ServerFault] = {
    "the-log-is-sent-for-the-filled-part": _older_parts(),
    "a-repeat-gets-the-same-decision": ServerFault(["rejected_in_repeats"]),
    "two-stores-with-one-client-id-are-forked": _FORGETS_DECISIONS,
    "a-pull-returns-the-log": changing(lambda reply: {"base": 0}),
}
