"""The verbs of the asyncio façade that decide on present values."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, Generic, TypeVar, overload

from ..blocking.transact import DecisionVerbs, LevelTransaction
from ..types import Found, Key, MissingType, Value, Written
from .reads_writes import documented_by
from .worker import Worker

T = TypeVar("T")


@documented_by(DecisionVerbs)
class AsyncDecisionVerbs(Generic[Key, Value, Found, Written]):
    """The verbs that decide: see `blocking.transact.DecisionVerbs`.

    Their functions run in the writing thread, with the context variables of the task.
    """

    _blocking: DecisionVerbs[Key, Value, Found, Written]
    _worker: Worker

    async def transact(
        self,
        fn: Callable[[LevelTransaction[Key, Value, Found, Written]], T],
        *,
        durable: bool | None = None,
        together: bool | None = None,
    ) -> T:
        call = partial(self._blocking.transact, fn, durable=durable, together=together)
        return await self._worker.write(copy_context().run, call)

    @overload
    async def update(self, key: Key, fn: Callable[[Found], Written], *, durable: bool | None = None) -> Value: ...

    @overload
    async def update(
        self, key: Key, fn: Callable[[Found], Written | MissingType], *, durable: bool | None = None
    ) -> Value | MissingType: ...

    async def update(self, key: Key, fn: Callable[[Any], Any], *, durable: bool | None = None) -> Any:
        call = partial(self._blocking.update, key, fn, durable=durable)
        return await self._worker.write(copy_context().run, call)
