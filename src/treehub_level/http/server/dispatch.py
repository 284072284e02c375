"""Dispatch of requests to routes: authentication, authorization, limits, and error responses."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final, TypeVar

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from ...engine.access import Access
from ...errors import CheckError, StorageError
from .access_log import ACCESS_RECORD, DISCONNECTED, AccessRecord
from .bodies import BodyReader
from .body_memory import BodyAccount
from .database import Database
from .disconnect import DisconnectedError, check_present, is_gone, wait_for_disconnect
from .hub import Hub
from .identities import Authenticate, Authenticator, Identity, KnownIdentity
from .limits import ConcurrencyLimiter, Limits
from .logs import log_event
from .metrics import Metrics
from .origins import OriginPolicy
from .permissions import AuthorizedRoute, Permission, check_permission
from .quota_metrics import QuotaCollector
from .quotas import Quotas, Written
from .refusals import (
    RefusedError,
    refusal_for,
    server_closing,
    too_many_connections,
)
from .response_budget import ResponseBudget
from .responses import refusal_response
from .task_metrics import TaskCollector
from .tokens import Tokens

T = TypeVar("T")

#: In the set of accepted host names: accept every name.
ANY_HOST: Final = "*"

#: The key of the ASGI scope that is true if the server has too many connections.
OVERLOADED: Final = "treehub_level.overloaded"

#: A ``Host`` header: a name or an address, and an optional port.
#: Bytes of memory that a change of a body takes beside its text: the objects of Python around it.
_CHANGE_BYTES: Final = 256
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")

logger = logging.getLogger("treehub_level.http")


class RequestContext:
    """An authorized request, and the resources that its route may use.

    Args:
        request: The request.
        dispatcher: The state that all requests share.

    Attributes:
        record: The record for the access log.
        identity: The caller.
        database: The requested database. Not set for routes that use none.
        hold: The response's share of the budget for responses.
    """

    identity: Identity
    database: Database

    def __init__(self, request: Request, dispatcher: Dispatcher) -> None:
        self.request = request
        self.dispatcher = dispatcher
        self.record: AccessRecord = request.scope[ACCESS_RECORD]
        self.hold = dispatcher.responses.hold("-")
        self._body_account: BodyAccount | None = None

    def admit_body(self, identity: Identity) -> None:
        """Allow the route to read the request body, within the limits of its caller."""
        self._body_account = self.dispatcher.body_reader.memory.account(identity.id, may_write=identity.write)

    async def read_json(self, parse: Callable[[bytes], T]) -> T:
        """Read and parse the request body: see `BodyReader.read_json`."""
        assert self._body_account is not None, "the rights of the request are checked before its body is read"
        return await self.dispatcher.body_reader.read_json(self.request, self._body_account, parse)

    def count_changes(self, count: int) -> None:
        """Count the memory that so many changes of the body take beside their text.

        Raises:
            RefusedError: The bodies of all requests, or those of the token, take too much memory.
        """
        assert self._body_account is not None, "the body was read"
        self._body_account.add(count * _CHANGE_BYTES)

    def release_body(self) -> None:
        """Stop counting the bytes of the body as being in memory."""
        if self._body_account is not None:
            self._body_account.release()

    async def admit_write(self, measure: Callable[[], Written]) -> None:
        """Admit changes within the quotas of the database and of the caller: see `Quotas.admit`.

        Args:
            measure: Returns the changes. Called if there is a quota.
        """
        quotas, identity = self.dispatcher.quotas, self.identity
        if identity.max_writes_per_minute is not None or quotas.of(self.database.name) is not None:
            await quotas.admit(self.database.name, identity.id, identity.max_writes_per_minute, measure())

    @contextmanager
    def write_slot(self) -> Iterator[None]:
        """Count as one of the concurrent writes to the database for the length of the block.

        Raises:
            RefusedError: Too many writes to the database are in progress.
        """
        with self.dispatcher.writes.slot(self.database.name):
            yield

    async def long_poll(self, poll: Coroutine[Any, Any, T], fallback: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the result of ``poll``, or that of ``fallback()`` if the server stops first.

        Args:
            poll: Waits for a change. It is cancelled if the server stops or the client disconnects.
            fallback: Returns the present state without waiting.

        Raises:
            DisconnectedError: The client closed the connection.
        """
        polling = asyncio.ensure_future(poll)
        stopping = asyncio.ensure_future(self.dispatcher.hub.stopping.wait())
        disconnect = asyncio.ensure_future(wait_for_disconnect(self.request.receive))
        tasks: list[asyncio.Future[Any]] = [polling, stopping, disconnect]
        try:
            with self.dispatcher.metrics.waits.track_inprogress():
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not polling.cancelled():
            return polling.result()
        if not disconnect.cancelled():
            raise DisconnectedError
        return await fallback()


