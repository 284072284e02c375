"""The verbs that decide on present values: ``transact`` and ``update``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar, overload

from ..backends.base import Reader
from ..engine.codec import Codec
from ..engine.groups import check_together
from ..engine.namespace import check_durable
from ..engine.store import Store
from ..engine.transact import FunctionReader, require_plain, require_result, transact, warning_if_slow
from ..replication.conditions import condition_of
from ..types import ANY_VALUE, JSON, MISSING, Found, Key, MissingType, Value, Wanted, Written
from .reads import ReadVerbs
from .writes import is_group

T = TypeVar("T")


class LevelTransaction(ReadVerbs[Key, Value, Found], Generic[Key, Value, Found, Written]):
    """The argument of a function of ``transact``: reads and writes of one transaction.

    It has the verbs that read, without ``await`` in both APIs, and they see the writes of the
    function: ``get``, ``has``, ``get_many``, ``query``, ``keys``, ``values``, ``count`` and
    ``scan``. Writes are checked at once, and made together when the function has returned. Of
    several writes to one key the last one is made. Memory grows with the number of writes.

    It works inside its function only: in the same thread, and until the function returns.

    All verbs raise:
        StateError: The function has returned, or another thread calls.
    """

    def __init__(self, store: Store, codec: Codec, pending: FunctionReader) -> None:
        self._store = store
        self._codec = codec
        self._key_reader = self._pending = pending
        self._guard = store.guard

    def _reader(self) -> Reader:
        self._pending.check()
        return self._pending

    def put(
        self,
        key: Key,
        value: Written,
        *,
        if_absent: bool = False,
        if_value: Wanted[Written] = ANY_VALUE,
    ) -> None:
        """Store a value under a key when the function has returned.

        Args:
            key: The key.
            value: The value, as for `Level.put`. Later changes of the object have no effect.
            if_absent: True to raise an error if the key exists.
            if_value: The value that the key must have: see `Level.put`.

        Raises:
            ConditionError: The key has another value.
            InvalidKeyError, InvalidValueError: See `Level.put`.
        """
        entry = self._codec.encoder.put(key, value)
        if if_absent or if_value is not ANY_VALUE:
            self._require(key, if_absent, if_value)
        self._pending.accept([entry])

    def delete(self, key: Key, *, if_value: Wanted[Written] = ANY_VALUE) -> None:
        """Remove a key when the function has returned. An absent key is deleted, too.

        Args:
            key: The key.
            if_value: The value that the key must have: see `Level.put`.

        Raises:
            ConditionError: The key has another value.
            InvalidKeyError: See `Level.put`.
        """
        entry = self._codec.encoder.delete(key)
        if if_value is not ANY_VALUE:
            self._require(key, False, if_value)
        self._pending.accept([entry])

    @overload
    def update(self, key: Key, fn: Callable[[Found], Written]) -> Value: ...

    @overload
    def update(self, key: Key, fn: Callable[[Found], Written | MissingType]) -> Value | MissingType: ...

    def update(self, key: Key, fn: Callable[[Any], Any]) -> Any:
        """Replace the value of a key by ``fn(value)``, and return the new value.

        Args:
            key: The key.
            fn: The function: see `Level.update`.

        Returns:
            The new value, as `get` would return it; `MISSING` if the key was deleted.

        Raises:
            TypeError: ``fn`` is no function, is an async one, or returns an awaitable.
            InvalidKeyError, InvalidValueError: The key, or the new value, cannot be stored.
            DecodeError: The present value cannot be decoded.
        """
        require_plain(fn, "update()")
        before = self.get(key, MISSING)
        after = require_result(fn(None if before is MISSING else before), "update()")
        if after is not MISSING:
            self.put(key, after)
            return self.get(key)
        if before is not MISSING:
            self.delete(key)
        return MISSING

    def sublevel(self, name: str, *, separator: str = "/") -> LevelTransaction[str, Any, Any, JSON]:
        """Return this transaction for the keys of a sublevel: see `Level.sublevel`."""
        return LevelTransaction(self._store, self._codec.inside(name, separator), self._pending)

    def _require(self, key: Key, if_absent: bool, if_value: object) -> None:
        condition = condition_of(self._codec, key, if_absent=if_absent, if_value=if_value)
        if condition is not None:
            condition.require(self._pending)


class DecisionVerbs(Generic[Key, Value, Found, Written]):
    """The verbs that read and write in one transaction, while every other writer waits."""

    _store: Store
    _codec: Codec
    _durable: bool

    def transact(
        self,
        fn: Callable[[LevelTransaction[Key, Value, Found, Written]], T],
        *,
        durable: bool | None = None,
        together: bool | None = None,
    ) -> T:
        """Run ``fn(tx)`` alone, write all that it has put and deleted, and return its result.

        No other write comes between its reads and its writes, of this process or, with SQLite and
        PostgreSQL, of another one. ``tx`` reads and writes (see `LevelTransaction`); its reads see
        its own writes. All writes are made in one batch, or none: if ``fn`` raises, nothing is
        written, and the exception passes unchanged.

        All other writers wait meanwhile, so ``fn`` should be short, and call no network. If it
        takes more than a second, a warning with its name is logged (logger ``treehub_level``).
        It may run again: PostgreSQL rolls a transaction back that it cannot serialise, SQLite one
        that found its disk full. So it should change nothing but ``tx``. It must not use this level
        itself: that raises `StateError`, from another thread it would wait for ever. In the asyncio
        API it runs in a thread beside the event loop, and must not be awaitable either.

        Args:
            fn: The function, not an async one.
            durable: True to wait for the fsync; ``None`` for the level's setting.
            together: As in `batch`. In CLIENT mode the writes stay together when they are
                synchronised, if they are 2 to 1000 keys and up to 4 MiB. True keeps more of them
                together; False lets each be synchronised on its own.

        Returns:
            The result of ``fn``.

        Raises:
            NotOpenError: The level is not open.
            TypeError: ``fn`` is no function, is an async one, or returns an awaitable. Nothing was
                written.
            StateError: The call comes from within a write of the same thread; the level is open for
                reading only; or ``fn`` uses the level itself.
            InvalidValueError: ``together`` is True in CLIENT mode, and one push cannot hold the
                changes. Nothing was written.
            StorageError: The backend could not read or write.
        """
        self._store.require_open()
        return self._decide(fn, fn, "transact()", durable, together)

    @overload
    def update(self, key: Key, fn: Callable[[Found], Written], *, durable: bool | None = None) -> Value: ...

    @overload
    def update(
        self, key: Key, fn: Callable[[Found], Written | MissingType], *, durable: bool | None = None
    ) -> Value | MissingType: ...

    def update(self, key: Key, fn: Callable[[Any], Any], *, durable: bool | None = None) -> Any:
        """Replace the value of a key by ``fn(value)``, and return the new value.

        No other write comes in between: see `transact`, whose rules hold for ``fn``. A counter:
        ``update("n", lambda n: (n or 0) + 1)``.

        Args:
            key: The key.
            fn: The function, not an async one. Its argument is the present value; ``None`` if the
                key is absent. If it returns `MISSING`, the key is deleted; one that is absent
                stays so, and nothing is written.
            durable: True to wait for the fsync; ``None`` for the level's setting.

        Returns:
            The new value, as `get` would return it; `MISSING` if the key was deleted.

        Raises:
            NotOpenError, TypeError, StateError, StorageError: As `transact`.
            InvalidKeyError, InvalidValueError: The key, or the new value, cannot be stored. Nothing
                was written.
            DecodeError: The present value cannot be decoded.
        """
        self._store.require_open()

        return self._decide(lambda tx: tx.update(key, fn), fn, "update()", durable, False)

    def _decide(
        self,
        run: Callable[[LevelTransaction[Any, Any, Any, Any]], T],
        fn: Callable[..., Any],
        verb: str,
        durable: bool | None,
        together: bool | None,
    ) -> T:
        """Run a function in a transaction.

        Args:
            run: The function.
            fn: The function of the caller, which ``run`` calls.
            verb: The verb, for messages.
            durable: See `transact`.
            together: See `transact`.
        """
        require_plain(fn, verb)
        check_together(together)

        def function(pending: FunctionReader) -> T:
            with warning_if_slow(fn, verb):
                return require_result(run(LevelTransaction(self._store, self._codec, pending)), verb)

        return transact(
            self._store,
            function,
            durable=check_durable(durable, self._durable),
            is_batch=partial(is_group, self._store.mode, together=together),
        )
