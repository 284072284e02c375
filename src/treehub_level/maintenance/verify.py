"""``verify``: whether everything in a store is as it must be, in words."""

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
from ..engine.identity import adopting_record, copying_record, has_unpadded_ids, shape_of, stored_identity
from ..errors import CorruptionError, StateError
from ..types import Mode
from .survey import ClientSurveyor, ServerSurvey, ServerSurveyor, rows_of

#: So many faults of a kind are named one by one; the rest are counted.
_NAMED = 5


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        mode: The mode in which the store was made; ``None`` if it cannot be opened.
        found: What was looked at, a sentence each.
        faults: What is wrong, a sentence each; empty if nothing is.
    """

    mode: Mode | None
    found: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


def verify(
    name: str | os.PathLike[str],
    *,
    backend: str | type[Backend] | Callable[..., Backend] = "leveldb",
    prefix: str = "!",
    **backend_options: Any,
) -> Verification:
    """Look at every row of a store, of any mode, and say what is wrong. Nothing on disk is changed.

    Every row can be read and decoded; a server's log goes on from one change id to the next, behind its last
    compaction, up to the store's own, and each key has the value that was logged last; a client's dirty changes are
    those of the values that it has; the store's own records can be used. It takes as long as reading everything, and
    memory for each distinct key in a server's log.

    Args:
        name: The store.
        backend: As for `Level`.
        prefix: As for `Level`.
        **backend_options: As for `Level`.

    Raises:
        StateError: There is no store.
        LockedError: It is open.
        StorageError: It cannot be read for another reason than that it is damaged.
    """
    store, space = create(backend, os.fspath(name), backend_options), _core.KeySpace(prefix)
    if not store.exists():
        raise StateError(f"there is no store at {store.name!r}")
    try:
        with store.open_read_only() as opened, closing(opened.snapshot()) as reader:
            result = examine(reader, space)
            result.faults[:0] = opened.recovery_notes
            return result
    except CorruptionError as error:
        return Verification(None, faults=[str(error)])


def examine(reader: Reader, space: _core.KeySpace) -> Verification:
    """Look at every row.

    Raises:
        CorruptionError: The engine cannot read on.
    """
    copied = copying_record(reader)
    if copied is not None:
        return Verification(
            None,
            faults=[f"it is a half-made copy of {copied['from']!r}: run that copy again, and it will finish"],
        )
    half_way = adopting_record(reader, space)
    if half_way is not None:
        return Verification(
            Mode.NORMAL,
            faults=[f"it is half-way to a {half_way['mode']}: call adopt() again with that mode, it will finish"],
        )
    try:
        identity = stored_identity(reader, space, strict=False)
    except StateError as error:
        return Verification(None, faults=[str(error)])
    mode = identity[0] if identity else None
    if identity is None:
        shape = shape_of(reader, space)
        mode = {"server": Mode.SERVER, "client": Mode.CLIENT}.get(shape, Mode.NORMAL)
        if mode is Mode.SERVER and has_unpadded_ids(reader, space):
            return Verification(
                mode,
                faults=[
                    "it is a server store of @treehub/level whose log is in wrong order: run `treehub-level upgrade`"
                ],
            )
    if mode is Mode.SERVER:
        return _server(ServerSurveyor(reader, space).walk())
    if mode is Mode.CLIENT:
        return _client(reader, space, of_the_original=identity is None)
    return _normal(reader)


def _normal(reader: Reader) -> Verification:
    records = others = 0
    for _, value in rows_of(reader):
        records += 1
        try:
            orjson.loads(value)
        except ValueError:
            others += 1
    result = Verification(Mode.NORMAL, [f"{count(records, 'record')}, each of which can be read"])
    if others:
        result.found.append(f'{count(others, "value")} of a kind that is no JSON: value_encoding="bytes" writes those')
    return result


def _server(survey: ServerSurvey) -> Verification:
    result = Verification(Mode.SERVER)
    found, faults = result.found, result.faults
    found.append(f"{count(survey.records, 'record')}, CID {survey.cid:,}")
    compacted = f", compacted up to CID {survey.compacted_to:,}" if survey.compacted_to else ""
    found.append(f"{count(survey.logged, 'change')} in the log{compacted}")
    if survey.floor:
        found.append(f"clients below CID {survey.floor:,} start over when they sync")
    _damaged(survey.damaged, faults)
    if survey.cid != survey.newest:
        faults.append(f"the store says that its CID is {survey.cid:,}, but its log ends at {survey.newest:,}")
    _name(
        faults,
        survey.gaps,
        lambda gap: f"the log lacks {count(gap[1] - gap[0] + 1, 'change')}, from {gap[0]:,} on",
        "stretches of the log are missing",
    )
    _name(
        faults,
        survey.other.items(),
        lambda item: f"the value of {_shown(item[0])} is not what change {item[1]:,}, its last, says",
        "values are not what their last changes say",
    )
    _name(
        faults,
        survey.absent.items(),
        lambda item: f"{_shown(item[0])} is missing, and change {item[1]:,}, its last, gives it a value",
        "keys are missing to which the log gives values",
    )
    _name(
        faults,
        survey.unlogged,
        lambda key: f"{_shown(key)} has a value that is not in the log",
        "values are not in the log",
    )
    if not 0 <= survey.floor <= survey.compacted_to <= max(survey.cid, survey.newest):
        faults.append(
            f"the floor is {survey.floor:,} and the log compacted up to {survey.compacted_to:,}: that cannot be"
        )
    starts = [epoch.start for epoch in survey.epochs]
    if starts != sorted(starts) or not all(0 <= start <= survey.cid for start in starts):
        faults.append("the epochs do not follow on each other up to the CID")
    if survey.decided > survey.cid:
        faults.append(f"a client's push was given the CID {survey.decided:,}, which the store has not reached")
    return result


def _client(reader: Reader, space: _core.KeySpace, *, of_the_original: bool) -> Verification:
    survey = ClientSurveyor(reader, space).walk()
    result = Verification(Mode.CLIENT)
    found, state = result.found, survey.state
    found.append(f"{count(survey.records, 'record')}, CID {survey.cid:,}")
    found.append(f"{count(survey.dirty, 'dirty change')}, {count(survey.conflicts, 'conflict')} in the journal")
    if state is not None and state.push is not None:
        found.append(f"a push of {count(len(state.push.changes), 'change')} that the server has not answered yet")
    if state is not None and state.reset is not None:
        found.append("a reset under way: the next sync goes on with it")
    if of_the_original:
        survey.damaged = [row for row in survey.damaged if row[0] != space.own_key("id")]  # the original has none
    _damaged(survey.damaged, result.faults)
    _name(
        result.faults,
        survey.other,
        lambda key: f"the value of {_shown(key)} is not that of its dirty change",
        "values are not those of their dirty changes",
    )
    return result


def _damaged(damaged: Collection[tuple[bytes, str]], faults: list[str]) -> None:
    _name(faults, damaged, lambda row: f"what lies under {row[0]!r:.80} is damaged: {row[1]}", "rows are damaged")


def _name(faults: list[str], items: Collection[Any], describe: Callable[[Any], str], what: str) -> None:
    """Say what is wrong with each of the first items, and how many more there are."""
    faults += map(describe, islice(items, _NAMED))
    if len(items) > _NAMED:
        faults.append(f"and so on: {len(items):,} {what}")


def _shown(key: bytes) -> str:
    return f"{_core.decode_key(key)!r:.80}"


def count(number: int, noun: str) -> str:
    """A number of things, as people write it."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
