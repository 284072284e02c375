"""A fake server behind a transport of httpx. It answers correctly, or with injected faults."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import httpx
import orjson

from treehub_level import blocking
from treehub_level.errors import CIDMismatchError, LevelError, StoreMismatchError

URL = "http://127.0.0.1:1/v1/notes"

#: A substitute for the response: another response, an exception that httpx raises, or a function
#: that returns a response or ``None`` (no fault) for a request.
Fault = httpx.Response | Exception | Callable[[httpx.Request], "httpx.Response | None"]


class FakeServer:
    """A server over a level, with fault injection.

    Attributes:
        level: The level that answers.
        requests: The requests received.
        faults: Faults of the next requests, one each.
        always: The fault of every request once `faults` is empty; ``None`` for no fault.
    """

    def __init__(self, level: blocking.Level) -> None:
        self.level = level
        self.requests: list[httpx.Request] = []
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        response = self._respond(request)
        if not is_foreign(response):
            response.headers["treehub-level"] = "1"
        if not hasattr(response, "_content"):
            return response
        return httpx.Response(response.status_code, headers=response.headers, stream=httpx.ByteStream(response.content))

    def _respond(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        fault = self.faults.popleft() if self.faults else self.always
        if isinstance(fault, Exception):
            raise fault
        if isinstance(fault, httpx.Response):
            return fault
        response = fault(request) if fault is not None else None
        return self.answer(request) if response is None else response

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Return the correct response to a request."""
        try:
            return self._route(request)
        except CIDMismatchError as error:
            fields = {"code": error.code, "message": str(error), "expected": error.expected, "got": error.got}
            return httpx.Response(409, json=fields)
        except StoreMismatchError as error:
            return httpx.Response(409, json={"code": error.code, "message": str(error)})
        except LevelError as error:
            return httpx.Response(400, json={"code": error.code, "message": str(error)})

    def _route(self, request: httpx.Request) -> httpx.Response:
        query = request.url.params
        match request.method, request.url.path.removeprefix("/v1/notes"):
            case "POST", "/exchange":
                reply = self.level.exchange(orjson.loads(request.content))
                return httpx.Response(409 if reply["kind"] in ("reset", "forked") else 200, json=reply)
            case "GET", "/changes":
                assert 1 <= int(query["limit"]) <= 1000
                page = self.level.changes(int(query["since"]), int(query["limit"]))
                changes = [list(change) for change in page.changes]
                return httpx.Response(200, json={"cid": page.cid, "changes": changes, "has_more": page.has_more})
            case "POST", "/change":
                body = orjson.loads(request.content)
                return httpx.Response(200, json={"cid": self.level.change(body["cid"], body["changes"])})
            case "GET", "":
                return httpx.Response(200, json={"server": "s", "cid": self.level.cid, "floor": 0, "mode": "server"})
            case "GET", "/watch":
                page = self.level.changes(int(query["since"]), None)
                assert request.headers["accept"] == "text/event-stream"
                events = [f"id: {change.cid}\ndata: {json.dumps(change)}\n\n" for change in page.changes]
                return httpx.Response(200, content=": hello\n\n" + "".join(events), headers=STREAM)
            case "GET", "/entries":
                bounds: Any = {name: value for name, value in query.items() if name not in ("limit", "reverse")}
                reverse = query.get("reverse") == "true"
                rows = self.level.query(**bounds, reverse=reverse, limit=int(query["limit"]) + 1)
                entries, rest = rows[: int(query["limit"])], rows[int(query["limit"]) :]
                return httpx.Response(200, json={"entries": entries, "has_more": bool(rest)})
            case method, _ if "/entries/" in request.url.path:
                return self._entry(method, request)
        return httpx.Response(404, json={"code": "LEVEL_ROUTE_NOT_FOUND", "message": "no such route"})

    def _entry(self, method: str, request: httpx.Request) -> httpx.Response:
        key = unquote(request.url.raw_path.decode().partition("/entries/")[2])
        if method == "PUT":
            self.level.put(key, orjson.loads(request.content))
        elif method == "DELETE":
            self.level.delete(key)
        elif self.level.has(key):
            return httpx.Response(200, content=orjson.dumps(self.level.get(key)), headers=JSON)
        else:
            return httpx.Response(404, json={"code": "LEVEL_NOT_FOUND", "message": "no such key"})
        return httpx.Response(204)


JSON = {"content-type": "application/json"}
STREAM = {"content-type": "text/event-stream"}


def json_error(status: int, message: str = "no", **headers: Any) -> httpx.Response:
    """Return an error response of a treehub-level server."""
    code = "LEVEL_UNAUTHORIZED" if status == 401 else "LEVEL_TRANSPORT"
    return httpx.Response(status, json={"code": code, "message": message}, headers=headers)


def is_foreign(response: httpx.Response) -> bool:
    """True if a response is one of another program than the server."""
    return "html" in response.headers.get("content-type", "") or "x-foreign" in response.headers


def foreign(status: int, **options: Any) -> httpx.Response:
    """Return a response of another program, with any body and headers."""
    headers = {"x-foreign": "1", **options.pop("headers", {})}
    return httpx.Response(status, headers=headers, **options)


def captive_portal(status: int = 200) -> httpx.Response:
    """Return the response of a captive portal."""
    return httpx.Response(status, html="<html>Accept our terms</html>")
