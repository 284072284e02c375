"""The records of all workloads: about 110 bytes of JSON each, the same in every run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

#: A prime: multiples of it, modulo a round number, give each key once, and not in key order.
_STRIDE = 7919
_NAMES = ["Reykjavík", "Ouagadougou", "São Paulo", "Санкт-Петербург", "東京", "Cairo", "Springfield", "القاهرة"]


def make_records(count: int) -> Iterator[tuple[str, Any]]:
    """Make ``count`` pairs of key and value, in the order in which they are written."""
    return ((make_key(number * _STRIDE % count), _make_value(number)) for number in range(count))


def make_key(number: int) -> str:
    """Return the key of a record."""
    return f"place:{number:09d}"


def _make_value(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "name": _NAMES[number % len(_NAMES)],
        "country": "XY",
        "latitude": number % 180_000 / 1000 - 90,
        "population": number * 37,
        "tags": ["place", None, number % 2 == 0],
    }
