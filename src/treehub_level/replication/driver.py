"""Driving a session: carrying its requests to a server and the replies back, with or without threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Generic, TypeVar

from ..errors import ForbiddenError, LevelError, TransportError
from .messages import Request

R = TypeVar("R")
Y = TypeVar("Y")


def exchange_verb(server: object) -> Callable[..., Any]:
    """The verb of ``server`` that carries messages.

    Raises:
        TypeError: It has none.
    """
    verb = getattr(server, "exchange", None)
    if not callable(verb):
        raise TypeError(f"a server is a level in SERVER mode, or forwards exchange() to one; this is {server!r:.80}")
    return verb  # type: ignore[no-any-return]


def exchange_of(server: object) -> Callable[..., Any]:
    """What takes a request to ``server``, and returns the reply as a session takes it.

    Where the verb names another one that carries the messages as they are (`carries_bytes`), changes stay bytes.
    Whatever else forwards ``exchange``, a level with a verb of its own too, gets and gives what JSON can hold.

    Raises:
        TypeError: ``server`` has no such verb.
    """
    verb = exchange_verb(server)
    name = getattr(verb, "carrier", None)
    if name is not None:
        return getattr(verb.__self__, name)  # type: ignore[attr-defined, no-any-return]

    @wraps(verb)  # so that it tells whether it takes ``wait``
    def carry(request: Request, **options: float) -> Any:
        return verb(request.to_dict(), **options)

    return carry


@contextmanager
def transport_errors() -> Iterator[None]:
    """Turn a network error of whatever stands in for a server into a TransportError, cause chained."""
    try:
        yield
    except LevelError:
        raise
    except (OSError, asyncio.TimeoutError) as error:  # before Python 3.11 the latter is no OSError
        raise TransportError(f"the server could not be reached: {error or type(error).__name__}") from error


class Finished(Generic[R]):
    """What a session returned: its messages are all exchanged."""

    def __init__(self, result: R) -> None:
        self.result = result


def advance(session: Generator[Y, Any, R], reply: object = None) -> Y | Finished[R]:
    """Hand a session the reply (none at first), or the error in its place; answer with its next request, or its end."""
    try:
        return session.throw(reply) if isinstance(reply, Exception) else session.send(reply)
    except StopIteration as end:
        return Finished(end.value)


def drive(
    session: Generator[Request, Any, R], exchange: Callable[[Request], Any], on_progress: Callable[[], object]
) -> R:
    """Carry the messages of a session to the server and back until it ends; ``tell`` after each exchange."""
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
