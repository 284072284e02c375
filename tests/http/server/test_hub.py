"""The databases of a hub: lookup, opening, closing, eviction."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import Served, StreamingRequest, asyncio_timeout
from starlette.applications import Starlette
from starlette.routing import Mount
from waiting import until

from treehub_level import (
    BackendNotFoundError,
    Level,
    LockedError,
    ModeMismatchError,
    StateError,
    StorageError,
    blocking,
    extras,
)
from treehub_level.http import Hub, create_app
from treehub_level.http.server.refusals import RefusedError

pytestmark = pytest.mark.once


def make(path: Path, mode: Any = Level.SERVER, **values: Any) -> None:
    """Create a store on disk with these entries."""
    with blocking.Level(path, mode=mode) as level:
        for key, value in values.items():
            level.put(key, value)


def tree(folder: Path) -> set[str]:
    """Return the paths in a folder, without the files of LevelDB."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_dir() or not (path.parent / "CURRENT").exists()
    }


async def refusal(hub: Hub, name: str) -> tuple[int, str]:
    with pytest.raises(RefusedError) as caught:
        async with hub.use(name):
            pass
    return caught.value.status, caught.value.code


ABSENT = (404, "LEVEL_DATABASE_NOT_FOUND")


async def test_the_server_stores_in_a_directory_are_served_under_its_names(tmp_path: Path) -> None:
    make(tmp_path / "notes", a=1)
    make(tmp_path / "to-dos_2", b=2)
    async with Hub(tmp_path) as hub:
        assert hub.names() == ["notes", "to-dos_2"]
        async with hub.use("notes") as notes, hub.use("to-dos_2") as todos:
            assert (await notes.get("a"), await todos.get("b")) == (1, 2)


async def test_a_store_that_appears_later_is_served(tmp_path: Path) -> None:
    async with Hub(tmp_path) as hub:
        assert await refusal(hub, "late") == ABSENT
        make(tmp_path / "late", a=1)
        async with hub.use("late") as level:
            assert await level.get("a") == 1


async def test_a_directory_that_is_a_store_is_served_under_its_own_name(tmp_path: Path) -> None:
    make(tmp_path / "notes", a=1)
    async with Hub(tmp_path / "notes") as hub:
        assert hub.names() == ["notes"]
        async with hub.use("notes") as level:
            assert await level.get("a") == 1


async def test_a_root_that_is_a_store_with_an_invalid_name_is_an_error(tmp_path: Path) -> None:
    make(tmp_path / "My Notes")
    with pytest.raises(ValueError, match="'My Notes', which is not a valid database name"):
        async with Hub(tmp_path / "My Notes"):
            pass


@pytest.mark.parametrize("mode", [Level.NORMAL, Level.CLIENT])
async def test_stores_of_other_modes_are_absent_and_unchanged(tmp_path: Path, mode: Any) -> None:
    make(tmp_path / "plain", mode, a=1)
    make(tmp_path / "empty", mode)
    async with Hub(tmp_path) as hub:
        assert await refusal(hub, "plain") == ABSENT
        assert await refusal(hub, "empty") == ABSENT
    assert blocking.stored_mode(tmp_path / "empty") is mode


async def test_other_directories_and_files_are_absent_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(b"...")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"...")
    before = tree(tmp_path)
    async with Hub(tmp_path) as hub:
        for name in ("photos", "empty", "file", "absent"):
            assert await refusal(hub, name) == ABSENT
        assert hub.names() == []
    assert tree(tmp_path) == before


TRAVERSALS = [
    "..",
    ".",
    "../secret",
    "..%2fsecret",
    "%2e%2e%2fsecret",
    "root/../../secret",
    "notes/../../secret",
    "\0",
    "NOTES",
]


@pytest.mark.parametrize("name", TRAVERSALS)
async def test_a_name_never_becomes_a_path(tmp_path: Path, name: str) -> None:
    make(tmp_path / "secret", a=1)
    make(tmp_path / "root" / "notes", a=1)
    before = tree(tmp_path)
    hub = Hub(tmp_path / "root")
    app = create_app(hub)
    async with hub:
        assert await refusal(hub, name) == ABSENT
        for path in (f"/v1/{name}", f"/v1/{name}/entries/a"):
            async with StreamingRequest(app, "GET", path).open() as stream:
                await stream.until(lambda: stream.sent)
                assert stream.status == 404
    assert tree(tmp_path) == before


