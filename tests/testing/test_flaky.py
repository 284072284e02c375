"""FlakyServer: each fault, the same faults for the same seed, and replicas that converge."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from treehub_level import Level, TransportError, blocking
from treehub_level.testing import FlakyServer, assert_converged

NO_FAULTS: dict[str, Any] = {"drop": 0.0, "drop_reply": 0.0, "duplicate": 0.0, "late": 0.0}
CERTAIN = 1.0


@pytest.fixture
def server() -> Iterator[blocking.Level]:
    with blocking.Level("server", backend="memory", mode=Level.SERVER) as level:
        yield level


@pytest.fixture
def client() -> Iterator[blocking.Level]:
    with blocking.Level("client", backend="memory", mode=Level.CLIENT) as level:
        yield level


def try_to_sync(client: blocking.Level, server: FlakyServer) -> bool:
    try:
        client.sync(server)
    except TransportError:
        return False
    return True


@pytest.mark.parametrize("seed", range(20))
def test_blocking_replicas_converge_in_spite_of_faults(
    server: blocking.Level, client: blocking.Level, seed: int
) -> None:
    flaky, rng = FlakyServer(server, seed=seed), random.Random(seed)
    for number in range(20):
        rng.choice([server, client]).put(f"k{rng.randrange(5)}", number)
        try_to_sync(client, flaky)
    flaky.heal()
    client.sync(flaky)
    assert_converged(server, client)
    assert sum(flaky.counts.values()) > flaky.counts["delivered"]


@pytest.mark.parametrize("seed", range(5))
async def test_asyncio_replicas_converge_in_spite_of_faults(seed: int) -> None:
    async with (
        Level("server", backend="memory", mode=Level.SERVER) as server,
        Level("client", backend="memory", mode=Level.CLIENT) as client,
    ):
        flaky = FlakyServer(server, seed=seed, delay=0.001)
        for number in range(20):
            await client.put(f"k{number % 5}", number)
            with suppress(TransportError):
                await client.sync(flaky)
        flaky.heal()
        async with client.live(flaky) as session:
            await session.in_sync(within=60)
        assert_converged(server, client)


def test_the_same_seed_gives_the_same_faults() -> None:
    def outcomes_of(seed: int) -> Any:
        with (
            blocking.Level("server", backend="memory", mode=Level.SERVER) as server,
            blocking.Level("client", backend="memory", mode=Level.CLIENT) as client,
        ):
            flaky, outcomes = FlakyServer(server, seed=seed), []
            for number in range(30):
                client.put("k", number)
                outcomes.append(try_to_sync(client, flaky))
            return outcomes, flaky.counts, server.cid

    assert outcomes_of(1) == outcomes_of(1)
    assert outcomes_of(1) != outcomes_of(2)


def test_a_dropped_request_never_arrives(server: blocking.Level, client: blocking.Level) -> None:
    client.sync(server)  # so that the next request is a push, and no fill
    flaky = FlakyServer(server, **NO_FAULTS | {"drop": CERTAIN})
    client.put("k", 1)
    with pytest.raises(TransportError, match="the request was lost"):
        client.sync(flaky)
    flaky.heal()
    client.sync(flaky)
    assert (flaky.counts["dropped"], flaky.counts["delivered"], server.cid) == (1, 1, 1)


def test_the_request_of_a_dropped_reply_has_arrived(server: blocking.Level, client: blocking.Level) -> None:
    client.sync(server)  # so that the next request is a push, and no fill
    flaky = FlakyServer(server, **NO_FAULTS | {"drop_reply": CERTAIN})
    client.put("k", 1)
    with pytest.raises(TransportError, match="the reply was lost"):
        client.sync(flaky)
    assert (server.get("k"), client.pending()) == (1, 1)


def test_a_late_request_arrives_before_a_later_one(server: blocking.Level, client: blocking.Level) -> None:
    flaky = FlakyServer(server, **NO_FAULTS | {"late": CERTAIN})
    client.put("k", 1)
    with pytest.raises(TransportError, match="the request is late"):
        client.sync(flaky)
    assert server.cid == 0
    flaky.heal()
    assert client.sync(flaky).conflicts == []
    assert_converged(server, client)
    assert (server.cid, flaky.counts["late"]) == (1, 1)


def test_a_duplicated_request_arrives_twice(server: blocking.Level) -> None:
    flaky = FlakyServer(server, **NO_FAULTS | {"duplicate": CERTAIN})
    assert flaky.change(0, [["k", 1]]) == 1
    assert (server.cid, flaky.counts["duplicated"]) == (1, 1)  # the error of the second request is dropped


def test_manual_sync_goes_through_it_too(server: blocking.Level, client: blocking.Level) -> None:
    flaky = FlakyServer(server, **NO_FAULTS)
    server.put("k", 1)
    client.apply(flaky.changes(0))
    assert client.query() == [("k", 1)]
    assert flaky.counts == {"delivered": 1}


def test_an_error_of_the_server_is_raised(server: blocking.Level) -> None:
    with pytest.raises(TypeError):
        FlakyServer(server, **NO_FAULTS).changes("1")


def test_live_sessions_long_poll_through_it(server: blocking.Level, client: blocking.Level) -> None:
    with client.live(FlakyServer(server, **NO_FAULTS)) as session:
        session.in_sync(within=60)
        server.put("k", 1)
        session.in_sync(within=60)
        assert client.get("k") == 1


@pytest.mark.parametrize("options", [{"drop": 1.1}, {"late": -0.1}, {"delay": -1}, {"delay": float("nan")}])
def test_an_invalid_probability_or_delay_is_refused(server: blocking.Level, options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        FlakyServer(server, **options)


def test_an_object_without_exchange_is_refused() -> None:
    with pytest.raises(TypeError, match="exchange"):
        FlakyServer("server")
