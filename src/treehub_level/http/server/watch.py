"""Server-sent events: the changes of a database, as they happen, for as long as somebody reads them."""

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
from .dispatch import RequestContext, disconnected

_HEADERS: Final = [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no")]


class Watch(Response):
    """The stream. A change is read from the log when the one before it was taken, so a slow reader holds up nothing.

    It ends when the client goes away, the server is about to stop, or the database is closed.

    Args:
        call: The request.
        since: The CID after which to begin.
    """

    def __init__(self, call: RequestContext, since: int) -> None:
        self.status_code = 200
        self.background = None
        self._call = call
        self._since = since

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        hub, database = self._call.service.hub, self._call.database
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        # Where the client is, so that it can resume from there though nothing has happened yet.
        await self._send(send, events([], self._since))
        gone = asyncio.ensure_future(disconnected(receive))
        stopping = asyncio.ensure_future(hub.stopping.wait())
        with commit_event(database.store) as news, self._call.service.metrics.waits.track_inprogress():
            for ending in (gone, stopping):
                ending.add_done_callback(lambda _: news.set())
            try:
                while True:
                    news.clear()
                    if gone.done() or stopping.done():
                        break
                    part = await database.part(self._since, MAX_CHANGES, max_bytes=WATCH_BYTES)
                    if part.cid > self._since:
                        await self._send(send, events(part.records, part.cid))
                        self._call.service.metrics.pulled(database.name, len(part.records))
                        self._since = part.cid
                    elif not await set_within(news, self._call.service.limits.keep_alive_seconds):
                        await self._send(send, b": nothing new\n\n")
            except NotOpenError:
                pass
            finally:
                gone.cancel()
                stopping.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, text: bytes) -> None:
        await send({"type": "http.response.body", "body": text, "more_body": True})


def events(records: Iterable[tuple[int, bytes]], reached: int) -> bytes:
    """One event a change; and if the last of them is not where the log was read to, an id alone, which is no event."""
    parts = []
    last = None
    for last, record in records:
        parts.append(b"id: %d\ndata: %b\n\n" % (last, one_line(record)))
    if last != reached:
        parts.append(b"id: %d\n\n" % reached)
    return b"".join(parts)
