"""`Identity`: the caller of a request, and the rights that the application's server grants.

A function ``fn(request) -> Identity | None`` authenticates: that of `create_app`'s argument
``authenticate``. The file of tokens and `JWT` are two of them.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final

from ...engine.access import Access
from ...errors import LevelError
from ...replication.fields import MAX_PREFIX_BYTES, MAX_PREFIXES
from .refusals import RefusedError, retry_later, unauthorized

if TYPE_CHECKING:
    from starlette.requests import Request

#: Among the databases of an identity: every database.
ALL_DATABASES: Final = "*"
#: The most characters of a name. The databases store it with each commit and each client.
MAX_NAME: Final = 255
#: Seconds for which the answer of an application's function holds for a request in progress.
RECHECK_SECONDS: Final = 1.0

logger = logging.getLogger("treehub_level.http")


class Identity:
    """The caller of a request, and its rights.

    Args:
        name: The name of the caller, 1 to 255 printable characters. The databases store it as the
            author of changes. Two callers with one name share their clients and their limits.
        databases: The names of the databases that the caller may use; ``"*"`` for all of them.
        write: True if the caller may write.
        prefixes: The prefixes of the keys that the caller may see; ``None`` for all keys. With an
            empty list the caller may see none.
        operator: True if the caller may administer the databases: create, rename, drop and back up
            any that ``databases`` covers. ``write`` and ``prefixes`` are about their entries
            alone.
        expires: The time from which on the rights end, in seconds since 1970; ``None`` for none.
        max_writes_per_minute: The most changes that the caller may write in a minute, in all
            databases together; ``None`` for no limit.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: The name is invalid, or there are more than 256 prefixes, or 16 KiB of them.
    """

    __slots__ = (
        "access",
        "databases",
        "expires",
        "id",
        "max_writes_per_minute",
        "name",
        "operator",
        "prefixes",
        "write",
    )

    #: True if the server authenticates no caller.
    is_anonymous = False

    def __init__(
        self,
        name: str,
        *,
        databases: Iterable[str] = (),
        write: bool = False,
        prefixes: Iterable[str] | None = None,
        operator: bool = False,
        expires: float | None = None,
        max_writes_per_minute: int | None = None,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of an identity is a str, not {name!r:.80}")
        if not (0 < len(name) <= MAX_NAME and name.isprintable()):
            raise ValueError(f"{name!r:.80} is not a valid name: use 1 to {MAX_NAME} printable characters")
        for right, granted in (("write", write), ("operator", operator)):
            if not isinstance(granted, bool):
                raise TypeError(f"{right} is True or False, not {granted!r:.80}")
        self.name = name
        self.databases = _texts("databases", databases)
        self.write = write
        self.prefixes = None if prefixes is None else _texts("prefixes", prefixes)
        self.operator = operator
        self.expires = expires
        if max_writes_per_minute is not None and type(max_writes_per_minute) is not int:
            raise TypeError(f"max_writes_per_minute is an int or None, not {max_writes_per_minute!r:.80}")
        self.max_writes_per_minute = max_writes_per_minute
        #: The subject of limits, and of the log.
        self.id = name
        encoded = [b""] if self.prefixes is None else _shortest(prefix.encode() for prefix in self.prefixes)
        if len(encoded) > MAX_PREFIXES or sum(map(len, encoded)) > MAX_PREFIX_BYTES:
            raise ValueError(
                f"the identity {name!r:.80} has {len(encoded)} prefixes: use at most {MAX_PREFIXES} of together "
                f"{MAX_PREFIX_BYTES} bytes"
            )
        self.access = Access(name, tuple(encoded), write)

    def covers(self, database: str) -> bool:
        """Return True if the identity may use a database."""
        return ALL_DATABASES in self.databases or database in self.databases

    @property
    def may_monitor(self) -> bool:
        """True if the caller may see figures about every database: it could read or drop them."""
        return ALL_DATABASES in self.databases and (self.operator or b"" in self.access.prefixes)

    def is_expired(self) -> bool:
        """Return True if the rights have ended."""
        return self.expires is not None and time.time() >= self.expires

    def until(self, expires: float) -> Identity:
        """Return the same identity, with rights that end at a time, or before it.

        Args:
            expires: The time, in seconds since 1970.
        """
        limited = copy.copy(self)
        limited.expires = expires if self.expires is None else min(self.expires, expires)
        return limited

    def __repr__(self) -> str:
        return (
            f"Identity({self.name!r}, databases={list(self.databases)!r}, write={self.write}, prefixes="
            f"{None if self.prefixes is None else list(self.prefixes)!r}, operator={self.operator})"
        )


#: A function that authenticates a request. A plain one runs in a thread.
Authenticate = Callable[["Request"], "Identity | Awaitable[Identity | None] | None"]


class AnonymousIdentity(Identity):
    """The caller of a server without authentication: every entry, no name, and no operator.

    Every program of the machine can be this caller. Entries are the only thing that it may change:
    an operator can also have files written, by a backup, and remove whole databases.
    """

    __slots__ = ()

    is_anonymous = True

    def __init__(self) -> None:
        super().__init__("-", databases=[ALL_DATABASES], write=True)
        self.name = self.id = ""
        self.access = Access()


class Authenticator:
    """Calls the function that authenticates, and checks its answer.

    Args:
        function: The function; ``None`` to let every caller do everything.

    Raises:
        TypeError: It is no function.
    """

    def __init__(self, function: Authenticate | None) -> None:
        if function is not None and not callable(function):
            raise TypeError(f"authenticate is a function of a request, not {function!r:.80}")
        self._function = function
        self._anonymous = AnonymousIdentity()
        #: True if the function takes microseconds, so that it runs on the event loop, for each
        #: look at the rights.
        self._is_quick = function is None or bool(getattr(function, "answers_at_once", False))
        #: Seconds for which an answer holds for the request that has asked.
        self.lasts = 0.0 if self._is_quick else RECHECK_SECONDS
        call = getattr(function, "__call__", None)  # noqa: B004
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)

    async def __call__(self, request: Request) -> Identity:
        """Return the identity of a request.

        Raises:
            RefusedError: The caller is unknown, or cannot be authenticated at the moment.
            LevelError: The function raised it.
        """
        identity = await self._ask(request)
        if identity is None or identity.is_expired():
            raise unauthorized()
        return identity

    async def _ask(self, request: Request) -> Identity | None:
        if self._function is None:
            return self._anonymous
        try:
            if self._is_quick or self._is_async:
                answer = self._function(request)
            else:
                answer = await asyncio.to_thread(self._function, request)
            found = (await answer) if inspect.isawaitable(answer) else answer
        except LevelError:
            raise
        except Exception as error:
            # The log omits the message, which may quote credentials.
            logger.error("authenticate failed: %s", type(error).__name__)
            raise retry_later(
                503, "LEVEL_UNAVAILABLE", "the server cannot authenticate requests at the moment: try again later"
            ) from error
        if found is not None and not isinstance(found, Identity):
            logger.error("authenticate returned no Identity, and not None: %s", type(found).__name__)
            raise RefusedError(500, "LEVEL_INTERNAL", "the server failed: see its log")
        return found


class KnownIdentity:
    """The identity of a request in progress, as it was when it was asked last.

    Args:
        identity: The identity, asked now.
        lasts: Seconds for which the answer holds.
    """

    __slots__ = ("_asked", "_identity", "_lasts")

    def __init__(self, identity: Identity, lasts: float) -> None:
        self._lasts = lasts
        self.renew(identity)

    def renew(self, identity: Identity) -> Identity:
        """Keep an answer, and return it."""
        self._identity, self._asked = identity, time.monotonic()
        return identity

    def fresh(self) -> Identity | None:
        """Return the identity; ``None`` if it must be asked again."""
        holds = time.monotonic() - self._asked < self._lasts and not self._identity.is_expired()
        return self._identity if holds else None


def _texts(name: str, values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise TypeError(f"{name} is several texts, not the one text {values!r:.80}")
    texts = (*values,)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{name} holds str, not {text!r:.80}")
    return texts


def _shortest(prefixes: Iterable[bytes]) -> list[bytes]:
    """Return the prefixes without those that begin with another one, in order."""
    found: list[bytes] = []
    for prefix in sorted(prefixes):
        if not found or not prefix.startswith(found[-1]):
            found.append(prefix)
    return found
