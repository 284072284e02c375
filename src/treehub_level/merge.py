"""Ready-made functions that settle conflicts, for ``sync(server, on_conflict=…)`` and ``live``.

Each takes a `Conflict`, and returns the value to write, `MISSING` to delete the key, or `JOURNAL`.
For values of several kinds combine them by the prefixes of their keys::

    on_conflict = merge.by_prefix({"todo/": merge.fields, "count/": merge.counter})

A three-way merge knows the base value, which both sides started from. A client knows it if the
level is opened with ``keep_base=True``.

None of them settles a change that the server has refused, or a key that a reset has removed: those
go to the journal. They settle deletes only if they know that one side has not changed the value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, Final, TypeVar

from .replication.merging import OnConflict, require_on_conflict
from .types import JOURNAL, KEEP_SERVER, MISSING, Change, Conflict

__all__ = [
    "JOURNAL",
    "KEEP_SERVER",
    "MISSING",
    "OnConflict",
    "by_prefix",
    "client",
    "counter",
    "even_if_equal",
    "fields",
    "latest",
    "server",
    "union",
]

V = TypeVar("V", dict[str, Any], list[Any])

#: A base value that is not known.
_UNKNOWN: Final = object()


def server(conflict: Conflict) -> Any:
    """Let the server win, and keep the local change in the journal: the default."""
    return JOURNAL


def client(conflict: Conflict) -> Any:
    """Let the local change win: it is written again, over the server's value."""
    return JOURNAL if conflict.kind != "conflict" else _value(conflict.local)


def fields(conflict: Conflict) -> Any:
    """Merge two objects field by field.

    With a base value, a field that one side has changed or removed gets that side's state. If both
    sides have changed it differently, the server's value stays, and the local one is lost: it is
    not in the journal. Without a base value, the result has the fields of both sides, and the
    server's value of those that differ; removed fields come back. Values that are no objects go to
    the journal.
    """
    return _merge(conflict, dict, _merge_fields)


