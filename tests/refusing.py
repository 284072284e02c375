"""The rule of the servers of T4, T5, T8, T9: it refuses changes that clients write in pairs."""

from __future__ import annotations

from typing import Any, Final

from treehub_level import Put, Refused

#: The prefix of the keys that the rule refuses, and of the keys that are written with them.
REFUSED: Final = "refused/"
BESIDE: Final = "beside/"


def check(call: Any, changes: Any, read: Any) -> None:
    """Refuse changes of keys with the prefix `REFUSED`."""
    keys = [change.key for change in changes if change.key.startswith(REFUSED)]
    if keys:
        raise Refused("no such keys", keys=keys)


def refused_pair(name: str, number: int) -> list[Put]:
    """Return two changes of a client that belong together, and are refused."""
    return [Put(f"{prefix}{name}/{number}", [name, number]) for prefix in (BESIDE, REFUSED)]


def pair_violations(name: str, pairs: int, journaled: set[str], present: set[str]) -> list[str]:
    """Return descriptions of refused pairs that were lost, or accepted or kept in part.

    Args:
        name: The client.
        pairs: The number of pairs that it wrote.
        journaled: The keys of its refused changes, in its journal.
        present: The keys that it has, or that the server has.
    """
    found = []
    for number in range(pairs):
        keys = [put.key for put in refused_pair(name, number)]
        if not journaled.issuperset(keys):
            found.append(f"{name} wrote {keys}, and its journal does not tell that they were refused")
        if not present.isdisjoint(keys):
            found.append(f"{keys} of {name} are refused, and present")
    return found