async def test_a_name_joined_to_the_path_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "secret", a=1)
    (tmp_path / "root").mkdir()
    monkeypatch.setattr(Hub, "_find", lambda hub, name: {"name": os.path.join(hub._catalog._location, name)})
    async with Hub(tmp_path / "root") as hub, hub.use("../secret") as level:
        assert await level.get("a") == 1


async def test_a_store_named_by_create_is_created_once(tmp_path: Path) -> None:
    async with Hub(tmp_path / "new", create=["notes"]) as hub, hub.use("notes") as level:
        await level.put("a", 1)
    async with Hub(tmp_path / "new", create=["notes"]) as hub, hub.use("notes") as level:
        assert await level.get("a") == 1


async def test_no_request_creates_a_store(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    async with (
        hub,
        client_of(create_app(hub)) as client,
    ):
        for method, path, status in (
            ("PUT", "/v1/new", 403),  # an operator may
            ("POST", "/v1/new", 405),
            ("PUT", "/v1/new/entries/a", 404),
        ):
            assert (await client.request(method, path, json=1)).status_code == status
    assert tree(tmp_path) == set()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"root": "absent"}, StorageError),
        ({"root": ".", "create": ["A"]}, ValueError),
        ({"root": ".", "create": ["../a"]}, ValueError),
        ({"create": ["a"]}, ValueError),
        ({"levels": {"A": Level("a", backend="memory", mode=Level.SERVER)}}, ValueError),
        ({"levels": {"a": Level("a", backend="memory")}}, ValueError),
        ({"root": ".", "create": ["client"]}, ModeMismatchError),
        ({"root": "client", "create": ["a"]}, StorageError),
    ],
)
async def test_a_hub_with_invalid_arguments_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], error: type[Exception]
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "client", Level.CLIENT)
    with pytest.raises(error):
        async with Hub(**arguments):
            pass


@pytest.mark.parametrize("backend", ["leveldb", "sqlite"])
def test_a_url_for_a_backend_of_paths_is_refused_without_revealing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match="not a URL: pass the backend") as caught:
        Hub("postgresql://alice:s3cret@example.org/db", create=["notes"], backend=backend)
    assert "s3cret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("without_psycopg")
def test_a_hub_without_the_library_of_its_backend_says_what_to_install() -> None:
    with pytest.raises(BackendNotFoundError, match=re.escape(extras.install_command("postgres"))):
        Hub("postgresql://example.org/db", backend="postgres").names()


async def test_an_external_level_is_neither_opened_nor_closed(served: Served) -> None:
    async with served.hub.use("notes") as level:
        assert level is served.levels["notes"]
    await served.hub.__aexit__()
    assert served.levels["notes"].is_open
    async with served.hub:
        await served.levels["notes"].close()
        closed = await served.client.get("/v1/notes")
        assert (closed.status_code, closed.json()["code"]) == (503, "LEVEL_DATABASE_NOT_OPEN")
        await served.levels["notes"].open()


# ------------------------------------------------------------------------------- opening, closing


async def test_an_idle_database_is_closed(tmp_path: Path) -> None:
    make(tmp_path / "notes", a=1)
    async with Hub(tmp_path, idle_seconds=0.05) as hub:
        async with hub.use("notes") as level:
            await asyncio.sleep(0.2)
            assert level.is_open

        def read_by_another() -> Any:
            with suppress(LockedError), blocking.Level(tmp_path / "notes", mode=Level.SERVER) as now:
                return now.get("a")

        await until(lambda: read_by_another() == 1)
        async with hub.use("notes") as again:
            assert await again.get("a") == 1


async def test_the_least_recently_used_database_is_evicted(tmp_path: Path) -> None:
    for name in "abc":
        make(tmp_path / name)
    async with Hub(tmp_path, max_open=2) as hub:
        levels = {}
        for name in ("a", "b", "a", "c"):
            async with hub.use(name) as levels[name]:
                pass
        assert {name: level.is_open for name, level in levels.items()} == {"a": True, "b": False, "c": True}
        assert hub.open_count == 2