class Dispatcher:
    """Checks requests, passes them to their routes, and turns errors into responses.

    Args:
        hub: The databases.
        authenticate: The function that authenticates; ``None`` to let every client do everything.
        hosts: The accepted host names in lower case; `ANY_HOST` among them accepts every name.
        origins: The check of requests that pages of other sites cause.
        compressed_requests: True to accept compressed request bodies.
        limits: The limits of the application.

    Attributes:
        hub: The databases.
        limits: The limits of the application.
        metrics: The metrics of the application.
        body_reader: The reader of request bodies.
        responses: The budget for responses.
        quotas: The quotas of the databases and of the callers.
        requests: The concurrent requests, by token id.
        writes: The concurrent writes, by database.
    """

    def __init__(
        self,
        hub: Hub,
        authenticate: Authenticate | None,
        hosts: frozenset[str],
        origins: OriginPolicy,
        *,
        compressed_requests: bool,
        limits: Limits,
    ) -> None:
        self.hub = hub
        self.limits = limits
        self.quotas = Quotas(hub)
        tokens = authenticate if isinstance(authenticate, Tokens) else None
        self.metrics = Metrics(hub, tokens, [TaskCollector(hub), QuotaCollector(self.quotas)])
        self.body_reader = BodyReader(limits, compressed=compressed_requests)
        self.responses = ResponseBudget(limits)
        self.requests = ConcurrencyLimiter(limits.per_token, 429, "requests of this token")
        self.writes = ConcurrencyLimiter(limits.writes, 503, "writes to this database")
        self._authenticator = Authenticator(authenticate)
        self._hosts = hosts
        self._origins = origins

    async def dispatch(self, route: AuthorizedRoute, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by its route, or send a refusal. No `Exception` leaves this method."""
        record: AccessRecord = scope[ACCESS_RECORD]
        record.route = route.label
        context = RequestContext(Request(scope, receive), self)
        refusal: RefusedError | None = None
        try:
            async with self._admit(route, context, record):
                response = await route.handler(context)
                await response(scope, receive, send)
        except DisconnectedError:
            record.reason = DISCONNECTED
        except Exception as error:
            refusal = refusal_for(error)
            record.reason = refusal.code
            if refusal.status == 500 or isinstance(error, StorageError):
                # The log omits the error's message, since it may quote stored values.
                cause = error.__cause__ if isinstance(error, CheckError) and error.__cause__ is not None else error
                fields = {"error": type(cause).__name__, "database": record.database, "at": _raised_at(cause)}
                message = "{} failed: {error} in database {database} at {at}".format(route.label, **fields)
                log_event(
                    logger,
                    logging.ERROR,
                    "error",
                    f"{message}, request {record.request_id}",
                    {"route": route.label, "request_id": record.request_id, **fields},
                )
            _forget_frames(error)
        finally:
            context.release_body()
            context.hold.close()
        if refusal is not None and not record.status:
            await refusal_response(refusal, record.request_id)(scope, receive, send)
        # A response that has begun ends incomplete, which HTTP clients detect.

    @asynccontextmanager
    async def _admit(
        self, route: AuthorizedRoute, context: RequestContext, record: AccessRecord
    ) -> AsyncIterator[None]:
        """Make all checks of a request, in this order, and let it use its database in the block."""
        if route.permission is Permission.OPEN:
            yield
            return
        if context.request.scope.get(OVERLOADED):
            raise too_many_connections()
        if self.hub.stopping.is_set():
            raise server_closing()
        self._check_host(context.request)
        self._origins.check(context.request.headers)
        identity = await self._authenticate(context.request)
        record.token, record.name = identity.id or "-", identity.name or "-"
        with self.requests.slot(identity.id):
            name = context.request.path_params.get("db")
            check_permission(route.permission, identity, name)
            context.identity = identity
            context.admit_body(identity)
            check_present(context.request.scope)
            if name is None or not route.uses_database:
                record.database = name or "-"
                yield
                return
            async with self.hub.admit(name, creating=identity.write and name in identity.databases):
                record.database = name
                context.hold = self.responses.hold(identity.id)
                known = KnownIdentity(identity, self._authenticator.lasts)
                rights = partial(self._ask_again, route, context.request, name, known)
                context.database = Database(
                    self.hub, name, rights, context.hold, partial(is_gone, context.request.scope)
                )
                yield

    async def _ask_again(self, route: AuthorizedRoute, request: Request, name: str, known: KnownIdentity) -> Access:
        """Return the access that the caller of a request in progress has now.

        A request may last for minutes, and its token may be revoked, expire or be narrowed. Its
        client may leave.

        Raises:
            DisconnectedError: The client closed the connection.
            RefusedError: The token does not allow the request any more.
            StorageError: The file of the tokens cannot be read.
        """
        check_present(request.scope)
        identity = known.fresh()
        if identity is None:
            identity = known.renew(await self._authenticate(request))
        check_permission(route.permission, identity, name)
        return identity.access

    def _check_host(self, request: Request) -> None:
        if ANY_HOST in self._hosts:
            return
        # DNS rebinding: a hostile page sends its own domain in `Host`.
        hosts = request.headers.getlist("host")
        host = _HOST.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None
        if host is None or host[1] not in self._hosts:
            raise RefusedError(
                400,
                "LEVEL_HOST",
                "this server does not accept the name in the header `Host`: add the name with --allow-host",
            )

    async def _authenticate(self, request: Request) -> Identity:
        return await self._authenticator(request)


def _forget_frames(error: BaseException | None) -> None:
    """Drop the tracebacks of an error and of its causes.

    Their frames hold the body of the request. They belong to reference cycles with the futures of
    threads, so the body would stay in memory until a garbage collection.
    """
    while error is not None:
        error.__traceback__, cause = None, error.__cause__ or error.__context__
        error.__cause__ = error.__context__ = None
        error = cause


def _raised_at(error: BaseException) -> str:
    """Return the source file and line that raised an error."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return "-" if last is None else f"{last.tb_frame.f_code.co_filename}:{last.tb_lineno}"
