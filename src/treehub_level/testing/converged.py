"""Whether replicas have become equal, and if not, where they first differ."""

from __future__ import annotations

from itertools import islice

import orjson

from .. import blocking
from ..aio.level import Level
from ..types import JSON

#: Keys that a message names.
_SHOWN = 5


def assert_converged(server: Level | blocking.Level, *clients: Level | blocking.Level) -> None:
    """Assert that clients hold what their server holds, are at its CID, and have nothing left to push.

    It reads at once, also from levels of asyncio, and so is not awaited. Call it when everybody has
    synchronised and nobody writes.

    Args:
        server: The server: a level, open, of either API. Where it cannot be reached from here, a
            client that has just pulled everything stands in for it.
        *clients: Its clients: levels, open, of either API.

    Raises:
        AssertionError: A client differs. The message names the client and the first keys that do.
        TypeError: Something that is no level.
    """
    truth = _blocking(server)
    expected = dict(truth.query())
    faults: list[str] = []
    for client in map(_blocking, clients):
        found = dict(client.query())
        differing = sorted(key for key in {*expected, *found} if _encoded(expected, key) != _encoded(found, key))
        if differing:
            few = "1 key differs" if len(differing) == 1 else f"{len(differing)} keys differ"
            faults.append(f"{client.name!r} has not converged with {truth.name!r}, {few}:")
            for key in islice(differing, _SHOWN):
                here, there = _shown(found, key), _shown(expected, key)
                faults.append(f"  {key!r:.80} is {here} in {client.name!r}, and {there} in {truth.name!r}")
            if len(differing) > _SHOWN:
                faults.append(f"  and {len(differing) - _SHOWN} more")
        if client.cid != truth.cid:
            faults.append(f"{client.name!r} is at CID {client.cid}, and {truth.name!r} at CID {truth.cid}")
        if pending := client.pending():
            changes = "1 change" if pending == 1 else f"{pending} changes"
            faults.append(f"{client.name!r} has {changes} that no server has acknowledged")
    if faults:
        raise AssertionError("\n".join(faults))


def _blocking(level: object) -> blocking.Level:
    match level:
        case Level():
            return level._blocking
        case blocking.Level():
            return level
    raise TypeError(
        f"assert_converged() reads levels, and this is {level!r:.80}: in place of a server that is out of reach give "
        "a client that has just synchronised with it"
    )


def _encoded(data: dict[str, JSON], key: str) -> bytes | None:
    """A value as JSON: to Python ``1``, ``1.0`` and ``True`` are equal."""
    return orjson.dumps(data[key], option=orjson.OPT_SORT_KEYS) if key in data else None


def _shown(data: dict[str, JSON], key: str) -> str:
    return f"{data[key]!r:.80}" if key in data else "missing"
