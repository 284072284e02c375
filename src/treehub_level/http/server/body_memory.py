"""The memory for request bodies, shared between tokens, and the turns for parsing large ones."""

from __future__ import annotations

import asyncio
import ctypes
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from .limits import Limits
from .refusals import retry_later

#: Bodies of at most this many bytes may use all of the memory. Larger ones leave a quarter free, so
#: that no number of uploads refuses a pull or a small write.
SMALL_BODY_BYTES: Final = 64 << 10
#: After bodies of at least this many bytes, free memory is returned to the operating system.
_TRIMMED_BYTES: Final = 1 << 20
#: Seconds from such a body to that. Further bodies in between share one call.
_TRIM_SECONDS: Final = 0.5


class BodyMemory:
    """Counts the bytes of request bodies in memory, in all and for each token.

    Args:
        limits: The limits ``held_bytes`` and ``token_held_bytes``.

    Attributes:
        limits: The limits of the application.
        buffered_bytes: The bytes of all request bodies in memory.
        by_token: The same for each token id. Tokens without a body are absent.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.buffered_bytes = 0
        self.by_token: Counter[str] = Counter()
        self._trim_timer: asyncio.TimerHandle | None = None

    def account(self, token: str, *, may_write: bool) -> BodyAccount:
        """Return the account of one request.

        Args:
            token: The id of the request's token; empty without one.
            may_write: True if the token may write. Others have a smaller limit.
        """
        return BodyAccount(self, token, may_write)

    def schedule_trim(self) -> None:
        """Return free memory to the operating system soon, in a thread."""
        if _malloc_trim is not None and self._trim_timer is None:
            self._trim_timer = asyncio.get_running_loop().call_later(_TRIM_SECONDS, self._trim)

    def _trim(self) -> None:
        self._trim_timer = None
        assert _malloc_trim is not None
        asyncio.get_running_loop().run_in_executor(None, _malloc_trim, 0)


class BodyAccount:
    """The bytes that the body of one request has in memory.

    Attributes:
        token: The id of the request's token; empty without one.
        may_write: True if the token may write.
        size: The bytes of this body.
    """

    def __init__(self, memory: BodyMemory, token: str, may_write: bool) -> None:
        self._memory = memory
        self.token = token
        self.may_write = may_write
        self.size = 0

    def add(self, size: int) -> None:
        """Count further bytes, before they are kept in memory. A negative size gives some back.

        Raises:
            RefusedError: The bodies of all requests, or those of the token, take too much memory.
        """
        limits, memory = self._memory.limits, self._memory
        if size > 0:
            is_small = self.size + size <= SMALL_BODY_BYTES
            if memory.buffered_bytes + size > _room(limits.held_bytes, is_small):
                raise retry_later(503, "LEVEL_BUSY", "the server is receiving too much data: try again later")
            # Without tokens there is no way to tell one client from another.
            if self.token and memory.by_token[self.token] + size > _room(limits.token_held_bytes, is_small):
                raise retry_later(
                    429, "LEVEL_BUSY", "the server is receiving too much data with this token: try again in a moment"
                )
        self.size += size
        memory.buffered_bytes += size
        memory.by_token[self.token] += size
        if not memory.by_token[self.token]:
            del memory.by_token[self.token]

    def release(self) -> None:
        """Stop counting the bytes of the body."""
        if self.size >= _TRIMMED_BYTES:
            self._memory.schedule_trim()
        self.add(-self.size)


def _find_malloc_trim() -> Callable[[int], int] | None:
    """Return glibc's ``malloc_trim``; ``None`` for other libraries, which keep less.

    glibc keeps freed blocks of up to 32 MiB, in each thread, once it has seen one of that size.
    """
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    return trim


_malloc_trim: Final = _find_malloc_trim()


def _room(limit: int, is_small: bool) -> int:
    return limit if is_small else limit * 3 // 4


class Turns:
    """A lock that tokens take in turns, with at most one waiter of each token in the queue.

    A token with a thousand large bodies delays those of another token by one body only.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def take(self, token: str) -> AsyncIterator[None]:
        """Wait for the turn of a token, and hold the lock for the length of the block."""
        async with AsyncExitStack() as stack:
            lock = self._locks.setdefault(token, asyncio.Lock())
            await stack.enter_async_context(lock)
            await stack.enter_async_context(self._lock)
            yield
