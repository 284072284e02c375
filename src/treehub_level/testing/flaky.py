"""A server behind a bad network: whatever can happen to a message happens, as a seed decides."""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import wraps
from typing import Any

from ..errors import TransportError
from ..replication.driver import Finished, advance, exchange_verb

#: What a message needs done: to wait for so many seconds, or to be brought to the server.
_Effect = float | Callable[[], Any]


class FlakyServer:
    """Stands between a client and its server, and loses, delays and repeats messages: ``client.sync(FlakyServer(s))``.

    It forwards the verbs by which clients synchronise, of a server of either API: those of an
    asyncio one are awaited.
    A message that does not come through raises `TransportError`, as over a network: ``sync()`` may
    be called again, and ``live()`` does so by itself. Run your application with it, call `heal`,
    synchronise, and see that nothing is missing (`assert_converged`).

    With one seed and one order of calls the same happens every time. Give each client a server of
    its own.

    Args:
        server: A `Level` in SERVER mode, a ``RemoteServer``, or whatever else forwards
            ``exchange``.
        seed: Decides what happens.
        drop: How likely a request is to be lost, from 0 to 1.
        drop_reply: How likely a reply is to be lost: the server has done what it was asked, and the
            client cannot know.
        duplicate: How likely a request is to arrive twice.
        late: How likely a request is to arrive only after its sender has given up, before some
            later one.
        delay: The most seconds that a request takes, and a reply.

    Attributes:
        server: The server.
        counts: What has happened so far: ``"delivered"``, ``"dropped"``, ``"reply dropped"``,
            ``"duplicated"``, ``"late"``.

    Raises:
        TypeError: A server without ``exchange``.
        ValueError: A likelihood that is not from 0 to 1, or a delay below 0.
    """

    def __init__(
        self,
        server: Any,
        *,
        seed: int | str = 0,
        drop: float = 0.1,
        drop_reply: float = 0.1,
        duplicate: float = 0.1,
        late: float = 0.1,
        delay: float = 0.0,
    ) -> None:
        for name, likelihood in (("drop", drop), ("drop_reply", drop_reply), ("duplicate", duplicate), ("late", late)):
            if not 0 <= likelihood <= 1:
                raise ValueError(f"{name} is a likelihood from 0 to 1, not {likelihood!r:.80}")
        if not delay >= 0:
            raise ValueError(f"delay is a number of seconds from 0 on, not {delay!r:.80}")
        exchange_verb(server)
        self.server = server
        self.counts: Counter[str] = Counter()
        self._seed = seed
        self._rng = random.Random(seed)
        self._likelihoods = {"drop": drop, "late": late, "duplicate": duplicate, "drop_reply": drop_reply}
        self._delay = delay
        self._held_back: list[Callable[[], Any]] = []

    @property
    def exchange(self) -> Callable[..., Any]:
        """The server's ``exchange``, through the network."""
        return self._through(self.server.exchange)

    @property
    def changes(self) -> Callable[..., Any]:
        """The server's ``changes``, through the network."""
        return self._through(self.server.changes)

    @property
    def change(self) -> Callable[..., Any]:
        """The server's ``change``, through the network, which makes it unsafe: it lacks what `exchange` guarantees."""
        return self._through(self.server.change)

    def heal(self) -> None:
        """Let every message come through from now on. Those that are late arrive before the next one."""
        self._likelihoods = dict.fromkeys(self._likelihoods, 0.0)
        self._delay = 0.0

    def __repr__(self) -> str:
        return f"<treehub_level.testing.FlakyServer of {self.server!r}, seed {self._seed!r}>"

    # ----------------------------------------------------------------------------------------------- inside

    def _through(self, verb: Callable[..., Any]) -> Callable[..., Any]:
        """The verb, with its name, signature and manners: awaited if it is."""

        # Not with its attributes: by one of them `sync` would find a way around this object.
        @wraps(verb, updated=())
        def call(*args: Any, **options: Any) -> Any:
            session = self._carry(lambda: verb(*args, **options))
            effect = advance(session)
            while not isinstance(effect, Finished):
                effect = advance(session, _outcome(effect))
            return effect.result

        @wraps(verb, updated=())
        async def call_async(*args: Any, **options: Any) -> Any:
            session = self._carry(lambda: verb(*args, **options))
            effect = advance(session)
            while not isinstance(effect, Finished):
                effect = advance(session, await _awaited_outcome(effect))
            return effect.result

        return call_async if inspect.iscoroutinefunction(verb) else call

    def _carry(self, deliver: Callable[[], Any]) -> Generator[_Effect, Any, Any]:
        """One message, its reply, and what happens to them."""
        fates = {name: self._rng.random() < likelihood for name, likelihood in self._likelihoods.items()}
        there, back = self._rng.uniform(0, self._delay), self._rng.uniform(0, self._delay)
        late, self._held_back = self._held_back, []
        for message in late:
            yield from self._arrive_unawaited(message)
        yield there
        if fates["drop"]:
            raise self._lost("dropped", "the request was lost on its way")
        if fates["late"]:
            self._held_back.append(deliver)
            raise self._lost("late", "the request is still on its way")
        try:
            reply = yield deliver
        finally:
            self.counts["delivered"] += 1
        if fates["duplicate"]:
            self.counts["duplicated"] += 1
            yield from self._arrive_unawaited(deliver)
        yield back
        if fates["drop_reply"]:
            raise self._lost("reply dropped", "the reply was lost on its way")
        return reply

    def _arrive_unawaited(self, deliver: Callable[[], Any]) -> Generator[_Effect, Any, None]:
        """Bring a message to the server; whatever it says to it, nobody hears."""
        with suppress(Exception):
            yield deliver

    def _lost(self, what: str, message: str) -> TransportError:
        self.counts[what] += 1
        return TransportError(f"{message} ({self!r})")


def _outcome(effect: _Effect) -> object:
    """Do it; what the server raises is returned."""
    try:
        if not isinstance(effect, float):
            return effect()
        time.sleep(effect)
    except Exception as error:
        return error
    return None


async def _awaited_outcome(effect: _Effect) -> object:
    """The same on an event loop."""
    try:
        return await (asyncio.sleep(effect) if isinstance(effect, float) else effect())
    except Exception as error:
        return error
