"""The verbs of the asyncio façade that decide on present values."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import TypeVar

from ..blocking.transact import DecisionVerbs, LevelTransaction
from ..types import JSON
from .reads_writes import documented_by
from .worker import Worker

T = TypeVar("T")


@documented_by(DecisionVerbs)
class AsyncDecisionVerbs:
    """The verbs that decide: see `blocking.transact.DecisionVerbs`.

    Their functions run in the writing thread, with the context variables of the task.
    """

    _blocking: DecisionVerbs
    _worker: Worker

    async def transact(
        self, fn: Callable[[LevelTransaction], T], *, durable: bool | None = None, together: bool | None = None
    ) -> T:
        call = partial(self._blocking.transact, fn, durable=durable, together=together)
        return await self._worker.write(copy_context().run, call)

    async def update(self, key: str, fn: Callable[[JSON], JSON], *, durable: bool | None = None) -> JSON:
        call = partial(self._blocking.update, key, fn, durable=durable)
        return await self._worker.write(copy_context().run, call)
