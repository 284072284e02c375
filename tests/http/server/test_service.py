"""Routes of an application beside those of `create_app`: errors, users, databases, live changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from waiting import PATIENCE, until

from treehub_level import Level, LevelError, Put, blocking
from treehub_level.http import Hub, Identity, RefusedError, error_response, require_identity

fastapi: Any = pytest.importorskip("fastapi")

pytestmark = pytest.mark.once


def authenticate(request: Any) -> Identity | None:
    """Return the user that a header names."""
    name = request.headers.get("x-user")
    return None if name is None else Identity(name, databases=["*"], write=True)


def create_service(hub: Hub, *, handled: bool = True) -> Any:
    """An application as an author of one would write it."""
    service: Any = fastapi.FastAPI()
    if handled:
        service.add_exception_handler(LevelError, error_response)
    current_user = require_identity(authenticate)

    @service.get("/me")  # type: ignore[untyped-decorator]
    async def me(user: Identity = fastapi.Depends(current_user)) -> str:  # noqa: B008  # as FastAPI has it
        return user.name

    @service.get("/{name}/{key}")  # type: ignore[untyped-decorator]
    async def read(name: str, key: str) -> Any:
        async with hub.use(name) as level:
            return await level.get(key)

    @service.put("/{name}/{key}")  # type: ignore[untyped-decorator]
    async def claim(name: str, key: str, by: Annotated[str, fastapi.Query()]) -> None:
        async with hub.use(name, create=True) as level:
            await level.put(key, by, if_absent=True)

    return service


@asynccontextmanager
async def serving(folder: Path, *, handled: bool = True) -> AsyncIterator[tuple[Hub, httpx.AsyncClient]]:
    async with Hub(folder, create=["notes"]) as hub:
        transport = httpx.ASGITransport(create_service(hub, handled=handled), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            yield hub, client


async def test_a_refusal_of_the_hub_has_its_status_in_a_service(tmp_path: Path) -> None:
    async with serving(tmp_path) as (hub, client):
        absent = await client.get("/nothing/a")
        assert (absent.status_code, absent.json()["code"]) == (404, "LEVEL_DATABASE_NOT_FOUND")
        assert (await client.put("/notes/a?by=ada")).status_code == 200
        taken = await client.put("/notes/a?by=ben")
        assert (taken.status_code, taken.json()["code"]) == (412, "LEVEL_CONDITION")
        assert (await client.get("/notes/a")).json() == "ada"
        hub.stop()
        closing = await client.get("/notes/a")
        assert (closing.status_code, closing.json()["code"]) == (503, "LEVEL_CLOSING")
        assert closing.headers["retry-after"]


async def test_control_a_service_without_the_handler_answers_500(tmp_path: Path) -> None:
    async with serving(tmp_path, handled=False) as (_, client):
        assert (await client.get("/nothing/a")).status_code == 500


async def test_an_unexpected_error_of_a_store_is_500_and_tells_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as (hub, client):
        async with hub.use("notes") as level:
            store = level._blocking._store
            store.backend.write([(b"a", b"secret")])
        found = await client.get("/notes/a")
    assert (found.status_code, found.json()["code"]) == (500, "LEVEL_DECODE")
    assert "secret" not in found.text + caplog.text
    assert "DecodeError" in caplog.text


async def test_a_dependency_has_the_identity_of_the_caller(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        assert (await client.get("/me", headers={"x-user": "ada"})).json() == "ada"
        refused = await client.get("/me")
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")


async def test_a_program_creates_a_database_when_it_uses_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as (hub, _):

        async def put(number: int) -> None:
            async with hub.use("new", create=True) as level:
                await level.put(f"k{number}", number)

        async def look() -> int:
            try:
                async with hub.use("new") as level:
                    return await level.count()
            except RefusedError as error:
                return -error.status

        found = await asyncio.gather(*(put(n) if n % 2 else look() for n in range(20)))
        assert {-404} >= {count for count in found if count is not None and count < 0}
        assert await look() == 10
        for name in ("Not a name", "../x"):
            with pytest.raises(ValueError, match="not a valid database name"):
                async with hub.use(name, create=True):
                    pass
    async with Level("here", backend="memory", mode=Level.SERVER) as level, Hub(levels={"here": level}) as hub:
        async with hub.use("here", create=True) as used:
            assert used is level
        with pytest.raises(ValueError, match="root"):
            async with hub.use("there", create=True):
                pass


# ------------------------------------------------------------------------------------ Hub.watch


class Follower:
    """Follows a database in a task, as a route does."""

    def __init__(self, changes: Any) -> None:
        self.seen: list[Any] = []
        self.task = asyncio.create_task(self._follow(changes))

    async def _follow(self, changes: Any) -> None:
        async for change in changes:
            self.seen.append((*change,))


async def test_a_watch_of_a_hub_does_not_keep_the_database_open(tmp_path: Path) -> None:
    async with Hub(tmp_path, create=["one", "two"], max_open=1) as hub:
        async with hub.use("one") as one:
            await one.put("a/1", 1)
        follower = Follower(hub.watch("one", initial=True, prefixes=["a/", "b/"]))
        await until(lambda: follower.seen == [("a/1", 1)])
        for number in range(3):
            async with hub.use("two") as two:  # which takes the only place
                await two.put("x", number)
            async with hub.use("one") as one:
                await one.batch([Put("a/2", number), Put("c", number), Put("b/2", number)])
            wanted = 1 + 2 * (number + 1)
            await until(lambda: len(follower.seen) == wanted)  # noqa: B023  # awaited within this iteration
        assert follower.seen[-2:] == [("a/2", 2), ("b/2", 2)]
        hub.stop()
        await asyncio.wait_for(follower.task, PATIENCE)


async def test_control_a_watch_inside_use_keeps_the_database_open(tmp_path: Path) -> None:
    async with Hub(tmp_path, create=["one", "two"], max_open=1) as hub:

        async def follow() -> None:
            async with hub.use("one") as one:
                async for _ in one.watch(initial=True):
                    pass

        task = asyncio.create_task(follow())
        await until(lambda: hub.open_count == 1)
        with pytest.raises(RefusedError, match="too many databases"):
            async with hub.use("two"):
                pass
        hub.stop()
        await asyncio.wait_for(task, PATIENCE)


async def test_a_watch_of_a_hub_loses_no_change_while_its_consumer_waits(tmp_path: Path) -> None:
    with blocking.Level(tmp_path / "notes", mode=Level.SERVER) as level:
        level.load((f"k{n:04}", n) for n in range(2500))
    async with Hub(tmp_path) as hub:
        changes = hub.watch("notes", since=0)
        seen = [await changes.__anext__()]
        async with hub.use("notes") as notes:
            await notes.put("last", 1)
        await hub._close("notes")  # as if to make room, in the middle of a page
        while seen[-1].key != "last":
            seen.append(await asyncio.wait_for(changes.__anext__(), PATIENCE))
        assert [change.cid for change in seen] == [*range(1, 2502)]
        await changes.aclose()


async def test_a_watch_of_a_hub_ends_with_an_error_if_the_database_is_deleted(tmp_path: Path) -> None:
    async with Hub(tmp_path, create=["notes"]) as hub:
        follower = Follower(hub.watch("notes"))
        await until(lambda: hub.open_count == 1)
        await hub.delete("notes")
        with pytest.raises(RefusedError, match="no such database"):
            await asyncio.wait_for(follower.task, PATIENCE)
        with pytest.raises(RefusedError, match="no such database"):
            await hub.watch("notes").__anext__()
        await hub.create("notes")
        with pytest.raises(TypeError, match="several prefixes"):
            await hub.watch("notes", prefixes="a").__anext__()
