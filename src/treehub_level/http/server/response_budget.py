"""The budget for responses: their bytes in memory, in total and of each token."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar
from weakref import WeakValueDictionary

from .limits import Limits
from .refusals import retry_later

T = TypeVar("T")

#: Bytes of a response that are read, encoded and sent at a time. A response needs no share of the
#: budget for a piece of this size: the number of connections bounds those.
PIECE_BYTES: Final = 64 << 10


#: Pages and pieces that are read or compressed at a time for one token.
_CONCURRENT_TURNS: Final = 4


@dataclass(slots=True, eq=False)
class _Waiter:
    """A response that waits for its share of the budget."""

    token: str
    size: int
    granted: asyncio.Future[None]


class ResponseBudget:
    """Bounds the bytes of responses in memory, and the compressors in use, over all requests.

    Only responses of more than `PIECE_BYTES` count. A page is as large as there is room for, and at
    least as large as that: the client asks for the rest. A larger value waits for room, after those
    of earlier requests of its token. No token can take more than its share, and pages leave half of
    it to large values.

    Args:
        limits: The limits of the application.

    Attributes:
        held: The bytes in memory by token id. Tokens without any are absent.
        compressors: The number of compressors in use.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: list[_Waiter] = []
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self.held: Counter[str] = Counter()
        self.compressors = 0

    def hold(self, token: str) -> ResponseHold:
        """Return the hold of a new response, which has no bytes yet."""
        return ResponseHold(self, token)

    @asynccontextmanager
    async def turn(self, token: str) -> AsyncIterator[None]:
        """Wait until few other responses of a token are produced at the moment.

        So the threads have little of one token's work in their queues, and others do not wait for
        it. A page is also in memory until its size is known.
        """
        turns = self._turns.get(token)
        if turns is None:
            turns = self._turns[token] = asyncio.Semaphore(_CONCURRENT_TURNS)
        async with turns:
            yield

    def take_for_page(self, token: str, most: int) -> int:
        """Count as many bytes of a token as there is room for, and return their number.

        It is ``most`` at most, and 0 instead of fewer than `PIECE_BYTES`.
        """
        share, total = self._limits.response_share // 2, self._limits.response_bytes // 2
        size = min(most, share - self.held[token], total - self.held.total())
        if size < PIECE_BYTES:
            return 0
        self.held[token] += size
        return size

    def try_take(self, token: str, size: int) -> bool:
        """Count bytes of a token if there is room for them now. Return False otherwise."""
        if not self._fits(token, size) or any(waiter.token == token for waiter in self._waiting):
            return False
        self.held[token] += size
        return True

    async def take(self, token: str, size: int) -> None:
        """Count bytes of a token once there is room for them.

        Raises:
            RefusedError: There was no room in time.
        """
        if self.try_take(token, size):
            return
        waiter = _Waiter(token, size, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        try:
            await asyncio.wait([waiter.granted], timeout=self._limits.response_seconds)
        except asyncio.CancelledError:
            if waiter.granted.done():
                self.give(token, size)
            raise
        finally:
            if not waiter.granted.done():
                self._waiting.remove(waiter)
                self._grant()  # those behind it may fit
        if not waiter.granted.done():
            raise retry_later(503, "LEVEL_BUSY", "the server is sending too much data: try again in a moment")

    def give(self, token: str, size: int) -> None:
        """Stop counting bytes of a token, and let waiting responses have the room."""
        self.held[token] -= size
        if not self.held[token]:
            del self.held[token]
        self._grant()

    def take_compressor(self) -> bool:
        """Count a compressor if there is room for it. Return False otherwise."""
        if self.compressors >= self._limits.compressors:
            return False
        self.compressors += 1
        return True

    def charge(self, size: int) -> int:
        """Return the bytes to count for so many. More than a share would never find room."""
        return min(size, self._limits.response_share, self._limits.response_bytes)

    def _fits(self, token: str, size: int) -> bool:
        return (
            self.held[token] + size <= self._limits.response_share
            and self.held.total() + size <= self._limits.response_bytes
        )

    def _grant(self) -> None:
        """Let the first waiter of each token go on if there is room for it."""
        passed: set[str] = set()
        for waiter in [*self._waiting]:
            if waiter.token not in passed and self._fits(waiter.token, waiter.size):
                self.held[waiter.token] += waiter.size
                self._waiting.remove(waiter)
                waiter.granted.set_result(None)
            else:
                passed.add(waiter.token)


class ResponseHold:
    """The share of one response in a budget.

    Args:
        budget: The budget.
        token: The id of the request's token.
    """

    def __init__(self, budget: ResponseBudget, token: str) -> None:
        self._budget = budget
        self._token = token
        self._size = 0
        self._has_compressor = False

    @property
    def size(self) -> int:
        """The bytes that the response counts."""
        return self._size

    def shrink(self, size: int) -> None:
        """Give back all but so many bytes: the client has taken the others."""
        if size < self._size:
            self._budget.give(self._token, self._size - size)
            self._size = size

    async def read_page(
        self, read: Callable[[int], Awaitable[T]], measure: Callable[[T], int], most: int, *, has_written: bool = False
    ) -> T:
        """Return a page that is as large as the budget has room for.

        Args:
            read: Reads a page of at most so many bytes, unless its only row is larger. It may run
                several times.
            measure: Returns the bytes of a page.
            most: The most bytes of a page.
            has_written: True if the read may also write. It is then not refused for its result.

        Raises:
            RefusedError: There was no room in time for the first row.
        """
        self.shrink(0)
        async with self.turn():
            room = self._size = self._budget.take_for_page(self._token, most)
            page = await read(max(room, PIECE_BYTES))
            size = measure(page)
            if size <= max(room, PIECE_BYTES):
                self.shrink(size if size > PIECE_BYTES else 0)
                return page
            if has_written:
                self._budget.held[self._token] += size - room
                self._size = size
                return page
        del page
        return await self.read(partial(read, PIECE_BYTES), measure)

    async def read(self, read: Callable[[], Awaitable[T]], measure: Callable[[T], int]) -> T:
        """Return the result of a read as soon as the budget has room for it.

        The bytes of the read before are given back. A result without room is dropped, and is read
        again once there is room, since a waiting response must not fill memory.

        Args:
            read: Reads a part of the response. It may run several times.
            measure: Returns the bytes of a result.

        Raises:
            RefusedError: There was no room in time.
        """
        self.shrink(0)
        while True:
            async with self.turn():
                result = await read()
                size = measure(result)
                if self._size >= self._budget.charge(size) or self._try_take(size):
                    return result
            del result
            self.shrink(0)
            charge = self._budget.charge(size)
            await self._budget.take(self._token, charge)
            self._size = charge

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Return a context manager that waits for a turn: see `ResponseBudget.turn`."""
        return self._budget.turn(self._token)

    def take_compressor(self) -> bool:
        """Return True if the response may use a compressor until it is closed."""
        self._has_compressor = self._has_compressor or self._budget.take_compressor()
        return self._has_compressor

    def _try_take(self, size: int) -> bool:
        self.shrink(0)
        if size > PIECE_BYTES:
            charge = self._budget.charge(size)
            if not self._budget.try_take(self._token, charge):
                return False
            self._size = charge
        return True

    def close(self) -> None:
        """Give back everything: the response has ended. Closing twice is harmless."""
        self.shrink(0)
        if self._has_compressor:
            self._has_compressor = False
            self._budget.compressors -= 1
