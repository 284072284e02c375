"""`assert_converged`: the assertion that replicas are equal, with the first differences."""

from __future__ import annotations

from itertools import islice
from typing import Any

import orjson

from .. import blocking
from ..aio.level import Level, blocking_counterpart

#: The number of differing keys that a message names.
_MAX_KEYS = 5


def assert_converged(server: Level | blocking.Level, *clients: Level | blocking.Level) -> None:
    """Assert that clients have the server's records and CID, and no dirty changes.

    The function is synchronous for asyncio levels too: do not await it. Call it after all clients
    have synchronised, while nothing is written.

    Args:
        server: An open SERVER level, asyncio or blocking. If the server runs in another process,
            pass a client that has just pulled everything.
        *clients: Open CLIENT levels of that server, asyncio or blocking.

    Raises:
        AssertionError: A client differs from the server. The message names the client and the
            first differing keys.
        TypeError: An argument is not a level.
    """
    reference = _as_blocking(server)
    expected = dict(reference.query())
    faults: list[str] = []
    for client in map(_as_blocking, clients):
        found = dict(client.query())
        differing = sorted(key for key in {*expected, *found} if _encoded(expected, key) != _encoded(found, key))
        if differing:
            few = "1 key differs" if len(differing) == 1 else f"{len(differing)} keys differ"
            faults.append(f"{client.name!r} has not converged with {reference.name!r}, {few}:")
            for key in islice(differing, _MAX_KEYS):
                ours, theirs = _value_text(found, key), _value_text(expected, key)
                faults.append(f"  {key!r:.80} is {ours} in {client.name!r}, and {theirs} in {reference.name!r}")
            if len(differing) > _MAX_KEYS:
                faults.append(f"  and {len(differing) - _MAX_KEYS} more")
        if client.cid != reference.cid:
            faults.append(f"{client.name!r} is at CID {client.cid}, and {reference.name!r} at CID {reference.cid}")
        if pending := client.pending():
            changes = "1 change" if pending == 1 else f"{pending} changes"
            faults.append(f"{client.name!r} has {changes} that no server has acknowledged")
    if faults:
        raise AssertionError("\n".join(faults))


def _as_blocking(level: object) -> blocking.Level:
    match level:
        case Level():
            return blocking_counterpart(level)
        case blocking.Level():
            return level
    raise TypeError(
        f"assert_converged() needs levels, not {level!r:.80}: for a server in another process, pass a client that "
        "has just synchronised with it"
    )


def _encoded(data: dict[str, Any], key: str) -> bytes | None:
    """Return a value as JSON, since ``1 == 1.0 == True`` in Python. ``None`` for an absent key."""
    return orjson.dumps(data[key], option=orjson.OPT_SORT_KEYS) if key in data else None


def _value_text(data: dict[str, Any], key: str) -> str:
    return f"{data[key]!r:.80}" if key in data else "missing"
