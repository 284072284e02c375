"""Thousands of TLS handshakes that do not come, without a token: each takes memory."""

from __future__ import annotations

from . import Attack, Target
from .silent_connections import hold_connections


async def run(target: Target) -> None:
    """Send the begin of a ClientHello on each connection, and nothing else."""
    await hold_connections(target, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")


ATTACK = Attack(
    run,
    memory=180,  # 90 KiB each for 1000 of them, as measured, and as much again
    # As in asyncio's own server: handshakes do not count.
    control=(
        "from treehub_level.http.server.limits import Limits; "
        "Limits.__init__.__kwdefaults__.update(connections=10**6, address_connections=10**6); "
        "from treehub_level.http import Limits as L; import treehub_level.cli.serve as s; "
        "s.Limits = lambda **_: L(); "
    ),
    tls=True,
)
