"""assert_converged: it passes for equal replicas, and names the differences of others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from treehub_level import Level, blocking
from treehub_level.testing import FlakyServer, assert_converged


@pytest.fixture
def server() -> Iterator[blocking.Level]:
    with blocking.Level("server", backend="memory", mode=Level.SERVER) as level:
        level.put("a", 1)
        yield level


@pytest.fixture
def client(server: blocking.Level) -> Iterator[blocking.Level]:
    with blocking.Level("client", backend="memory", mode=Level.CLIENT) as level:
        level.sync(server)
        yield level


def failure_of(server: blocking.Level, *clients: blocking.Level) -> str:
    with pytest.raises(AssertionError) as raised:
        assert_converged(server, *clients)
    return str(raised.value)


def test_equal_replicas_pass(server: blocking.Level, client: blocking.Level) -> None:
    assert_converged(server, client)
    assert_converged(server)


async def test_asyncio_levels_are_read_without_await() -> None:
    async with (
        Level("server", backend="memory", mode=Level.SERVER) as server,
        Level("client", backend="memory", mode=Level.CLIENT) as client,
    ):
        await server.put("a", 1)
        with pytest.raises(AssertionError, match="'a' is missing in 'client', and 1 in 'server'"):
            assert_converged(server, client)
        await client.sync(server)
        assert_converged(server, client)


def test_both_values_of_a_differing_key_are_named(server: blocking.Level, client: blocking.Level) -> None:
    client.put("a", 2)
    assert failure_of(server, client) == (
        "'client' has not converged with 'server', 1 key differs:\n"
        "  'a' is 2 in 'client', and 1 in 'server'\n"
        "'client' has 1 change that no server has acknowledged"
    )


def test_a_key_of_one_side_only_is_missing_on_the_other(server: blocking.Level, client: blocking.Level) -> None:
    server.delete("a")
    server.put("b", 1)
    assert failure_of(server, client) == (
        "'client' has not converged with 'server', 2 keys differ:\n"
        "  'a' is 1 in 'client', and missing in 'server'\n"
        "  'b' is missing in 'client', and 1 in 'server'\n"
        "'client' is at CID 1, and 'server' at CID 3"
    )


@pytest.mark.parametrize(("ours", "theirs"), [(1, True), (1, 1.0), ([0], [False]), ({"x": None}, {})])
def test_values_that_are_equal_only_in_python_differ(
    server: blocking.Level, client: blocking.Level, ours: Any, theirs: Any
) -> None:
    server.put("a", theirs)
    client.apply(server.cid, [["a", ours]])
    assert "'a' is" in failure_of(server, client)


def test_the_order_of_an_objects_keys_is_no_difference(server: blocking.Level, client: blocking.Level) -> None:
    server.put("a", {"x": 1, "y": 2})
    client.apply(server.cid, [["a", {"y": 2, "x": 1}]])
    assert_converged(server, client)


def test_the_first_keys_of_many_are_named(server: blocking.Level, client: blocking.Level) -> None:
    server.load((f"{n:03}", n) for n in range(100))
    message = failure_of(server, client)
    assert "100 keys differ" in message
    assert "'004' is missing" in message
    assert "'005'" not in message
    assert "and 95 more" in message


def test_every_client_that_differs_is_named(server: blocking.Level, client: blocking.Level) -> None:
    with blocking.Level("other", backend="memory", mode=Level.CLIENT) as other:
        assert "'other' has not converged" in failure_of(server, client, other)
        assert "'client'" not in failure_of(server, client, other)


def test_equal_data_at_another_cid_has_not_converged(server: blocking.Level, client: blocking.Level) -> None:
    server.put("a", 1)
    assert failure_of(server, client) == "'client' is at CID 1, and 'server' at CID 2"


def test_equal_data_that_is_dirty_has_not_converged(server: blocking.Level, client: blocking.Level) -> None:
    client.put("a", 1)
    assert failure_of(server, client) == "'client' has 1 change that no server has acknowledged"


def test_a_client_can_stand_in_for_the_server(server: blocking.Level, client: blocking.Level) -> None:
    with blocking.Level("fresh", backend="memory", mode=Level.CLIENT) as fresh:
        fresh.sync(server)
        assert_converged(fresh, client)


def test_an_object_that_is_no_level_is_refused(server: blocking.Level, client: blocking.Level) -> None:
    with pytest.raises(TypeError, match="for a server in another process, pass a client"):
        assert_converged(FlakyServer(server), client)  # type: ignore[arg-type]


@pytest.mark.once
def test_the_tools_for_applications_need_no_pytest() -> None:
    program = (
        "import sys; sys.modules['pytest'] = None\n"
        "from treehub_level.testing import CrashingDisk, FlakyServer, assert_converged\n"
        "import treehub_level.testing as testing\n"
        "try:\n    testing.BackendConformance\nexcept ImportError:\n    print('refused')\n"
        "try:\n    testing.Nothing\nexcept AttributeError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "refused\nmodule 'treehub_level.testing' has no attribute 'Nothing'\n"