async def test_a_database_beyond_max_open_is_refused_while_all_are_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treehub_level.http.server.hub._ROOM_SECONDS", 0.05)
    for name in "ab":
        make(tmp_path / name)
    async with Hub(tmp_path, max_open=1) as hub:
        async with hub.use("a"):
            assert await refusal(hub, "b") == (503, "LEVEL_BUSY")
        async with hub.use("b"):
            pass


async def test_a_database_beyond_max_open_waits_until_another_is_no_longer_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treehub_level.http.server.hub._ROOM_SECONDS", 30)
    for name in "ab":
        make(tmp_path / name, a=name)
    async with Hub(tmp_path, max_open=1) as hub:

        async def read() -> Any:
            async with hub.use("b") as level:
                return await level.get("a")

        async with hub.use("a"):
            waiting = asyncio.ensure_future(read())
            await asyncio.sleep(0.05)
            assert not waiting.done()
        async with asyncio_timeout(30):
            assert await waiting == "b"


# ---------------------------------------------------------------------------- waiting for commits


@asynccontextmanager
async def watching_all(app: Starlette, names: Iterable[str]) -> AsyncIterator[dict[str, StreamingRequest]]:
    """Watch databases, and yield the streams by name, once each has begun."""
    async with AsyncExitStack() as stack:
        streams = {}
        for name in names:
            request = StreamingRequest(app, "GET", f"/v1/{name}/watch?since=0")
            streams[name] = await stack.enter_async_context(request.open())
            await until_text(streams[name], b'data: ["first"')
        yield streams


async def until_text(stream: StreamingRequest, text: bytes) -> None:
    """Wait until a stream has received a text."""
    await stream.until(lambda: text in stream.text)


def is_watched_one_in_use(hub: Hub, name: str, database: Any) -> bool:
    """The former rule, as a control: a watched database may not be closed."""
    return not (database.references or name in hub._subscriptions)


@pytest.mark.parametrize("backend", ["leveldb", "sqlite"])
async def test_databases_beyond_max_open_are_served_while_all_others_are_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    names = "abcd"
    hub = Hub(tmp_path, create=names, max_open=2, backend=backend)
    app = create_app(hub)
    async with hub, client_of(app) as client:
        for name in names:
            assert (await client.put(f"/v1/{name}/entries/first", json=1)).status_code == 204
        async with watching_all(app, names) as streams:
            for _ in range(3):
                for name in names:
                    assert (await client.get(f"/v1/{name}/entries/first")).json() == 1
                    assert hub.open_count <= 2
            for number in range(3):
                for name in names:
                    assert (await client.put(f"/v1/{name}/entries/{number}", json=name)).status_code == 204
            for name, stream in streams.items():
                await until_text(stream, f'["2","{name}"]'.encode())
                ids = re.findall(rb"id: (\d+)\ndata", stream.text)
                assert ids == [b"1", b"2", b"3", b"4"], "a watch lost or repeated a change"
        monkeypatch.setattr(Hub, "_may_close", is_watched_one_in_use)
        monkeypatch.setattr("treehub_level.http.server.hub._ROOM_SECONDS", 0.05)
        async with watching_all(app, "ab"):
            assert (await client.get("/v1/c/entries/first")).json()["code"] == "LEVEL_BUSY"


async def test_databases_beyond_max_open_are_served_during_long_polls(tmp_path: Path) -> None:
    hub = Hub(tmp_path, create="abc", max_open=1)
    async with hub, client_of(create_app(hub)) as client:
        polls = {name: asyncio.ensure_future(client.get(f"/v1/{name}/changes?wait=60", timeout=60)) for name in "ab"}
        await until(lambda: all(name in hub._subscriptions for name in "ab"))
        assert (await client.put("/v1/c/entries/x", json=1)).status_code == 204
        for name, poll in polls.items():
            assert not poll.done()
            assert (await client.put(f"/v1/{name}/entries/x", json=name)).status_code == 204
            async with asyncio_timeout(30):
                assert (await poll).json()["changes"] == [["x", name]]


