"""The writes of a crashing store, and the states that it may have afterwards."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from treehub_level import Change as ChangeOfLevel
from treehub_level import Delete, Mode, Put, blocking

from .disk import hash_of

KEYS = [f"key {number:02}" for number in range(40)] + ["é", "😀", "\x7f", "key\x00"]
#: The LevelDB engines.
ENGINES = ["leveldb", "plyvel"] if find_spec("treehub_level._store_c") is not None else ["plyvel"]
#: A small write buffer makes LevelDB start new logs and write tables often.
OPTIONS: dict[str, Any] = {"write_buffer_size": 64 * 1024, "max_file_size": 64 * 1024, "compression": None}


def options_of(engine: str) -> dict[str, Any]:
    """Return the options of a level on an engine of LevelDB, or on SQLite."""
    return {} if engine == "sqlite" else OPTIONS


#: A key and its value, or None for a deletion.
Change = tuple[str, Any]


@dataclass(frozen=True)
class Unit:
    """The changes of one call.

    Attributes:
        verb: The method that writes it.
        changes: The changes in order.
        durable: True if the call waits for fsync.
    """

    verb: str
    changes: tuple[Change, ...]
    durable: bool


def unit_of(seed: int, cycle: int, index: int, durable: str) -> Unit:
    """Return the unit of this index in the history of a store, as written in this cycle.

    Args:
        seed: Seed of the run.
        cycle: The cycle.
        index: The number of the unit.
        durable: ``"always"``, ``"never"`` or ``"sometimes"``.
    """
    rng = random.Random(f"{seed} {cycle} {index}")
    verb = rng.choice(["put", "put", "put", "delete", "batch", "load"])
    size = {"put": 1, "delete": 1, "batch": rng.randint(1, 10), "load": 8}[verb]
    keys = rng.sample(KEYS, size)
    deletes = verb == "delete" or (verb == "batch" and rng.random() < 0.3)
    changes = tuple(
        (key, None if deletes and number == 0 else [index, cycle, "x" * rng.randint(0, 3000)])
        for number, key in enumerate(keys)
    )
    waits = durable == "always" or (durable == "sometimes" and rng.random() < 0.3)
    return Unit(verb, changes, waits and verb != "load")  # load() has no option `durable`


def write_unit(level: blocking.Level, unit: Unit) -> None:
    """Write a unit with its method."""
    key, value = unit.changes[0]
    if unit.verb == "put":
        level.put(key, value, durable=unit.durable)
    elif unit.verb == "delete":
        level.delete(key, durable=unit.durable)
    elif unit.verb == "load":
        level.load(unit.changes)
    else:
        ops = [Delete(key) if value is None else Put(key, value) for key, value in unit.changes]
        level.batch(ops, durable=unit.durable)


@dataclass
class StoreState:
    """The contents of a store at one point of its history.

    Attributes:
        data: Keys and values.
        cid: The CID of a server.
        log: The change log of a server, by CID.
        dirty: The dirty changes of a client.
    """

    data: dict[str, Any] = field(default_factory=dict)
    cid: int = 0
    log: dict[int, Change] = field(default_factory=dict)
    dirty: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, engine: str, mode: Mode) -> StoreState:
        """Read the state of a store on disk."""
        with blocking.Level(path, backend=engine, mode=mode, **options_of(engine)) as level:
            state = cls(dict(level.query()))
            if mode is Mode.SERVER:
                state.cid = level.cid
                changes = level.changes(0, None).changes
                state.log = {change.cid: (change.key, _value(change)) for change in changes if change.cid}
            elif mode is Mode.CLIENT:
                state.dirty = {change.key: _value(change) for change in level.dirty(None)}
        return state

    def write(self, changes: tuple[Change, ...], mode: Mode) -> None:
        """Apply changes."""
        for key, value in changes:
            if mode is Mode.SERVER:
                self.cid += 1
                self.log[self.cid] = key, value
            elif mode is Mode.CLIENT:
                self.dirty[key] = value
            if value is None:
                self.data.pop(key, None)
            else:
                self.data[key] = value

    def digest(self) -> str:
        """Return a hash of the state without its log, which compaction may shorten."""
        return hash_of(json.dumps([self.cid, self.data, self.dirty], sort_keys=True).encode())

    def may_be(self, held: StoreState, mode: Mode) -> bool:
        """True if ``held`` is this state; its log may have been compacted since."""
        if mode is Mode.NORMAL:
            return held.data == self.data
        if mode is Mode.CLIENT:
            return (held.data, held.dirty) == (self.data, self.dirty)
        return (held.data, held.cid) == (self.data, self.cid) and held.log.items() <= self.log.items()


def _value(change: ChangeOfLevel) -> Any:
    return None if change.deleted else change.value


@dataclass
class History:
    """The writes of one store over all cycles.

    Attributes:
        mode: The mode of the store; NORMAL to compare only its data.
        seed: Selects the writes.
        durable: See `unit_of`.
        units: The number of units in the store.
        now: Its state.
    """

    mode: Mode
    seed: int
    durable: str
    units: int = 0
    now: StoreState = field(default_factory=StoreState)

    def settle(self, held: StoreState, cycle: int, least: int, begun: int) -> int:
        """Find the number of units in a store after a crash, and continue from there.

        Args:
            held: The state of the store.
            cycle: The cycle that has ended.
            least: The number of units that it must have.
            begun: The number of units that were begun.

        Returns:
            The number of begun units that are not in the store.

        Raises:
            AssertionError: The store has fewer units, or a state that it never had.
        """
        state = self.now
        for index in range(self.units, begun + 1):
            if index >= least and state.may_be(held, self.mode):
                self.units, state.log = index, held.log
                return begun - index
            state.write(unit_of(self.seed, cycle, index, self.durable).changes, self.mode)
        raise AssertionError(
            f"in cycle {cycle} no state from unit {least} to {begun} equals that of the store: "
            f"CID {held.cid}, {len(held.data)} keys"
        )


def check(path: Path, engine: str) -> None:
    """Verify a store.

    Raises:
        AssertionError: The store contradicts itself.
    """
    found = blocking.verify(path, backend=engine)
    assert found.ok, f"{path}: {found.faults}"
