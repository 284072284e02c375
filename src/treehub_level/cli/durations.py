"""Durations on the command line: ``90s``, ``30m``, ``6h``, ``7d``."""

from __future__ import annotations

import re
from typing import Final

import typer

_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([smhdw]?)")
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_duration(text: str) -> float:
    """Return the seconds of a number with a unit: s, m, h, d or w; seconds without one.

    Raises:
        typer.BadParameter: It is another text.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a duration: write a number and s, m, h, d or w, as in 90s or 7d")
    return float(found[1]) * _UNITS[found[2]]
