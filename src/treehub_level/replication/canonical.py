"""The comparison of change records that another program may have written in another form."""

from __future__ import annotations

import orjson


def same_record(stored: bytes, sent: bytes) -> bool:
    """Return True if two records are the same JSON.

    Records that ``@treehub/level`` has written may differ in white space and escapes.
    """
    return stored == sent or canonical(stored) == canonical(sent)


def canonical(record: bytes) -> bytes:
    """Return a record as this library would write it.

    A record that is not JSON is returned unchanged.
    """
    try:
        return orjson.dumps(orjson.loads(record))
    except (ValueError, TypeError):
        return record
