"""Uploads of 16 MiB less a few bytes that stall: they hold the memory for the bodies of others."""

from __future__ import annotations

from . import Attack, Target

_SIZE = 16 << 20
_UPLOADS = 20


async def run(target: Target) -> None:
    """Stall uploads, and start each again once the server gives it up."""
    from ..sending import head, repeat

    request = head(target, "POST", "/v1/notes/exchange", _SIZE) + b'"' + b"x" * (_SIZE - 9)
    await repeat(target, _UPLOADS, request)


ATTACK = Attack(
    run,
    # The share of one token, the pieces in the buffers of the connections, and the interpreter's.
    memory=160,
    control=(
        "from treehub_level.http.server import body_memory; from treehub_level.http.server.limits import Limits; "
        "body_memory._room = lambda limit, is_small: limit; "
        "Limits.__init__.__kwdefaults__.update(token_held_bytes=1 << 40, body_idle_seconds=3600, body_seconds=3600); "
    ),
    write=True,
)
