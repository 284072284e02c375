"""All harnesses by name, and a seeded fault for each, which fuzzing must find."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from unittest import mock

from crash.record_templates import templates
from starlette.responses import Response

from treehub_level import _core_py
from treehub_level._core_py import scan
from treehub_level.cli import lines as cli_lines
from treehub_level.engine.records import OwnRecords
from treehub_level.http.client import events
from treehub_level.http.server import query, routes, tokens
from treehub_level.http.server.dispatch import RequestContext
from treehub_level.replication import wire

from . import core, decoders
from .http_server import Application, Socket
from .stored import StoredRecords

#: A function that checks one input.
Check = Callable[[bytes], Any]

#: The harnesses that need only their input. They get the most inputs.
PURE: Final[dict[str, Check]] = {
    **{
        check.__name__: check
        for check in (
            core.keys,
            core.json_value,
            core.json_line,
            core.records,
            core.packed,
        )
    },
    **decoders.HARNESSES,
}
#: The harnesses that need a folder for a store, a file or a server. They are slower.
LIVE: Final[dict[str, Callable[[Path], Any]]] = {
    "tokens": decoders.TokensFile,
    "stored": StoredRecords,
    "application": Application,
    "socket": Socket,
}
NAMES: Final = [*PURE, *LIVE]
#: The harnesses that take milliseconds an input: they open a store, write a file or make a request.
SLOW: Final = {"arguments", *LIVE}


def shares(together: int) -> dict[str, int]:
    """Divide a number of inputs among the harnesses: a slow one gets 1/50 of a fast one's share."""
    weights = {name: 1 if name in SLOW else 50 for name in NAMES}
    return {name: -(-together * weight // sum(weights.values())) for name, weight in weights.items()}


@contextmanager
def harness(name: str, *, faulty: bool = False) -> Iterator[Check]:
    """Set up a harness, and return its check.

    Args:
        name: The name of the harness.
        faulty: Add a fault to the tested code.
    """
    with ExitStack() as stack:
        if faulty:
            stack.enter_context(_FAULTS[name]())
        if name in PURE:
            yield PURE[name]
            return
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        live = LIVE[name](folder)
        yield stack.enter_context(live) if hasattr(live, "__enter__") else live


# ------------------------------------------------------------------------------------ seeded faults


def _crash(owner: Any, name: str, on: bytes) -> Callable[[], Any]:
    """Return a patch that makes a decoder crash on input with certain bytes in it."""
    original = getattr(owner, name)

    def decode(given: Any, *more: Any) -> Any:
        text = given if isinstance(given, bytes) else str(given).encode(errors="surrogateescape")
        if on in text:
            raise IndexError("a seeded crash")
        return original(given, *more)

    return lambda: mock.patch.object(owner, name, decode)


_DECODE: Final = OwnRecords.decode


def _decode_or_crash(self: OwnRecords, key: bytes, record: bytes) -> Any:
    if b"[[[" in record:
        raise IndexError("a seeded crash")
    return _DECODE(self, key, record)


def _crash_in_records() -> Any:
    templates()  # built once in a process, by sound code
    return mock.patch.object(OwnRecords, "decode", _decode_or_crash)


async def _delete_first(call: RequestContext) -> Response:
    """Delete a key before its new value is read: a refused value changes the database."""
    await call.database.delete(query.parse_key(call.request))
    return await routes.put_entry(call)


#: A fault for each harness. No committed input finds it, and mutated inputs find it soon.
_FAULTS: Final[dict[str, Callable[[], Any]]] = {
    "keys": _crash(_core_py, "decode_key", b"!!!"),
    "json_value": _crash(_core_py, "json_value", b"[[["),
    "json_line": _crash(_core_py, "json_line", b"}}}"),
    "records": _crash(_core_py, "split_record", b"]]"),
    "packed": _crash(scan, "unpack", struct.pack("@N", 2**63)),
    "requests": _crash(decoders, "decode_json", b"[[["),
    "replies": _crash(wire, "decode_json", b"[[["),
    "responses": _crash(events, "parse_event", b"::"),
    "bodies": _crash(decoders, "parse_body", b"::"),
    "urls": _crash(query, "unquote_to_bytes", b"%%"),
    "lines": _crash(cli_lines, "parse_json", b"::"),
    "arguments": _crash(decoders, "parse_value", b"::"),
    "stored": _crash_in_records,
    "tokens": _crash(tokens, "_parse_token", "é".encode()),
    "application": lambda: mock.patch.object(
        next(route for route in routes.ROUTES if route.label.startswith("PUT ")), "handler", _delete_first
    ),
    "socket": lambda: mock.patch.object(
        Socket,
        "prelude",
        "from treehub_level.http.server import app; refusal = app.RefusedError; "
        "app.RefusedError = lambda status, *more, **named: refusal(status, *more, **named) if status != 405 else 1/0; ",
    ),
}