async def test_databases_beyond_max_open_are_served_during_uploads(tmp_path: Path) -> None:
    hub = Hub(tmp_path, create="ab", max_open=1)
    app = create_app(hub)
    headers = {"content-type": "application/json"}
    upload = StreamingRequest(app, "PUT", "/v1/a/entries/x", headers=headers, body=[b"1"])
    async with hub, client_of(app) as client, upload.open():
        await until(lambda: not upload._body)
        assert (await client.get("/v1/b")).status_code == 200


async def test_a_watched_database_is_not_closed_for_being_idle(tmp_path: Path) -> None:
    hub = Hub(tmp_path, create=["a"], idle_seconds=0.05)
    app = create_app(hub)
    async with hub:
        async with hub.use("a") as level:
            await level.put("first", 1)
        async with watching_all(app, "a"):
            await asyncio.sleep(0.2)
            assert hub.open_count == 1
        await until(lambda: hub.open_count == 0)


@pytest.mark.parametrize("backend", ["leveldb", "sqlite"])
async def test_a_watch_of_a_closed_database_sees_the_writes_of_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setattr("treehub_level.http.server.hub._RECHECK_SECONDS", 0.1)
    hub = Hub(tmp_path, create="ab", max_open=1, backend=backend, idle_seconds=0.2)
    app = create_app(hub)
    path = tmp_path / ("a" if backend == "leveldb" else "a.sqlite")

    def write() -> bool:
        with suppress(LockedError), blocking.Level(path, mode=Level.SERVER, backend=backend) as level:
            level.put("other", 1)
            return True
        return False  # the hub looks at the store at the moment

    async with hub:
        async with hub.use("a") as level:
            await level.put("first", 1)
        async with watching_all(app, "a") as streams:
            async with hub.use("b"):
                while not await asyncio.to_thread(write):
                    pass
            await streams["a"].until(lambda: b'["other",1]' in streams["a"].text)


async def test_a_watch_goes_on_after_another_process_had_its_database_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treehub_level.http.server.watch.RETRY_SOON", 0.02)
    hub = Hub(tmp_path, create="ab", max_open=1)
    app = create_app(hub)
    async with hub:
        async with hub.use("a") as level:
            await level.put("first", 1)
        async with watching_all(app, "a") as streams:
            async with hub.use("b"):
                other = await asyncio.to_thread(blocking.Level, tmp_path / "a", mode=Level.SERVER)
                await asyncio.to_thread(other.open)
            other.put("other", 1)
            hub._subscriptions.wake("a")
            await asyncio.sleep(0.1)
            assert not streams["a"].task.done()
            await asyncio.to_thread(other.close)
            await streams["a"].until(lambda: b'["other",1]' in streams["a"].text)


async def test_a_watch_of_a_deleted_database_ends(tmp_path: Path) -> None:
    hub = Hub(tmp_path, create="ab", max_open=1)
    app = create_app(hub)
    async with hub:
        async with hub.use("a") as level:
            await level.put("first", 1)
        async with watching_all(app, "a") as streams:
            async with hub.use("b"):
                await asyncio.to_thread(shutil.rmtree, tmp_path / "a")
            hub._subscriptions.wake("a")
            await streams["a"].until(lambda: streams["a"].task.done())
            assert b": LEVEL_DATABASE_NOT_FOUND: " in streams["a"].text


async def test_closing_waits_for_admitted_requests(tmp_path: Path) -> None:
    hub = Hub(tmp_path, create="a")
    app = create_app(hub)
    await hub.__aenter__()
    gate = asyncio.Event()

    async def upload() -> AsyncIterator[bytes]:
        yield b"1"
        await gate.wait()
        yield b"2"

    async with client_of(app) as client:
        headers = {"content-type": "application/json"}
        put = asyncio.ensure_future(client.put("/v1/a/entries/x", content=upload(), headers=headers))
        await until(lambda: hub._admitted)
        closing = asyncio.ensure_future(hub.__aexit__())
        await asyncio.sleep(0.02)
        assert not closing.done()
        gate.set()
        assert (await put).status_code == 204
        async with asyncio_timeout(30):
            await closing
    with blocking.Level(tmp_path / "a", mode=Level.SERVER) as level:
        assert level.get("x") == 12


