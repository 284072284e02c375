"""Quotas on the command line: ``notes=10GB``, ``notes=1000000keys``, ``*=6000/min``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import typer

from ..http.server.catalog import DATABASE_NAME
from ..http.server.quotas import ALL_DATABASES, Quota

_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]i?)?b?", re.IGNORECASE)
_KEYS: Final = re.compile(r"([0-9]+) ?keys?")
_RATE: Final = re.compile(r"([0-9]+) ?/ ?min(?:ute)?")
_UNITS: Final = {"": 1, **{unit: 1000**power for power, unit in enumerate("kmgt", 1)}}
_BINARY_UNITS: Final = {f"{unit}i": 1024**power for power, unit in enumerate("kmgt", 1)}


def parse_quotas(options: Iterable[str]) -> dict[str, Quota]:
    """Return the quota of each store that the options name.

    Raises:
        typer.BadParameter: An option is malformed, or sets a limit twice.
    """
    quotas: dict[str, Quota] = {}
    for option in options:
        name, equals, limit = option.partition("=")
        if not equals or not (name == ALL_DATABASES or DATABASE_NAME.fullmatch(name)):
            raise typer.BadParameter(f"{option!r} is not NAME=SIZE, as in notes=10GB, or *=10GB for all stores")
        field, value = _parse_limit(limit.strip())
        quota = quotas.get(name, Quota())
        if getattr(quota, field) is not None:
            raise typer.BadParameter(f"{option!r} sets a limit of {name} that another --quota has set")
        quotas[name] = replace(quota, **{field: value})
    return quotas


def _parse_limit(text: str) -> tuple[str, int]:
    if found := _KEYS.fullmatch(text):
        return "keys", int(found[1])
    if found := _RATE.fullmatch(text):
        return "writes_per_minute", int(found[1])
    if found := _SIZE.fullmatch(text):
        unit = (found[2] or "").lower()
        return "bytes", int(float(found[1]) * {**_UNITS, **_BINARY_UNITS}[unit])
    raise typer.BadParameter(f"{text!r} is no limit: write a size such as 10GB, 1000000keys, or 6000/min")
