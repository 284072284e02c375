"""Verify a store: read every row, and describe the faults in words."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import orjson

from .. import _core
from ..backends.base import Backend, Reader
from ..backends.registry import create
from ..engine.identity import find_identity, has_unpadded_ids, mode_by_shape
from ..engine.records import OwnRecords, copying_record
from ..engine.scan import rows
from ..errors import CorruptionError, LockedError, StateError
from ..types import Mode
from .survey import ClientSurveyor, ServerSurvey, ServerSurveyor

#: The note on a store that another level has open.
_BESIDE = "it is open, in this process or another: this is its state at the beginning"
#: The maximum number of faults of one kind that are listed; further ones are counted.
_LISTED = 5


@dataclass(frozen=True)
class Verification:
    """The result of `verify`.

    Attributes:
        mode: The mode of the store; ``None`` if the store cannot be opened.
        found: The contents of the store, a sentence each.
        faults: The faults, a sentence each; empty if there are none.
    """

    mode: Mode | None
    found: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True if there are no faults."""
        return not self.faults


def verify(
    name: str | os.PathLike[str],
    *,
    backend: str | type[Backend] | Callable[..., Backend] = "leveldb",
    prefix: str = "!",
    **backend_options: Any,
) -> Verification:
    """Read every row of a store of any mode, and report its faults. Nothing on disk is changed.

    A store is free of faults if:

    - every row can be read and decoded;
    - a server's log has no gaps after its last compaction, and ends at the server's CID;
    - each key of a server has the value of its last change in the log;
    - each dirty change of a client agrees with the value of its key;
    - the store's own records are well-formed.

    The whole store is read. Of a store that another level has open, in this process or another, the
    state at the beginning is read, beside its writes. Memory grows with the number of distinct keys
    in a server's log.

    Args:
        name: The store.
        backend: As for `Level`.
        prefix: As for `Level`.
        **backend_options: As for `Level`.

    Returns:
        The contents and the faults. A damaged store that cannot be opened is a fault, not an error.

    Raises:
        StateError: There is no store.
        LockedError: The store is open, and its backend cannot read it beside that.
        StorageError: The store cannot be read, for another reason than damage.
    """
    store, space = create(backend, os.fspath(name), backend_options), _core.KeySpace(prefix)
    if not store.exists():
        raise StateError(f"there is no store at {store.name!r}")
    try:
        beside = [] if _open_alone(store) else [_BESIDE]
        with closing(store), closing(store.snapshot()) as reader:
            result = examine(reader, space)
            result.faults[:0] = store.recovery_notes
            result.found[:0] = beside
            return result
    except CorruptionError as error:
        return Verification(None, faults=[str(error)])


def _open_alone(store: Backend) -> bool:
    """Open a store for reading, and keep others from opening it.

    Returns:
        False if another level has it open: then its present state was opened.
    """
    try:
        store.open_read_only(locked=True)
    except LockedError:
        store.open_read_only()
        return False
    return True


def examine(reader: Reader, space: _core.KeySpace) -> Verification:
    """Read every row of an open store, and report its faults.

    Raises:
        CorruptionError: The backend cannot read the store to its end.
    """
    copied = copying_record(reader)
    if copied is not None:
        return Verification(
            None,
            faults=[f"it is a half-made copy of {copied['from']!r}: run that copy again to complete it"],
        )
    records, lost = OwnRecords(space), None
    try:
        adopting = records.adoption(reader)
        if adopting is not None:
            return Verification(
                Mode.NORMAL,
                faults=[
                    f"adopt() to the mode {adopting.mode.value} was interrupted: call it again with that mode to "
                    "complete it"
                ],
            )
        identity = find_identity(reader, records, strict=False)
    except StateError as error:
        return Verification(None, faults=[str(error)])
    except CorruptionError as error:
        identity, lost = None, str(error)
    mode = identity.mode if identity else records.identity_without_record(reader)
    if mode is None:
        mode = mode_by_shape(reader, records)
        if mode is Mode.SERVER and has_unpadded_ids(reader, space):
            return Verification(
                mode,
                faults=[
                    "it is a server of @treehub/level whose log is not in numeric order: run `treehub-level upgrade`"
                ],
            )
    if mode is Mode.SERVER:
        result = _verify_server(ServerSurveyor(reader, space).run())
    elif mode is Mode.CLIENT:
        result = _verify_client(reader, space, is_npm=identity is None and lost is None)
    else:
        result = _verify_normal(reader)
    if lost is not None:
        result.faults.insert(0, lost)
    return result


def _verify_normal(reader: Reader) -> Verification:
    records = not_json = 0
    for _, value in rows(reader, None, None):
        records += 1
        try:
            orjson.loads(value)
        except ValueError:
            not_json += 1
    result = Verification(Mode.NORMAL, [f"{count(records, 'record')}, all readable"])
    if not_json:
        result.found.append(
            f'{count(not_json, "value")} not in JSON: value_encoding="bytes" reads and writes such values'
        )
    return result


