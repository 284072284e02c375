"""Notes of a team: a FastAPI service with users, a live page, and clients that work offline.

    pip install fastapi '.[server,http,checks]'  # in a checkout
    python examples/team_notes.py stores
    http://127.0.0.1:8000/ in several windows; the users are ada (lovelace) and ben (franklin)

Programs with a store of their own synchronise with /sync/v1/team, which all users share, or with
/sync/v1/NAME, which only that user may open. Their token is the one that /login returns.
"""

import argparse
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Body, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel, Field

from treehub_level import MISSING, LevelError, Refused, checks
from treehub_level.http import Hub, Identity, create_app, error_response, require_identity

USERS = {"ada": "lovelace", "ben": "franklin"}  # an application has a table with hashes of passwords
Text = Annotated[str, Field(min_length=1, max_length=500)]


class Note(BaseModel):
    text: Text
    author: str
    likes: int = Field(default=0, ge=0)


fits_model = checks.pydantic({"note/": Note})


def check(call: checks.Call, changes: list[checks.CheckedChange], read: checks.Lookup) -> None:
    """Refuse the changes of a client that are no notes, or touch those of another user."""
    fits_model(call, changes, read)
    for change in changes:
        notes = [note for note in (change.before, change.after) if note is not MISSING]
        if change.key.startswith("note/") and any(note["author"] != call.principal for note in notes):
            raise Refused("this note is another user's", keys=[change.key])


def with_one_more_like(note: dict[str, Any] | None) -> Any:
    return MISSING if note is None else {**note, "likes": note.get("likes", 0) + 1}


def create_service(folder: Path) -> FastAPI:
    hub = Hub(folder, create=["team"], create_on_demand=True, check=check)
    sessions: dict[str, str] = {}  # the user of each token

    def authenticate(request: Request) -> Identity | None:
        """Return the user of a token: a client sends it as a header, the page as a cookie."""
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        user = sessions.get(bearer or request.cookies.get("token", ""))
        return None if user is None else Identity(user, databases=["team", user], write=True)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with hub:
            with hub.stop_on_signals():  # ends watches and long polls at once
                yield

    service = FastAPI(lifespan=lifespan)
    service.add_exception_handler(LevelError, error_response)
    service.mount("/sync", create_app(hub, authenticate=authenticate))

    @service.get("/")
    def page() -> FileResponse:
        return FileResponse(Path(__file__).with_name("team_notes.html"))

    @service.post("/login")
    def login(name: Annotated[str, Body()], password: Annotated[str, Body()], response: Response) -> dict[str, str]:
        if not secrets.compare_digest(USERS.get(name, secrets.token_hex()).encode(), password.encode()):
            raise HTTPException(401, "this name and password do not belong together")
        sessions[token := secrets.token_urlsafe()] = name
        response.set_cookie("token", token, httponly=True, samesite="strict")
        return {"token": token}

    current_user = Depends(require_identity(authenticate))

    @service.get("/notes", response_class=EventSourceResponse)
    async def follow(user: Annotated[Identity, current_user]) -> AsyncIterator[dict[str, Any]]:
        """Send the notes, and then each change, as server-sent events."""
        async for change in hub.watch("team", prefix="note/", initial=True):
            yield {"key": change.key.removeprefix("note/"), "note": change.value, "by": change.by}

    @service.post("/notes", status_code=201)
    async def write(text: Annotated[Text, Body(embed=True)], user: Annotated[Identity, current_user]) -> str:
        key = f"{time.time_ns():020}-{user.name}"
        async with hub.use("team") as team:
            await team.put(f"note/{key}", Note(text=text, author=user.name).model_dump(), if_absent=True)
        return key

    @service.post("/notes/{key}/like")
    async def like(key: str, user: Annotated[Identity, current_user]) -> int:
        async with hub.use("team") as team:
            liked = await team.update(f"note/{key}", with_one_more_like)
        if liked is MISSING:
            raise HTTPException(404, "this note was removed")
        return int(liked["likes"])

    return service


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Notes of a team.")
    parser.add_argument("folder", type=Path, help="the folder of the databases")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    uvicorn.run(create_service(options.folder), port=options.port, timeout_graceful_shutdown=10)