async def test_concurrent_requests_open_a_database_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "notes", a=1)
    opened: list[Any] = []
    monkeypatch.setattr(Level, "open", counting(Level.open, opened))
    async with Hub(tmp_path) as hub:

        async def read() -> Any:
            async with hub.use("notes") as level:
                return await level.get("a")

        assert await asyncio.gather(*(read() for _ in range(20))) == [1] * 20
    assert len(opened) == 1


async def test_a_request_cancelled_while_opening_a_database_leaves_it_usable(tmp_path: Path) -> None:
    make(tmp_path / "notes", a=1)
    async with Hub(tmp_path) as hub:

        async def read() -> Any:
            async with hub.use("notes") as level:
                return await level.get("a")

        for turns in range(12):
            first, second = asyncio.ensure_future(read()), asyncio.ensure_future(read())
            for _ in range(turns):
                await asyncio.sleep(0)
            first.cancel()
            assert await second == 1


async def test_a_locked_store_is_503(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    async with (
        hub,
        Level(tmp_path / "notes", mode=Level.SERVER),
        client_of(create_app(hub)) as client,
    ):
        response = await client.get("/v1/notes")
    assert (response.status_code, response.json()["code"]) == (503, LockedError.code)
    assert int(response.headers["retry-after"]) > 0
    assert str(tmp_path) not in response.text


async def test_closing_waits_for_requests_and_refuses_new_ones(tmp_path: Path) -> None:
    make(tmp_path / "notes")
    hub = Hub(tmp_path)
    await hub.__aenter__()
    async with hub.use("notes") as level:
        closing = asyncio.ensure_future(hub.__aexit__())
        await asyncio.sleep(0)
        assert await refusal(hub, "notes") == (503, "LEVEL_CLOSING")
        await level.put("a", 1)
        assert not closing.done()
    async with asyncio_timeout(30):
        await closing
    assert not level.is_open


async def test_a_hub_opens_again_in_another_event_loop(tmp_path: Path) -> None:
    make(tmp_path / "notes", a=1)
    hub = Hub(tmp_path)

    async def read() -> Any:
        async with hub, hub.use("notes") as level:
            with pytest.raises(StateError):
                await hub.__aenter__()
            return await level.get("a")

    for _ in range(2):
        assert await asyncio.to_thread(asyncio.run, read()) == 1


# ---------------------------------------------------------------------------------------- mounted


async def test_the_application_is_mounted_in_another_one(tmp_path: Path) -> None:
    hub = Hub(tmp_path, create=["notes"])
    outer = Starlette(routes=[Mount("/sync/here", app=create_app(hub))])
    async with hub, client_of(outer) as client:
        assert (await client.put("/sync/here/v1/notes/entries/a%2Fb", json=1)).status_code == 204
        assert (await client.get("/sync/here/v1/notes/entries")).json()["entries"] == [["a/b", 1]]
        assert (await client.get("/sync/here/v1/notes/entries/a/b")).json() == 1
        missing = await client.get("/sync/here/nothing")
    assert missing.json()["code"] == "LEVEL_ROUTE_NOT_FOUND"


async def test_a_closed_hub_is_503(tmp_path: Path) -> None:
    app = create_app(Hub(tmp_path))
    async with client_of(app) as client:
        response = await client.get("/v1/notes")
    assert (response.status_code, response.json()["message"]) == (503, "this server is not ready: its hub is not open")


async def test_the_lifespan_opens_and_closes_the_hub(tmp_path: Path) -> None:
    hub = Hub(tmp_path, create=["notes"])
    app = create_app(hub)
    async with app.router.lifespan_context(app):
        assert hub.is_open
    assert not hub.is_open
    async with hub:
        async with app.router.lifespan_context(app):
            pass
        assert hub.is_open, "the lifespan closed a hub that it had not opened"


def client_of(app: Starlette) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


def counting(function: Callable[..., Awaitable[Any]], calls: list[Any]) -> Callable[..., Awaitable[Any]]:
    async def counted(*args: Any) -> Any:
        calls.append(args)
        return await function(*args)

    return counted