def _merge_fields(local: dict[str, Any], remote: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name in [*remote, *(name for name in local if name not in remote)]:
        mine, theirs, before = (side.get(name, MISSING) for side in (local, remote, base))
        value = mine if _is_same(theirs, before) else theirs
        if value is not MISSING:
            merged[name] = value
    return merged


def union(conflict: Conflict) -> Any:
    """Merge two arrays as sets of JSON values: no value stands twice in the result.

    With a base value, a value that one side has added is in the result, and one that a side has
    removed is not. Without a base value, all values of both sides are in it; removed ones come
    back. The server's values come first, in its order, then those that only this client has added.
    Values that are no arrays go to the journal.
    """
    return _merge(conflict, list, _merge_arrays)


def _merge_arrays(local: list[Any], remote: list[Any], base: list[Any]) -> list[Any]:
    mine, theirs = _as_set(local), _as_set(remote)
    removed = {form for form in _as_set(base) if form not in mine or form not in theirs}
    return [value for form, value in (theirs | {form: mine[form] for form in mine}).items() if form not in removed]


def counter(conflict: Conflict) -> Any:
    """Add up what both sides have added to a number: the server's value + (local value - base).

    A key that did not exist counts as 0. A counter needs a base value: open the level with
    ``keep_base=True``. Without one, and with values that are no numbers, the conflict goes to the
    journal. A counter is asked also if both sides have made the same change, so that both count.
    """
    if conflict.kind != "conflict" or conflict.base is None or conflict.local.deleted:
        return JOURNAL
    local, remote, base = map(_number, (conflict.local, conflict.remote, conflict.base))
    if local is None or remote is None or base is None:
        return JOURNAL
    total = local if remote == base and type(remote) is type(base) else remote + (local - base)
    return total if math.isfinite(total) else JOURNAL


def latest(field: str) -> OnConflict:
    """Return a function that takes the object with the later time in a field.

    Both times are numbers, or both are texts in ISO 8601, which are in UTC if they name no offset.
    The server wins if the times are equal. Other values go to the journal.

    Args:
        field: The name of the field.

    Raises:
        TypeError: ``field`` is no ``str``.
    """
    if not isinstance(field, str):
        raise TypeError(f"a field is a str, not {field!r:.80}")

    def take_latest(conflict: Conflict) -> Any:
        sides = _sides(conflict)
        if sides is None:
            return JOURNAL
        local, remote, base = sides
        if base is not _UNKNOWN and (one := _unchanged(local, remote, base)) is not _UNKNOWN:
            return one
        match _time(local, field), _time(remote, field):
            case (datetime() as mine, datetime() as theirs):
                return local if mine > theirs else remote
            case (int() | float() as mine, int() | float() as theirs):
                return local if mine > theirs else remote
        return JOURNAL

    return take_latest


def by_prefix(mergers: Mapping[str, OnConflict]) -> OnConflict:
    """Return a function that settles a conflict as the longest prefix of its key says.

    Conflicts over keys without a prefix go to the journal.

    Args:
        mergers: A function for each prefix; ``""`` for all other keys.

    Raises:
        TypeError: A prefix is no ``str``, or a function cannot be called with a conflict.
    """
    for prefix, merger in mergers.items():
        if not isinstance(prefix, str):
            raise TypeError(f"a prefix is a str, not {prefix!r:.80}")
        if require_on_conflict(merger) is None:
            raise TypeError(f"the prefix {prefix!r:.80} has no function")
    return _ByPrefix(mergers)


def even_if_equal(merger: OnConflict) -> OnConflict:
    """Return a function that is asked also if both sides have made the same change.

    Otherwise equal changes are no conflict. `counter` is such a function: if two clients add 1, the
    sum is 2. The base value must be known, and must differ from the new value.

    Args:
        merger: The function to ask.
    """

    def ask(conflict: Conflict) -> Any:
        return merger(conflict)

    return _mark(ask, asks_if_equal=True)


class _ByPrefix:
    """Settles conflicts by the prefixes of their keys."""

    def __init__(self, mergers: Mapping[str, OnConflict]) -> None:
        self._mergers = sorted(mergers.items(), key=lambda item: len(item[0]), reverse=True)
        self.needs_base = any(getattr(merger, "needs_base", False) for _, merger in self._mergers)

    def __call__(self, conflict: Conflict) -> Any:
        return self._merger_of(conflict.key)(conflict)

    def asks_if_equal(self, key: str) -> bool:
        """Return True if the function for a key is asked about equal changes, too."""
        asks = getattr(self._merger_of(key), "asks_if_equal", False)
        return bool(asks(key) if callable(asks) else asks)

    def _merger_of(self, key: str) -> OnConflict:
        return next((merger for prefix, merger in self._mergers if key.startswith(prefix)), server)


def _mark(merger: OnConflict, **marks: bool) -> OnConflict:
    """Set attributes of a function that a sync looks at."""
    vars(merger).update(marks)
    return merger


_mark(counter, asks_if_equal=True, needs_base=True)


def _sides(conflict: Conflict) -> tuple[Any, Any, Any] | None:
    """Return the values of both sides and the base value; ``None`` if there is nothing to merge."""
    if conflict.kind != "conflict" or conflict.remote is None:
        return None
    base = _UNKNOWN if conflict.base is None else _value(conflict.base)
    return _value(conflict.local), _value(conflict.remote), base


def _merge(conflict: Conflict, kind: type[V], merge_both: Callable[[V, V, V], V]) -> Any:
    """Take the side that has changed alone; if both have, merge them.

    Args:
        conflict: The conflict.
        kind: The type of the values that can be merged; others go to the journal.
        merge_both: Merges the local, the server's and the base value, which is empty if it is
            unknown or of another type.
    """
    sides = _sides(conflict)
    if sides is None:
        return JOURNAL
    local, remote, base = sides
    if base is not _UNKNOWN and (one := _unchanged(local, remote, base)) is not _UNKNOWN:
        return one
    if not isinstance(local, kind) or not isinstance(remote, kind):
        return JOURNAL
    return merge_both(local, remote, base if isinstance(base, kind) else kind())


def _value(change: Change) -> Any:
    """Return the value of a change; `MISSING` for a delete."""
    return MISSING if change.deleted else change.value


def _unchanged(local: Any, remote: Any, base: Any) -> Any:
    """Return the side that has changed, if the other has not; `_UNKNOWN` if both have."""
    if _is_same(remote, base) or _is_same(local, remote):
        return local
    return remote if _is_same(local, base) else _UNKNOWN


def _is_same(one: Any, other: Any) -> bool:
    """Return True if two values are the same JSON, or both are missing."""
    if one is MISSING or other is MISSING:
        return one is other
    return _form(one) == _form(other)


def _form(value: Any) -> str:
    """Return the text of a value: 1, 1.0 and true differ, and members have no order."""
    return json.dumps(value, sort_keys=True)


def _as_set(values: Iterable[Any]) -> dict[str, Any]:
    """Return the different values of an array, by their text, in order."""
    found: dict[str, Any] = {}
    for value in values:
        found.setdefault(_form(value), value)
    return found


def _number(change: Change | None) -> int | float | None:
    """Return the number of a change, 0 for a delete; ``None`` if it is no number."""
    if change is None or change.deleted:
        return 0
    value = change.value
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _time(value: Any, field: str) -> float | int | datetime | None:
    """Return the time in a field of an object; ``None`` if there is none."""
    match value.get(field) if isinstance(value, dict) else None:
        case bool():
            return None
        case int() | float() as number:
            return number
        case str() as text:
            return _parse_time(text)
    return None


def _parse_time(text: str) -> datetime | None:
    """Return a time in ISO 8601, in UTC if it names no offset; ``None`` for other texts."""
    try:
        time = datetime.fromisoformat(text[:-1] + "+00:00" if text[-1:] in "Zz" else text)
    except ValueError:
        return None
    return time.replace(tzinfo=timezone.utc) if time.tzinfo is None else time
