"""Server-sent events: the changes of a database as they are committed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...aio.wait import set_within
from ...engine.records import Commit
from ...errors import LockedError, NotOpenError
from ...replication.waiting import Interest
from ...replication.wire import one_line
from .access_log import ACCESS_RECORD
from .disconnect import wait_for_disconnect
from .dispatch import RequestContext
from .refusals import RETRY_SOON, RefusedError, is_temporary
from .responses import send_in_pieces
from .subscriptions import Subscription

_HEADERS: Final = [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no")]


class WatchResponse(Response):
    """An endless response with the changes of a database as server-sent events.

    Changes are read from the log only once the client has taken those before, so a slow client
    neither blocks writers nor fills memory. The stream does not keep the database open: if the hub
    closes it to make room, the stream goes on at its CID later. It ends when the client
    disconnects, its token is no longer valid, the server stops, or a program closes the database.

    Args:
        context: The request.
        since: The CID after which the stream begins.
    """

    def __init__(self, context: RequestContext, since: int) -> None:
        self.status_code = 200
        self.background = None
        self._context = context
        self._since = since

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until the stream ends."""
        dispatcher, database = self._context.dispatcher, self._context.database
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        # The first id lets the client resume from here even if no event follows.
        await send_in_pieces(send, format_events([], self._since))
        endings: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(wait_for_disconnect(receive)),
            asyncio.ensure_future(dispatcher.hub.stopping.wait()),
        ]
        try:
            with database.subscribe() as subscription, dispatcher.metrics.waits.track_inprogress():
                for ending in endings:
                    ending.add_done_callback(lambda _: subscription.event.set())
                await self._follow(send, subscription, endings)
        except NotOpenError:
            pass
        except RefusedError as refusal:
            scope[ACCESS_RECORD].reason = refusal.code
            await send_in_pieces(send, f": {refusal.code}: {refusal}\n\n".encode())
        finally:
            for ending in endings:
                ending.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _follow(self, send: Send, subscription: Subscription, endings: Sequence[asyncio.Future[Any]]) -> None:
        """Send the changes after `_since`, and wait for further ones, until one of ``endings``."""
        metrics, database = self._context.dispatcher.metrics, self._context.database
        passed: Interest | None = None
        while True:
            subscription.event.clear()
            if any(ending.done() for ending in endings):
                return
            try:
                page, interest = await database.piece(self._since, passed)
            except (LockedError, RefusedError) as error:
                if not is_temporary(error):
                    raise
                # All databases are in use, or another process has this one open.
                await asyncio.wait(endings, timeout=RETRY_SOON, return_when=asyncio.FIRST_COMPLETED)
                await database.access()
                continue
            passed = None
            if page.cid == self._since:
                del page
                await self._wait(send, subscription, interest)
                passed = subscription.take()
                continue
            self._since = page.cid
            metrics.count_pulled(database.name, len(page.records))
            text = format_events(page.records, page.cid, page.commits)
            del page
            await send_in_pieces(send, text)

    async def _wait(self, send: Send, subscription: Subscription, interest: Interest | None) -> None:
        """Wait for a commit that concerns the token, and send a comment from time to time.

        A token may be changed meanwhile, and permit other keys. So the wait also ends then.
        """
        seconds = self._context.dispatcher.limits.keep_alive_seconds
        if interest is not None:
            subscription.wait_for(interest)
        while not await set_within(subscription.event, seconds):
            access = await self._context.database.access()
            if interest is not None and interest.prefixes != frozenset(access.prefixes):
                return
            await send_in_pieces(send, b": nothing new\n\n")


def format_events(records: Iterable[tuple[int, bytes]], cid: int, commits: Iterable[Commit] = ()) -> bytes:
    """Format change records as server-sent events, one a change.

    An event of the type ``commit`` precedes the changes of a recorded commit.

    Args:
        records: The CID and the JSON of each change.
        cid: The CID up to which the log was read. If the last record has a lower one, a block with
            only an id follows: browsers remember that id, but dispatch no event.
        commits: The recorded commits of these changes, in CID order.
    """
    blocks = []
    last = None
    following = iter(commits)
    commit = next(following, None)
    for last, record in records:
        while commit is not None and commit.first <= last:
            blocks.append(b"event: commit\ndata: %b\n\n" % orjson.dumps(commit.to_list()))
            commit = next(following, None)
        blocks.append(b"id: %d\ndata: %b\n\n" % (last, one_line(record)))
    if last != cid:
        blocks.append(b"id: %d\n\n" % cid)
    return b"".join(blocks)
