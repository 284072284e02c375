"""What a store that crashes was told to write, and what of that it may hold afterwards."""

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
#: The engines that are LevelDB.
ENGINES = ["leveldb", "plyvel"] if find_spec("treehub_level._store_c") is not None else ["plyvel"]
#: A small write buffer, so that LevelDB begins logs and makes tables all the time.
OPTIONS: dict[str, Any] = {"write_buffer_size": 64 * 1024, "max_file_size": 64 * 1024, "compression": None}

#: A change: a key, and its value or None where it is deleted.
Change = tuple[str, Any]


@dataclass(frozen=True)
class Unit:
    """What is written at once.

    Attributes:
        verb: Which verb writes it.
        changes: What it changes, in order.
        durable: Whether it waits for the disk.
    """

    verb: str
    changes: tuple[Change, ...]
    durable: bool


def unit_of(seed: int, cycle: int, index: int, durable: str) -> Unit:
    """The ``index``-th unit of a store's history, if it is written in this cycle.

    Args:
        seed: The seed of the run.
        cycle: The cycle.
        index: Its number.
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
    return Unit(verb, changes, waits and verb != "load")  # load takes no such option


def write_unit(level: blocking.Level, unit: Unit) -> None:
    """Write a unit, with its verb."""
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
class Moment:
    """What a store holds at some moment.

    Attributes:
        data: Its keys and values.
        cid: A server's CID.
        log: A server's log: changes by their CIDs.
        dirty: A client's dirty changes.
    """

    data: dict[str, Any] = field(default_factory=dict)
    cid: int = 0
    log: dict[int, Change] = field(default_factory=dict)
    dirty: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, engine: str, mode: Mode) -> Moment:
        """What a store on disk holds."""
        with blocking.Level(path, backend=engine, mode=mode, **OPTIONS) as level:
            moment = cls(dict(level.query()))
            if mode is Mode.SERVER:
                moment.cid = level.cid
                changes = level.changes(0, None).changes
                moment.log = {change.cid: (change.key, _value(change)) for change in changes if change.cid}
            elif mode is Mode.CLIENT:
                moment.dirty = {change.key: _value(change) for change in level.dirty(None)}
        return moment

    def write(self, changes: tuple[Change, ...], mode: Mode) -> None:
        """What it holds once this is written."""
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
        """The same for all moments at which a store holds the same, whatever was compacted away of its log."""
        return hash_of(json.dumps([self.cid, self.data, self.dirty], sort_keys=True).encode())

    def may_be(self, held: Moment, mode: Mode) -> bool:
        """Whether a store that holds ``held`` may be at this moment: its log may have been compacted since."""
        if mode is Mode.NORMAL:
            return held.data == self.data
        if mode is Mode.CLIENT:
            return (held.data, held.dirty) == (self.data, self.dirty)
        return (held.data, held.cid) == (self.data, self.cid) and held.log.items() <= self.log.items()


def _value(change: ChangeOfLevel) -> Any:
    return None if change.deleted else change.value


@dataclass
class History:
    """What one store was told to write, over all cycles.

    Attributes:
        mode: The mode of the store; NORMAL where only its data count.
        seed: Decides everything.
        durable: See `unit_of`.
        units: How many units it holds.
        now: What it holds.
    """

    mode: Mode
    seed: int
    durable: str
    units: int = 0
    now: Moment = field(default_factory=Moment)

    def settle(self, held: Moment, cycle: int, least: int, begun: int) -> int:
        """Find out how many units a store holds, and go on from there.

        Args:
            held: What it holds.
            cycle: The cycle that has ended.
            least: The units that it must hold.
            begun: The units that were begun.

        Returns:
            How many units it has lost, of those that were begun.

        Raises:
            AssertionError: It holds less, or what it never held at once.
        """
        moment = self.now
        for index in range(self.units, begun + 1):
            if index >= least and moment.may_be(held, self.mode):
                self.units, moment.log = index, held.log
                return begun - index
            moment.write(unit_of(self.seed, cycle, index, self.durable).changes, self.mode)
        raise AssertionError(
            f"in cycle {cycle} nothing that it held from unit {least} to {begun} is what it holds now: "
            f"CID {held.cid}, {len(held.data)} keys"
        )


def check(path: Path, engine: str) -> None:
    """See that a store contradicts itself nowhere.

    Raises:
        AssertionError: It does.
    """
    found = blocking.verify(path, backend=engine)
    assert found.ok, f"{path}: {found.faults}"