def _verify_server(survey: ServerSurvey) -> Verification:
    result = Verification(Mode.SERVER)
    found, faults = result.found, result.faults
    found.append(f"{count(survey.records, 'record')}, CID {survey.cid:,}")
    compacted = f", compacted up to CID {survey.compacted_to:,}" if survey.compacted_to else ""
    found.append(f"{count(survey.logged, 'change')} in the log{compacted}")
    if survey.committed:
        found.append(f"{count(survey.committed, 'commit')} with a record")
    if survey.floor:
        found.append(f"clients below CID {survey.floor:,} reset at their next sync")
    _list_damaged(survey.damaged, faults)
    last_cid = max(survey.cid, survey.last_logged)
    if survey.cid != survey.last_logged:
        faults.append(f"the store's CID is {survey.cid:,}, but its log ends at CID {survey.last_logged:,}")
    _list_faults(
        faults,
        survey.gaps,
        lambda gap: f"the log lacks {count(gap[1] - gap[0] + 1, 'change')}: {_range(*gap)}",
        "gaps in the log",
    )
    _list_faults(
        faults,
        survey.differing.items(),
        lambda item: f"the value of {_shown(item[0])} differs from its last change in the log, CID {item[1]:,}",
        "values that differ from the log",
    )
    _list_faults(
        faults,
        survey.missing.items(),
        lambda item: f"{_shown(item[0])} has no value, but its last change in the log, CID {item[1]:,}, stores one",
        "keys without the value that the log stores",
    )
    _list_faults(
        faults,
        survey.unlogged,
        lambda key: f"{_shown(key)} has a value, but the log has no change of that key",
        "values that are not in the log",
    )
    if not 0 <= survey.floor <= survey.compacted_to <= last_cid:
        faults.append(
            f"the floor record is wrong: the floor is {survey.floor:,} and the log is compacted up to "
            f"{survey.compacted_to:,}, but 0 <= floor <= compacted <= {last_cid:,} must hold"
        )
    starts = [epoch.start for epoch in survey.epochs]
    if not all(start < survey.cid for start in starts):
        faults.append(f"the epochs record is wrong: the epochs must start below the CID {survey.cid:,}")
    if survey.last_decided > survey.cid:
        faults.append(
            f"the record of a client's push names CID {survey.last_decided:,}, but the store's CID is {survey.cid:,}"
        )
    if survey.last_committed > survey.cid:
        faults.append(
            f"the record of a commit ends at CID {survey.last_committed:,}, but the store's CID is {survey.cid:,}"
        )
    return result


def _verify_client(reader: Reader, space: _core.KeySpace, *, is_npm: bool) -> Verification:
    survey = ClientSurveyor(reader, space).run()
    result = Verification(Mode.CLIENT)
    found, state = result.found, survey.state
    found.append(f"{count(survey.records, 'record')}, CID {survey.cid:,}")
    found.append(f"{count(survey.dirty, 'dirty change')}, {count(survey.conflicts, 'conflict')} in the journal")
    if state is not None and state.push is not None:
        found.append(f"a frozen push of {count(len(state.push.changes), 'change')}, not decided by the server yet")
    if state is not None and state.following.is_resetting:
        found.append("a reset in progress: the next sync continues it")
    elif state is not None and state.cid and not state.following.is_complete:
        found.append("a fill in progress: the next sync continues it")
    if is_npm:
        # A store of @treehub/level has no replication state.
        survey.damaged = [row for row in survey.damaged if row[0] != space.own_key("id")]
    _list_damaged(survey.damaged, result.faults)
    _list_faults(
        result.faults,
        survey.differing,
        lambda key: f"the value of {_shown(key)} differs from its dirty change",
        "values that differ from their dirty changes",
    )
    return result


def _list_damaged(damaged: Collection[tuple[bytes, str]], faults: list[str]) -> None:
    _list_faults(
        faults, damaged, lambda row: f"the row under the key {row[0]!r:.80} is damaged: {row[1]}", "damaged rows"
    )


def _list_faults(faults: list[str], items: Collection[Any], describe: Callable[[Any], str], plural: str) -> None:
    """Add a sentence for each of the first items, and the total if there are more."""
    faults += map(describe, islice(items, _LISTED))
    if len(items) > _LISTED:
        faults.append(f"{len(items):,} {plural}, in all")


def _range(first: int, last: int) -> str:
    return f"CID {first:,}" if first == last else f"CIDs {first:,} to {last:,}"


def _shown(key: bytes) -> str:
    return f"{_core.decode_key(key)!r:.80}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is 1."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
