"""`FlakyServer`: a server behind an unreliable network, simulated from a seed."""

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

#: A step of a transmission: a delay in seconds, or a call of the server.
_Step = float | Callable[[], Any]


class FlakyServer:
    """A proxy of a server that loses, delays and repeats messages: ``client.sync(FlakyServer(s))``.

    The proxy has the methods by which clients synchronise. They are coroutine functions if those of
    the server are. A lost message raises `TransportError`, as it does over a network: call
    ``sync()`` again, or let ``live()`` retry. To test an application, run it with a `FlakyServer`,
    call `heal`, synchronise all clients, and call `assert_converged`.

    The same seed and the same order of calls give the same faults. Give each client a proxy of its
    own, so that the order of calls does not depend on the other clients.

    Args:
        server: A `Level` in SERVER mode, a ``RemoteServer``, or any object with an ``exchange()``
            method.
        seed: Determines the faults.
        drop: The probability that a request is lost, from 0 to 1.
        drop_reply: The probability that a reply is lost: the server has processed the request, but
            the client does not know.
        duplicate: The probability that a request arrives twice.
        late: The probability that a request arrives late: the call raises `TransportError`, and the
            request reaches the server before a later one.
        delay: The maximum delay of each request and of each reply, in seconds.

    Attributes:
        server: The server.
        counts: The number of events so far, by name: ``"delivered"``, ``"dropped"``,
            ``"reply dropped"``, ``"duplicated"``, ``"late"``.

    Raises:
        TypeError: ``server`` has no ``exchange()`` method.
        ValueError: A probability is not from 0 to 1, or the delay is negative.
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
        for name, probability in (("drop", drop), ("drop_reply", drop_reply), ("duplicate", duplicate), ("late", late)):
            if not 0 <= probability <= 1:
                raise ValueError(f"{name} must be a probability from 0 to 1, not {probability!r:.80}")
        if not delay >= 0:
            raise ValueError(f"delay must be a number of seconds, 0 or more, not {delay!r:.80}")
        exchange_verb(server)
        self.server = server
        self.counts: Counter[str] = Counter()
        self._seed = seed
        self._rng = random.Random(seed)
        self._probabilities = {"drop": drop, "late": late, "duplicate": duplicate, "drop_reply": drop_reply}
        self._delay = delay
        self._late_requests: list[Callable[[], Any]] = []

    @property
    def exchange(self) -> Callable[..., Any]:
        """The method ``exchange`` of the server, over the simulated network."""
        return self._over_network(self.server.exchange)

    @property
    def changes(self) -> Callable[..., Any]:
        """The method ``changes`` of the server, over the simulated network."""
        return self._over_network(self.server.changes)

    @property
    def change(self) -> Callable[..., Any]:
        """The method ``change`` of the server, over the simulated network.

        Unlike ``exchange``, a ``change`` whose reply was lost cannot be repeated safely: the server
        may have applied the changes.
        """
        return self._over_network(self.server.change)

    def heal(self) -> None:
        """End all faults. Requests that are late arrive before the next one."""
        self._probabilities = dict.fromkeys(self._probabilities, 0.0)
        self._delay = 0.0

    def __repr__(self) -> str:
        return f"<treehub_level.testing.FlakyServer of {self.server!r}, seed {self._seed!r}>"

    def _over_network(self, verb: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function like ``verb`` that simulates the transmission of each call."""

        # updated=() does not copy the attributes of the verb: one of them names the method that
        # `sync` would call instead of this function, without any faults.
        @wraps(verb, updated=())
        def call(*args: Any, **options: Any) -> Any:
            transmission = self._transmit(lambda: verb(*args, **options))
            step = advance(transmission)
            while not isinstance(step, Finished):
                step = advance(transmission, _perform(step))
            return step.result

        @wraps(verb, updated=())
        async def call_async(*args: Any, **options: Any) -> Any:
            transmission = self._transmit(lambda: verb(*args, **options))
            step = advance(transmission)
            while not isinstance(step, Finished):
                step = advance(transmission, await _perform_async(step))
            return step.result

        return call_async if inspect.iscoroutinefunction(verb) else call

    def _transmit(self, deliver: Callable[[], Any]) -> Generator[_Step, Any, Any]:
        """Yield the steps of one request and its reply, with faults; return the reply.

        Args:
            deliver: Calls the server with the request, and returns the reply.

        Raises:
            TransportError: The request or the reply is lost.
        """
        faults = {name: self._rng.random() < probability for name, probability in self._probabilities.items()}
        request_delay, reply_delay = self._rng.uniform(0, self._delay), self._rng.uniform(0, self._delay)
        late_requests, self._late_requests = self._late_requests, []
        for deliver_late in late_requests:
            yield from self._deliver_without_reply(deliver_late)
        yield request_delay
        if faults["drop"]:
            raise self._transport_error("dropped", "the request was lost")
        if faults["late"]:
            self._late_requests.append(deliver)
            raise self._transport_error("late", "the request is late")
        try:
            reply = yield deliver
        finally:
            self.counts["delivered"] += 1
        if faults["duplicate"]:
            self.counts["duplicated"] += 1
            yield from self._deliver_without_reply(deliver)
        yield reply_delay
        if faults["drop_reply"]:
            raise self._transport_error("reply dropped", "the reply was lost")
        return reply

    def _deliver_without_reply(self, deliver: Callable[[], Any]) -> Generator[_Step, Any, None]:
        """Deliver a request to the server, and ignore its reply or error."""
        with suppress(Exception):
            yield deliver

    def _transport_error(self, event: str, message: str) -> TransportError:
        self.counts[event] += 1
        return TransportError(f"{message} ({self!r})")


def _perform(step: _Step) -> object:
    """Perform a step, and return its result. An error of the server is returned, not raised."""
    try:
        if not isinstance(step, float):
            return step()
        time.sleep(step)
    except Exception as error:
        return error
    return None


async def _perform_async(step: _Step) -> object:
    """Perform a step on an event loop; see `_perform`."""
    try:
        return await (asyncio.sleep(step) if isinstance(step, float) else step())
    except Exception as error:
        return error
