"""What stands between a request and its route: who is it, may they, and is there room."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeVar

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from ...errors import StorageError
from .access_log import RECORD, AccessRecord
from .bodies import Bodies, DisconnectedError
from .catalog import NAME
from .database import Database
from .hub import Hub
from .limits import Limits
from .metrics import Metrics
from .permissions import AuthorizedRoute, Permission
from .refusals import RefusedError, closing, forbidden, malformed, no_database, refusal_of, too_many, unauthorized
from .responses import refusal_response
from .tokens import ANYBODY, Token, Tokens

T = TypeVar("T")

#: Among the hosts: whatever a client calls this server.
ANY_HOST: Final = "*"

#: A name or an address; a port may follow.
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")

logger = logging.getLogger("treehub_level.http")


class RequestContext:
    """A request that was let in, and what it may use.

    Args:
        request: The request.
        service: What all requests share.

    Attributes:
        database: The database that it is about, if it is about one.
    """

    database: Database

    def __init__(self, request: Request, service: Service) -> None:
        self.request = request
        self.service = service
        self._held = 0

    async def json(self) -> Any:
        """The document in its body."""
        return await self.service.bodies.json(self.request, self._hold)

    def _hold(self, size: int) -> None:
        self._held += size
        self.service.bodies.held += size

    def let_go(self) -> None:
        """Nothing of the body is needed any more."""
        self._hold(-self._held)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A turn at writing to the database."""
        with self.service.turn(self.service.writing, self.database.name, self.service.limits.writes, 503):
            yield

    async def patiently(self, waiting: Coroutine[Any, Any, T], otherwise: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What comes of waiting, or of ``otherwise`` if this server is about to stop.

        Raises:
            DisconnectedError: The client went away.
        """
        work = asyncio.ensure_future(waiting)
        stopping = asyncio.ensure_future(self.service.hub.stopping.wait())
        gone = asyncio.ensure_future(disconnected(self.request.receive))
        tasks: list[asyncio.Future[Any]] = [work, stopping, gone]
        try:
            with self.service.metrics.waits.track_inprogress():
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not work.cancelled():
            return work.result()
        if not gone.cancelled():
            raise DisconnectedError
        return await otherwise()


async def disconnected(receive: Receive) -> None:
    """Return when the client goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Service:
    """Answers requests on behalf of their routes.

    Args:
        hub: The databases.
        tokens: Who may do what; ``None`` to let everybody do everything.
        hosts: The names that this server answers to, or `ANY_HOST`.
        compressed_requests: Whether bodies may be compressed.
        limits: How much is taken on.
    """

    def __init__(
        self, hub: Hub, tokens: Tokens | None, hosts: frozenset[str], *, compressed_requests: bool, limits: Limits
    ) -> None:
        self.hub = hub
        self.limits = limits
        self.metrics = Metrics(lambda: hub.open_count)
        self.bodies = Bodies(limits, compressed=compressed_requests)
        self.writing: Counter[str] = Counter()
        self._in_flight: Counter[str] = Counter()
        self._tokens = tokens
        self._hosts = hosts

    async def answer(self, route: AuthorizedRoute, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse to. Nothing that happens here goes any further."""
        record: AccessRecord = scope[RECORD]
        record.route = route.label
        call = RequestContext(Request(scope, receive), self)
        try:
            async with self._admitted(route, call, record):
                response = await route.handler(call)
                await response(scope, receive, send)
        except DisconnectedError:
            record.reason = "disconnected"
        except Exception as error:
            refusal = refusal_of(error)
            record.reason = refusal.code
            if refusal.status == 500 or isinstance(error, StorageError):
                # Not the message: it may quote what is stored.
                logger.error(
                    "%s failed: %s in database %s at %s", route.label, _name(error), record.database, _place(error)
                )
            if not record.status:
                await refusal_response(refusal)(scope, receive, send)
            # Else nothing can be told any more: the answer ends before its end, which every client notices.
        finally:
            call.let_go()

    @asynccontextmanager
    async def _admitted(
        self, route: AuthorizedRoute, call: RequestContext, record: AccessRecord
    ) -> AsyncIterator[None]:
        """Let a request in: each check is here, and in this order."""
        if route.permission is Permission.OPEN:
            yield
            return
        if self.hub.stopping.is_set():
            raise closing()
        self._check_host(call.request)
        token = self._token_of(call.request)
        record.token = token.id or "-"
        with self.turn(self._in_flight, token.id, self.limits.per_token, 429):
            if route.permission is Permission.OPERATE:
                if not token.is_for_all:
                    raise forbidden("this needs a token that may read every database, all of it")
                yield
                return
            name = call.request.path_params["db"]
            if not NAME.fullmatch(name) or not token.reaches(name):
                raise no_database()
            if route.permission is Permission.WRITE and not token.write:
                raise forbidden("this token may read and not write: ask for one that may write")
            async with self.hub.use(name) as level:
                record.database = name
                call.database = Database(name, level, token.access)
                yield

    def _check_host(self, request: Request) -> None:
        if ANY_HOST in self._hosts:
            return
        # A page of somebody else's, whose name was made to lead here, comes with its own name.
        hosts = request.headers.getlist("host")
        host = _HOST.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None
        if host is None or host[1] not in self._hosts:
            raise RefusedError(
                400, "LEVEL_HOST", "this server does not go by the name in the header `Host`: see --allow-host"
            )

    def _token_of(self, request: Request) -> Token:
        if self._tokens is None:
            return ANYBODY
        headers = request.headers.getlist("authorization")
        if len(headers) > 1:
            raise malformed("the header `Authorization` stands twice")
        scheme, _, presented = (headers[0] if headers else "").partition(" ")
        token = self._tokens.find(presented.strip()) if scheme.lower() == "bearer" else None
        if token is None:
            raise unauthorized()
        return token

    @contextmanager
    def turn(self, turns: Counter[str], whose: str, most: int, status: int) -> Iterator[None]:
        """One of so many turns at a time.

        Raises:
            RefusedError: All of them are taken.
        """
        if turns[whose] >= most:
            what = "requests of this token" if status == 429 else "writes to this database"
            raise too_many(status, "LEVEL_BUSY", f"{most} {what} are under way: try again in a moment")
        turns[whose] += 1
        try:
            yield
        finally:
            turns[whose] -= 1
            if not turns[whose]:
                del turns[whose]


def _name(error: BaseException) -> str:
    return type(error).__name__


def _place(error: BaseException) -> str:
    """Where in the code an error was raised."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return "-" if last is None else f"{last.tb_frame.f_code.co_filename}:{last.tb_lineno}"
