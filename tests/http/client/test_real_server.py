"""The client and a real server in another process, over sockets, without fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from async_adapter import AsyncAdapter
from server_process import ServerProcess
from waiting import PATIENCE, until

from treehub_level import Change, CIDMismatchError, ConditionError, ForbiddenError, Level, Put, TransportError, blocking
from treehub_level.http import RemoteServer, Tokens
from treehub_level.http import blocking as http_blocking


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server that requires tokens. `write` is a read-write token, `read` a read-only one."""
    folder = tmp_path_factory.mktemp("served")
    tokens = Tokens(str(folder / "tokens"))
    write, read = tokens.add(databases=["notes"], write=True), tokens.add(databases=["notes"])
    process: Any = ServerProcess(folder / "stores", "--tokens", str(folder / "tokens"))
    process.write, process.read = write, read
    yield process
    process.stop()


@pytest.fixture
async def remote(served: Any) -> AsyncIterator[RemoteServer]:
    async with RemoteServer(served.url, token=served.write) as remote:
        yield remote


@pytest.fixture
async def open_client() -> AsyncIterator[Callable[[str], Any]]:
    """A function that opens an asyncio client."""
    levels = []

    async def open_one(name: str) -> Level:
        level = Level(name, backend="memory", mode=Level.CLIENT)
        await level.open()
        levels.append(level)
        return level

    yield open_one
    for level in levels:
        await level.close()


async def test_two_clients_synchronise_through_the_server(remote: RemoteServer, open_client: Any) -> None:
    one, two = await open_client("one"), await open_client("two")
    await one.load((f"shared/{n:04}", {"🙂": n, "text": "x" * 500}) for n in range(2500))
    await one.sync(remote)
    report = await two.sync(remote)
    assert report.pulled >= 2500
    assert await two.query(prefix="shared/") == await one.query(prefix="shared/")


def test_the_blocking_remote_server_synchronises(served: Any) -> None:
    with (
        blocking.Level("client", backend="memory", mode=Level.CLIENT) as client,
        http_blocking.RemoteServer(served.url, token=served.write) as remote,
    ):
        client.put("blocking", 1)
        assert client.sync(remote).pushed == 1
        assert remote.info()["cid"] == client.cid


async def test_manual_sync(remote: RemoteServer) -> None:
    cid = (await remote.info())["cid"]
    assert await remote.change(cid, [Change("changed", "ä\n"), ["gone", 1], ["gone/2", None]]) == cid + 3
    page = await remote.changes(cid, limit=2)
    assert page == (cid + 2, [["changed", "ä\n"], ["gone", 1]], True)
    assert await remote.changes(cid, limit=0) == (cid, [], True)
    assert len((await remote.changes(0, limit=None)).changes) == cid + 3
    with pytest.raises(CIDMismatchError) as raised:
        await remote.change(cid, [["late", 1]])
    assert (raised.value.expected, raised.value.got) == (cid + 3, cid)


async def test_entries_are_written_and_read_without_a_store(served: Any, remote: RemoteServer) -> None:
    keys = ["entries/a/../b", "entries/?x=%2F#ä", "entries/🙂 +"]
    for number, key in enumerate(keys):
        await remote.put(key, {"n": number, "text": "ü\n"})
    assert [await remote.get(key) for key in keys] == [{"n": n, "text": "ü\n"} for n in range(3)]
    assert [key for key, _ in await remote.query(prefix="entries/", limit=2)] == sorted(keys)[:2]
    await remote.delete(keys[0])
    assert await remote.get(keys[0], "gone") == "gone"
    with http_blocking.RemoteServer(served.url, token=served.read) as reader:
        assert [key for key, _ in reader.scan(prefix="entries/")] == sorted(keys[1:])
        with pytest.raises(ForbiddenError):
            reader.put("entries/b", 1)


def test_the_blocking_remote_server_writes_under_conditions(served: Any) -> None:
    with http_blocking.RemoteServer(served.url, token=served.write) as remote:
        remote.batch([Put("cond/a", 1), Put("cond/b", "x" * 100_000)])
        etag = remote.get_with_etag("cond/b").etag
        remote.put("cond/b", 2, if_match=etag)
        with pytest.raises(ConditionError) as raised:
            remote.delete("cond/b", if_match=etag)
        assert (raised.value.key, raised.value.found) == ("cond/b", 2)
        assert remote.query(prefix="cond/", reverse=True) == [("cond/b", 2), ("cond/a", 1)]


async def test_changes_long_polls(remote: RemoteServer) -> None:
    cid = (await remote.info())["cid"]
    assert await remote.changes(cid, wait=0.05) == (cid, [], False)
    waiting = asyncio.ensure_future(remote.changes(cid, wait=60))
    await asyncio.sleep(0.05)
    await remote.change(cid, [["waited for", 1]])
    assert (await asyncio.wait_for(waiting, PATIENCE)).changes == [["waited for", 1]]


async def test_a_watch_yields_past_and_new_changes(remote: RemoteServer) -> None:
    cid = (await remote.info())["cid"]
    await remote.change(cid, [["watched", "a\nb"]])
    watching = remote.watch(since=cid)
    first = await asyncio.wait_for(anext(watching), PATIENCE)
    await remote.change(cid + 1, [["watched"]])
    second = await asyncio.wait_for(anext(watching), PATIENCE)
    await watching.aclose()
    assert [(change.cid, change) for change in (first, second)] == [
        (cid + 1, ["watched", "a\nb"]),
        (cid + 2, Change.deletion("watched")),
    ]


def test_a_blocking_watch_yields_past_changes(served: Any) -> None:
    with http_blocking.RemoteServer(served.url, token=served.write) as remote:
        cid = remote.info()["cid"]
        remote.change(cid, [["watched", 1]])
        watching = remote.watch(since=cid)
        assert next(watching) == ["watched", 1]
        watching.close()


