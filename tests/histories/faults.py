"""Faults to put into real clients and servers: the controls of the checker.

Each is a text of Python statements that a process runs before its work, and the anomalies of which
the checker must find at least one.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from replicas.faults import CACHES_CID, SKIPS_COMMITS


class Fault(NamedTuple):
    """A fault.

    Attributes:
        anomalies: The names of the anomalies that prove it.
        prelude: The statements.
    """

    anomalies: frozenset[str]
    prelude: str


#: Faults of a client that follows everything.
CLIENT_FAULTS: Final = {
    "applies half a page": Fault(
        frozenset({"fractured read"}),
        """
from dataclasses import replace
from treehub_level.replication.reply_handler import ReplyHandler

apply_page = ReplyHandler.apply_page

def apply_half(handler, page):
    half = len(page.entries) // 2
    if half:
        handler._outcome.is_cut = True
        page = replace(page, cid=page.cids[half - 1], more=True, cids=page.cids[:half],
                       entries=page.entries[:half], values=[], fill=None)
    apply_page(handler, page)

ReplyHandler.apply_page = apply_half
""",
    ),
    "drops its dirty changes at a pull": Fault(
        frozenset({"lost write"}),
        """
from treehub_level.replication.effects import Effects

Effects.journal = lambda effects, lost: None
""",
    ),
    "does not know its own changes": Fault(
        frozenset({"read your writes"}),
        """
from itertools import count
from treehub_level import TransportError
from treehub_level.http.blocking import RemoteServer
from treehub_level.replication.reply_handler import ReplyHandler

ReplyHandler._is_own_change = lambda handler, cid: False
exchange, pushes = RemoteServer.exchange_encoded, count()

def exchange_or_lose(remote, request, *, wait=0):  # every other accepted push is pushed again
    reply = exchange(remote, request, wait=wait)
    if request.changes and next(pushes) % 2 == 0:
        raise TransportError("the reply to a push is lost")
    return reply

RemoteServer.exchange_encoded = exchange_or_lose
""",
    ),
    "goes on from a CID that it has not reached": Fault(
        frozenset({"not a prefix", "inconsistent report"}),
        """
from treehub_level.replication.effects import Effects

take = Effects.take
Effects.take = lambda effects, key, value: None if value and hash(value) % 5 == 0 else take(effects, key, value)
""",
    ),
}

SERVER_FAULTS: Final = {
    "judges each change of a group": Fault(
        frozenset({"divided group"}),
        """
from treehub_level.replication.verdict import Verdict

judge = Verdict.judge
Verdict.judge = lambda verdict, groups, changed: judge(verdict, (), changed)
""",
    ),
    "ends pages inside groups": Fault(
        frozenset({"fractured read"}),
        """
from treehub_level.engine import commits

commits._between_commits = lambda reader, mode, head, part, *rest: part
""",
    ),
    "does not compare a push with its log": Fault(
        frozenset({"lost update"}),
        """
from treehub_level.replication.server import _Exchange

_Exchange._changed_keys = lambda exchange, page: set()
""",
    ),
    "answers reads from a cache": Fault(
        frozenset({"read your writes", "monotonic reads", "G-single-session", "G-single-realtime"}),
        """
import time
from treehub_level.http.server.database import Database

def cached(read):
    cache = {}
    async def read_cached(database, *arguments):
        if arguments not in cache or cache[arguments][0] < time.monotonic():
            cache[arguments] = time.monotonic() + 1, await read(database, *arguments)
        return cache[arguments][1]
    return read_cached

Database.get, Database.entries = cached(Database.get), cached(Database.entries)
""",
    ),
}

#: Faults of all of several servers over one database.
REPLICA_FAULTS: Final = {
    "cache the CID": Fault(frozenset({"gap in the log", "lost write", "not a prefix", "unreadable log"}), CACHES_CID),
    "acknowledge before they commit": Fault(frozenset({"lost write"}), SKIPS_COMMITS),
    "answer reads from a cache": SERVER_FAULTS["answers reads from a cache"],
}
