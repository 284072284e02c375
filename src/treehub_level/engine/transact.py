"""`transact`: a function that reads and writes while every other writer waits.

The function runs inside a `Step`, so under the write lock, and in the transaction of a shared
store. Its writes are collected, and become the batch of the step: all of them, or none.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final, Generic, NamedTuple, TypeVar

from ..backends.base import Entry, Reader, Row, Transaction
from ..errors import StateError, UnavailableError
from ..locks import ErrorCheckingLock
from .modes import Plan, Write
from .pending import PendingReader
from .store import Store

T = TypeVar("T")

#: Seconds after which a function is slow: all other writers of the store wait for it.
SLOW_SECONDS: Final = 1.0

logger = logging.getLogger("treehub_level")


class FunctionReader(PendingReader):
    """The store as a function of `transact` sees it: with the writes that it has made so far.

    Args:
        reader: The transaction.
        lock: Held by the thread that runs the function.

    Attributes:
        has_ended: True once the function has returned.
    """

    def __init__(self, reader: Reader, lock: ErrorCheckingLock) -> None:
        super().__init__(reader)
        self._lock = lock
        self.has_ended = False

    def check(self) -> None:
        """Check that the function calls, and has not returned.

        Raises:
            StateError: The function has returned, or another thread calls.
        """
        if self.has_ended or not self._lock.is_owned():
            raise StateError("a transaction works inside its function only: in the same thread, and until it returns")

    def accept(self, entries: Iterable[Entry]) -> None:
        """See `PendingReader.accept`."""
        self.check()
        super().accept(entries)

    def get(self, key: bytes) -> bytes | None:
        """See `PendingReader.get`."""
        self.check()
        return super().get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `PendingReader.get_many`."""
        self.check()
        return super().get_many(keys)

    def rows(
        self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True
    ) -> Generator[Row, None, None]:
        """See `PendingReader.rows`. Afterwards the connection may be that of another call."""
        with closing(super().rows(start, stop, reverse=reverse, values=values)) as found:
            while True:
                self.check()
                row = next(found, None)
                if row is None:
                    return
                yield row


class _Outcome(NamedTuple, Generic[T]):
    """The result of a function, or its exception."""

    result: T | None
    error: Exception | None = None


def transact(
    store: Store,
    function: Callable[[FunctionReader], T],
    *,
    durable: bool,
    is_batch: Callable[[Sequence[Entry]], bool] = lambda entries: False,
) -> T:
    """Run a function while every other writer waits, and write the entries that it has accepted.

    Args:
        store: The store.
        function: The function. A shared store may call it again, after its database has rolled
            the transaction back.
        durable: True to wait for the fsync.
        is_batch: Says of the entries if they belong together.

    Returns:
        The result of the function.

    Raises:
        StateError: This thread is inside a write already.
        Exception: ``function`` or ``is_batch`` raised it. Nothing was written.
    """

    def step(transaction: Transaction, cid: int) -> Plan[_Outcome[T]]:
        pending = FunctionReader(transaction, store.function_lock)
        try:
            with store.function_lock.entry(), store.guarded_reads():
                result = function(pending)
            entries = pending.entries
            belongs = is_batch(entries)
        except UnavailableError:  # of a read: the engine may try again
            raise
        except Exception as error:
            # A decision against a write is no failure of the store, which would read its CID again.
            return Plan(_Outcome(None, error))
        finally:
            pending.has_ended = True
        if not entries:
            return Plan(_Outcome(result))
        writes = (Write(len(entries), True),) if belongs else ()
        planned = store.strategy.plan_write(transaction, cid, entries, writes)
        return Plan(_Outcome(result), planned.batch, planned.cid, durable=durable, after_commit=planned.after_commit)

    outcome = store.step(step)
    if outcome.error is None:
        return outcome.result  # type: ignore[return-value]  # a function may return None
    try:
        raise outcome.error
    finally:
        del outcome  # its error refers to this frame


def require_plain(function: object, verb: str) -> None:
    """Check that an argument is a function that returns its result at once.

    Args:
        function: The argument.
        verb: The call that takes it, for messages.

    Raises:
        TypeError: It is no function, or one that must be awaited or iterated: it runs while all
            other writers wait.
    """
    if not callable(function):
        raise TypeError(f"{verb} takes a function, not {function!r:.80}")
    for candidate in (function, getattr(function, "__call__", None)):  # noqa: B004
        if inspect.iscoroutinefunction(candidate) or inspect.isasyncgenfunction(candidate):
            raise TypeError(f"{verb} takes a plain function, not an async one: all other writers wait for it")
        if inspect.isgeneratorfunction(candidate):
            raise TypeError(f"{verb} takes a plain function, not a generator: nothing would run it")


def require_result(result: T, verb: str) -> T:
    """Return the result of a function, unless it must be awaited.

    Raises:
        TypeError: It must be awaited. A coroutine is closed.
    """
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError(
            f"the function of {verb} returned an awaitable, and nothing was written: use a plain function, "
            "which awaits nothing"
        )
    return result


@contextmanager
def warning_if_slow(function: Callable[..., Any], verb: str) -> Iterator[None]:
    """Log a warning if the block takes more than `SLOW_SECONDS`: all other writers wait for it."""
    started = time.monotonic()
    try:
        yield
    finally:
        seconds = time.monotonic() - started
        if seconds > SLOW_SECONDS:
            name = getattr(function, "__qualname__", None) or type(function).__qualname__
            logger.warning(
                "the function %s of %s took %.1f seconds: all other writers waited for it", name, verb, seconds
            )
