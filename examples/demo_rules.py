"""The rule of the demo's server, which ``treehub-level serve --check demo_rules:check`` loads."""

from __future__ import annotations

from typing import Any

from treehub_level import Refused
from treehub_level.checks import Call, CheckedChange, Lookup

#: The reason that a client gets.
REASON = "a place has no negative population"


def check(call: Call, changes: list[CheckedChange], read: Lookup) -> None:
    """Refuse a group of changes that gives a place a negative population."""
    refused = [change.key for change in changes if population_of(change.after) < 0]
    if refused:
        raise Refused(REASON, keys=refused)


def population_of(value: Any) -> int:
    """Return the population of a place; 0 for a value that is no place."""
    return int(value.get("population", 0)) if isinstance(value, dict) else 0
