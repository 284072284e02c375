"""The short share of T7 for damaged records; ``python -m tests.crash.records`` is the long run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stores import ENGINES

from treehub_level.engine.records import Commit, Floor, OwnRecords
from treehub_level.maintenance.verify import Verification
from treehub_level.types import Mode

from . import records
from .disk import scratch_folder
from .record_store import RowStore
from .record_templates import templates

pytestmark = pytest.mark.once


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for the stores."""
    with scratch_folder() as folder:
        yield folder


@pytest.mark.parametrize(("backend", "stores"), [("memory", 100), ("leveldb", 5), ("sqlite", 4)])
def test_every_verb_ends_on_a_damaged_store_and_verify_finds_the_damage(
    folder: Path, backend: str, stores: int
) -> None:
    if backend not in ("memory", "sqlite", *ENGINES):
        pytest.skip("the native engine is not installed")
    counts, _ = records.run(RowStore(backend, folder), stores, 7)
    assert counts["CorruptionError"] > stores
    assert counts["faults reported"] > stores // 5


def test_every_verb_succeeds_on_the_stores_before_the_damage(folder: Path) -> None:
    store = RowStore("memory", folder)
    for template in templates():
        counts = records.check(template, template.rows, store)
        assert counts["faults reported"] == counts["CorruptionError"] == 0, template.name


# --------------------------------------------------------------------------------------- controls


def _name_only(own: Any, stored_key: bytes, record: bytes) -> tuple[bytes, None]:
    return stored_key[len(own.space.prefix) :], None


def _unchecked_commit(items: Any) -> Commit:
    first, last, client, principal, ms, groups = items
    return Commit(first, last, client, principal, ms, tuple((start, end) for start, end in groups))


def _unchecked_floor(self: OwnRecords, reader: Any, cid: int) -> Floor:
    return Floor(*(self.read(reader, "floor") or (0, 0)))


_REPLICATION = "treehub_level.replication"
_NO_PROGRESS_CHECK = (f"{_REPLICATION}.progress.ProgressCheck.check", lambda *_, **__: None)
#: The finding, the store, its damaged rows, and the checks that are taken away.
_CONTROLS = [
    (
        "sync, objects does not end",
        "dirty client",
        {b"!k0": None, b"!k1": b'["k0","dirty"]'},
        [
            *((f"{_REPLICATION}.{module}.dirty_change", _name_only) for module in ("records", "manual", "effects")),
            _NO_PROGRESS_CHECK,
        ],
    ),
    (
        "exchange with a new client, objects does not end",
        "compacted server",
        {b"!!floor": b"[14,18]"},
        [("treehub_level.engine.records.OwnRecords.floor", _unchecked_floor), _NO_PROGRESS_CHECK],
    ),
    (
        "JSON raises JSONDecodeError",
        "server",
        {b"k1": b'{"n":1'},
        [("treehub_level.engine.records.OwnRecords.check_outgoing_rows", lambda *_: None)],
    ),
    (
        "changes raises TypeError",
        "server",
        {b"!!commit/8": b'[1,null,null,"x",[[1,8]]]'},
        [
            (
                "treehub_level.engine.records.Commit.parse",
                _unchecked_commit,
            )
        ],
    ),
    (
        "verify calls the store sound",
        "server",
        {b"!!epochs": b"[]]"},
        [("treehub_level.blocking.verify", lambda *_, **__: Verification(Mode.SERVER))],
    ),
    (
        "verify calls the store sound, but rebind",
        "dirty client",
        {b"!!base/k5": b"[9,1]"},
        [("treehub_level.maintenance.survey.parse_base", lambda *_: None)],
    ),
]


@pytest.mark.parametrize(("finding", "name", "rows", "patches"), _CONTROLS, ids=[control[0] for control in _CONTROLS])
def test_the_fault_of_a_missing_check_is_found(
    folder: Path, finding: str, name: str, rows: Any, patches: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = next(template for template in templates() if template.name == name)
    damaged = {key: value for key, value in {**template.rows, **rows}.items() if value is not None}
    for target, replacement in patches:
        monkeypatch.setattr(target, replacement)
    with pytest.raises(records.FindingError, match=finding):
        records.check(template, damaged, RowStore("memory", folder))
