"""Server-sent events: the changes of a database as they are committed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...aio.wait import commit_event, set_within
from ...errors import NotOpenError
from ...replication.fields import MAX_CHANGES
from ...replication.wire import one_line
from .database import WATCH_BYTES
from .dispatch import RequestContext, wait_for_disconnect

_HEADERS: Final = [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no")]


class WatchResponse(Response):
    """An endless response with the changes of a database as server-sent events.

    Changes are read from the log only once the client has taken those before, so a slow client
    neither blocks writers nor fills memory. The stream ends when the client disconnects, the server
    stops, or the database is closed.

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
        await self._send(send, format_events([], self._since))
        disconnect = asyncio.ensure_future(wait_for_disconnect(receive))
        stopping = asyncio.ensure_future(dispatcher.hub.stopping.wait())
        with commit_event(database.store) as wakeup, dispatcher.metrics.waits.track_inprogress():
            for ending in (disconnect, stopping):
                ending.add_done_callback(lambda _: wakeup.set())
            try:
                while True:
                    wakeup.clear()
                    if disconnect.done() or stopping.done():
                        break
                    page = await database.changes(self._since, MAX_CHANGES, max_bytes=WATCH_BYTES)
                    if page.cid > self._since:
                        await self._send(send, format_events(page.records, page.cid))
                        dispatcher.metrics.count_pulled(database.name, len(page.records))
                        self._since = page.cid
                    elif not await set_within(wakeup, dispatcher.limits.keep_alive_seconds):
                        await self._send(send, b": nothing new\n\n")
            except NotOpenError:
                pass
            finally:
                disconnect.cancel()
                stopping.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, text: bytes) -> None:
        await send({"type": "http.response.body", "body": text, "more_body": True})


def format_events(records: Iterable[tuple[int, bytes]], cid: int) -> bytes:
    """Format change records as server-sent events, one a change.

    Args:
        records: The CID and the JSON of each change.
        cid: The CID up to which the log was read. If the last record has a lower one, a block with
            only an id follows: browsers remember that id, but dispatch no event.
    """
    blocks = []
    last = None
    for last, record in records:
        blocks.append(b"id: %d\ndata: %b\n\n" % (last, one_line(record)))
    if last != cid:
        blocks.append(b"id: %d\n\n" % cid)
    return b"".join(blocks)