async def test_missing_tokens_and_databases_are_reported(served: Any, open_client: Any) -> None:
    client = await open_client("client")
    for token, status in ((None, 401), ("no.token", 401)):
        async with RemoteServer(served.url, token=token) as unauthorized:
            with pytest.raises(TransportError) as raised:
                await client.sync(unauthorized)
            assert raised.value.status == status
    async with RemoteServer(served.url.replace("notes", "other"), token=served.write) as other:
        with pytest.raises(TransportError, match="no such database"):
            await client.sync(other)


async def test_a_read_only_token_pulls_and_pushes_nothing(served: Any, remote: RemoteServer, open_client: Any) -> None:
    client, writer = await open_client("client"), await open_client("writer")
    async with RemoteServer(served.url, token=served.read) as reader:
        await client.put("forbidden/mine", 1)
        await writer.put("forbidden/theirs", 1)
        await writer.sync(remote)
        with pytest.raises(ForbiddenError, match=r"may read and not write.*'forbidden/mine'"):
            await client.sync(reader)
    assert await client.get("forbidden/theirs") == 1
    await client.sync(remote)
    await writer.sync(remote)
    assert await writer.get("forbidden/mine") == 1


@pytest.mark.parametrize("api", ["async", "blocking"])
async def test_live_sessions_see_each_others_writes(served: Any, api: str) -> None:
    def client(name: str) -> Any:
        level: Any = (Level if api == "async" else blocking.Level)(name, backend="memory", mode=Level.CLIENT)
        return level if api == "async" else AsyncAdapter(level)

    remote_class: Any = RemoteServer if api == "async" else http_blocking.RemoteServer
    remotes = [remote_class(served.url, token=lambda: served.write) for _ in range(2)]
    async with client("one") as one, client("two") as two, one.live(remotes[0]), two.live(remotes[1]):
        for n in range(6):
            writer, reader = (one, two) if n % 2 else (two, one)
            await writer.put(f"ping {api}", n)

            async def arrived(reader: Any = reader, n: int = n) -> bool:
                return bool(await reader.get(f"ping {api}") == n)

            await until(arrived)
    for remote in remotes:
        if api == "async":
            await remote.close()
        else:
            remote.close()


class RequestSizeProxy:
    """A proxy that closes the connection in a large request, instead of answering with 413."""

    def __init__(self, port: int, max_bytes: int) -> None:
        self._port = port
        self._max_bytes = max_bytes
        self.closed = 0

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection."""
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._port)
        request_bytes = 0

        async def relay_responses() -> None:
            nonlocal request_bytes
            while data := await server_reader.read(1 << 16):
                request_bytes = 0
                writer.write(data)

        responses = asyncio.ensure_future(relay_responses())
        while data := await reader.read(1 << 16):
            request_bytes += len(data)
            if request_bytes > self._max_bytes:
                self.closed += 1
                break
            server_writer.write(data)
        responses.cancel()
        server_writer.close()
        writer.transport.abort()


async def test_a_push_on_which_a_proxy_closes_the_connection_is_halved(served: Any, open_client: Any) -> None:
    client = await open_client("client")
    await client.load((f"large/{n:03}", "x" * 5000) for n in range(100))
    proxy = RequestSizeProxy(served.port, 200_000)
    async with await asyncio.start_server(proxy.relay, "127.0.0.1", 0) as relay:
        port = relay.sockets[0].getsockname()[1]
        url = served.url.replace(f":{served.port}/", f":{port}/")
        async with RemoteServer(url, token=served.write, retries=1) as remote:
            report = await client.sync(remote)
    assert (report.pushed, await client.pending()) == (100, 0)
    assert proxy.closed >= 2


# ---------------------------------------------------------------------------- the largest messages


async def test_a_push_of_keys_that_json_makes_six_times_as_long_fits_a_request_body(
    remote: RemoteServer, open_client: Any
) -> None:
    client = await open_client("client")
    await client.sync(remote)
    await client.load(("\x7fescapes/" + f"{n:04}" + "\x01" * 1000, n) for n in range(3000))  # 18 MB of JSON
    report = await client.sync(remote)
    assert (report.pushed, report.rounds, await client.pending()) == (3000, 3, 0)


async def test_a_push_of_16384_changes_that_a_proxy_refuses_is_withdrawn_and_halved(
    served: Any, open_client: Any
) -> None:
    client = await open_client("client")
    await client.load((f"many/{n:05}", "x" * 30) for n in range(16_384))
    proxy = RequestSizeProxy(served.port, 500_000)  # the push has 800 KB, its withdrawal 230 KB
    async with await asyncio.start_server(proxy.relay, "127.0.0.1", 0) as relay:
        url = served.url.replace(f":{served.port}/", f":{relay.sockets[0].getsockname()[1]}/")
        async with RemoteServer(url, token=served.write, retries=0) as remote:
            report = await client.sync(remote)
    assert (report.pushed, report.rejected, await client.pending(), proxy.closed) == (16_384, [], 0, 1)


async def test_a_push_of_16384_changes_that_all_lose_is_journaled_in_one_step(
    remote: RemoteServer, open_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treehub_level.replication.client.PAGE_CHANGES", 16_384)
    winner, loser = await open_client("winner"), await open_client("loser")
    for client in (winner, loser):
        await client.sync(remote)
        await client.load((f"lost/{n:05}", client.name) for n in range(16_384))
    await winner.sync(remote)
    report = await loser.sync(remote)
    assert (len(report.rejected), len(report.conflicts), report.pushed) == (16_384, 16_384, 0)
    assert len(await loser.conflicts()) == 16_384
    assert await loser.get("lost/16383") == "winner"
