"""The harness of stored records: any bytes under any key of a store, and then every verb."""

from __future__ import annotations

from pathlib import Path

from crash.record_store import RowStore
from crash.record_templates import templates
from crash.records import check


class StoredRecords:
    """Each input is the number of a template, a line break, a key, ``=`` and a value."""

    def __init__(self, folder: Path) -> None:
        self._store = RowStore("memory", folder)

    def __call__(self, data: bytes) -> None:
        """Call every verb on the store with this record; `records.FindingError` is a finding."""
        number, _, row = data.partition(b"\n")
        key, _, value = row.partition(b"=")
        template = templates()[int.from_bytes(number, "little") % len(templates())]
        check(template, {**template.rows, key: value}, self._store)
