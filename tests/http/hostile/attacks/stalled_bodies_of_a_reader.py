"""Uploads of 16 MiB that stall, with a token that may not write and so has nothing to upload."""

from __future__ import annotations

from . import Attack, stalled_bodies

ATTACK = Attack(
    stalled_bodies.run,
    memory=40,
    control=f"{stalled_bodies.ATTACK.control}Limits.__init__.__kwdefaults__.update(read_only_body_bytes=16 << 20); ",
)
