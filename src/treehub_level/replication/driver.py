"""Drivers of sessions: they carry the requests of a session to a server, and the replies back.

A session is a generator that yields requests and is sent replies (`session.sync_session`). Here is
the blocking driver, and the parts that it shares with the asyncio driver (``aio.driver``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from ..errors import ForbiddenError, LevelError, TransportError
from .messages import Request

R = TypeVar("R")
Y = TypeVar("Y")


@runtime_checkable
class EncodedExchanger(Protocol):
    """A server that exchanges messages without decoding the changes in them.

    ``Level`` and ``RemoteServer`` are ones. Any other object with an ``exchange`` method receives
    and returns plain JSON objects instead.
    """

    def exchange_encoded(self, request: Request, *, wait: float = 0) -> Any:
        """Answer a request, as ``exchange`` does.

        Args:
            request: The request. It is not modified.
            wait: Seconds to wait for a commit if there is nothing to report yet, 0 to 60.

        Returns:
            A `messages.Reply`, or the bytes of one as a `wire.Received`: changes stay encoded. An
            asyncio server returns an awaitable of it.
        """


def exchange_verb(server: object) -> Callable[..., Any]:
    """Return the ``exchange`` method of a server.

    Raises:
        TypeError: ``server`` has no such method.
    """
    verb = getattr(server, "exchange", None)
    if not callable(verb):
        raise TypeError(f"a server is a level in SERVER mode, or forwards exchange() to one; this is {server!r:.80}")
    return verb  # type: ignore[no-any-return]


def exchange_of(server: object) -> Callable[..., Any]:
    """Return a function that sends a `Request` to a server and returns its reply.

    The reply is one that `wire.decode_reply` accepts. An `EncodedExchanger` is called by its
    ``exchange_encoded``, unless a subclass or the object itself overrides ``exchange`` alone: then
    that override is called.

    Raises:
        TypeError: ``server`` has no ``exchange`` method.
    """
    verb = exchange_verb(server)
    if isinstance(server, EncodedExchanger) and not _overrides_exchange(server):
        return server.exchange_encoded

    @wraps(verb)  # its signature tells if it accepts ``wait``
    def send(request: Request, **options: float) -> Any:
        return verb(request.to_dict(), **options)

    return send


def _overrides_exchange(server: object) -> bool:
    """Return True if ``exchange`` is overridden further down than ``exchange_encoded``."""
    if "exchange" in getattr(server, "__dict__", {}):
        return True
    for cls in type(server).__mro__:
        if "exchange_encoded" in vars(cls):
            return False
        if "exchange" in vars(cls):
            return True
    return True  # both come from ``__getattr__``: a proxy


@contextmanager
def transport_errors() -> Iterator[None]:
    """Convert a network error of any server object to a TransportError with that cause."""
    try:
        yield
    except LevelError:
        raise
    except (OSError, asyncio.TimeoutError) as error:  # before Python 3.11 the latter is no OSError
        raise TransportError(f"the server could not be reached: {error or type(error).__name__}") from error


class Finished(Generic[R]):
    """The end of a session.

    Attributes:
        result: The value that the session returned.
    """

    def __init__(self, result: R) -> None:
        self.result = result


def advance(session: Generator[Y, Any, R], reply: object = None) -> Y | Finished[R]:
    """Send a session the reply to its last request, and return its next request or its end.

    Args:
        session: The session.
        reply: The reply; an exception is thrown into the session instead. ``None`` starts the
            session.
    """
    try:
        return session.throw(reply) if isinstance(reply, Exception) else session.send(reply)
    except StopIteration as end:
        return Finished(end.value)


def drive(session: Generator[Any, Any, R], exchange: Callable[[Request], Any], on_progress: Callable[[], object]) -> R:
    """Run a session to its end, and return its result.

    Args:
        session: The session, without look-ahead.
        exchange: Sends a request and returns the reply.
        on_progress: Called after each exchange.

    Raises:
        LevelError: The session, or the server, raised it.
    """
    try:
        request = advance(session)
        while not isinstance(request, Finished):
            reply: object
            try:
                with transport_errors():
                    reply = exchange(request)
            except (TransportError, ForbiddenError) as error:
                reply = error
            request = advance(session, reply)
            on_progress()
        return request.result
    finally:
        session.close()
