"""A store under every verb in any order, against the model (T3)."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from ranges import asked, expected, is_even, keys, options
from stores import ENGINES, SHARED, Stores

from treehub_level import Change, CIDMismatchError, Delete, InvalidKeyError, InvalidValueError, Mode, Put
from treehub_level.blocking import client as _syncing
from treehub_level.blocking import reads as _reading
from treehub_level.blocking import writes as _writing

from .driven import Driven
from .model import GONE, PREFIX, SUBLEVEL, Model, change_of, encoded, part

#: Whatever `Stores` makes stores of, and a machine is to be run over.
BACKENDS: Final = ["memory", *ENGINES, *SHARED]
#: Calls in one example.
STEPS: Final = 16
#: Where stores on disk go: opening one is a dozen fsyncs, and what they cost is no matter here.
_FOLDER: Final = "/dev/shm" if os.path.isdir("/dev/shm") else None


class Variant(NamedTuple):
    """What a machine is run over. (The core is that of the process.)"""

    api: str
    backend: str
    mode: Mode

    def __str__(self) -> str:
        return f"{self.api}-{self.backend}-{self.mode.value}"


VARIANTS: Final = [
    Variant(api, backend, mode) for api in ("async", "blocking") for backend in BACKENDS for mode in Mode
]

#: How many examples are run over each backend for one over PostgreSQL, where opening a store alone takes 10 ms.
_WEIGHTS: Final = {"memory": 12, "sqlite": 3, "postgres": 1}
_WEIGHT_ON_LEVELDB: Final = 4


def shares(examples: int) -> list[tuple[Variant, int]]:
    """So many examples shared among the variants: the less an example costs, the more there are."""
    weights = [_WEIGHTS.get(variant.backend, _WEIGHT_ON_LEVELDB) for variant in VARIANTS]
    return [(variant, -(-examples * weight // sum(weights))) for variant, weight in zip(VARIANTS, weights, strict=True)]


#: Few keys, so that they meet again, and some that were never thought of.
some_keys = st.sampled_from(
    ["a", "aa", "a\x00", "b", "0", '"', "~", "😀", "\uffff", PREFIX + "a", PREFIX, "sub", "sub0"]
)
any_keys = some_keys | keys
#: What only a plain store holds.
plain_keys = any_keys | st.sampled_from(["", "!", "!1", "!a", "!!store", " ", "\x00"])
values = st.integers(-3, 9) | st.sampled_from(
    [None, True, False, 1.5, "", "x", "😀", [], {}, [1, [None]], {"b": 1, "a": {"c": []}}, "y" * 300, 2**63, -(2**63)]
)
operations = st.lists(st.tuples(any_keys, values | st.just(GONE)), max_size=8)
bounds = options.map(lambda given: {name: given[name] for name in ("lower", "upper", "prefix") if name in given})
refused = st.sampled_from([float("nan"), float("inf"), 2**64, -(2**63) - 1, {1: 2}, {"x": {3}}, b"bytes", object()])


class StoreMachine(RuleBasedStateMachine):
    """A store, its sublevel, its open snapshots and iterators, and the model of each.

    Attributes:
        variant: What it is run over.
        stores_of: Makes the stores.
        url: The database where stores of PostgreSQL go.
    """

    variant: ClassVar[Variant]
    stores_of: ClassVar[Callable[..., Stores]] = Stores
    url: ClassVar[str] = ""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="treehub-level-machine-", dir=_FOLDER))
        self.loop = asyncio.new_event_loop()
        self.patches = ExitStack()
        for module in (_reading, _syncing, _writing):
            self.patches.enter_context(mock.patch.object(module, "CHUNK", 2))
        self.stores = self.stores_of(self.variant.api, self.variant.backend, self.folder, self.url)
        made = self.stores.level("store", mode=self.variant.mode)
        self.level: Any = Driven(made, self.loop) if self.variant.api == "async" else made.blocking
        self.level.open()
        self.sub = self.level.sublevel(SUBLEVEL)
        self.model = Model(self.variant.mode)
        self.snapshots: list[tuple[Any, dict[str, Any]]] = []
        self.iterators: list[tuple[Iterator[Any], list[Any]]] = []

    def teardown(self) -> None:
        if not hasattr(self, "level"):
            return
        try:
            self.check_everything()
        finally:
            self.iterators.clear()
            self.snapshots.clear()
            self.level.close()
            self.loop.close()
            self.patches.close()
            shutil.rmtree(self.folder)

    # ------------------------------------------------------------------------------------------ helpers

    @property
    def has_room(self) -> bool:
        """Whether one more may be open: over PostgreSQL each takes a connection, of which there are ten."""
        return len(self.snapshots) + len(self.iterators) < 8

    def view(self, sublevel: bool) -> Any:
        return self.sub if sublevel else self.level

    def stored(self, key: str, sublevel: bool) -> str | None:
        """The key as the store names it; ``None`` if this mode cannot hold it."""
        name = PREFIX + key if sublevel else key
        return name if self.variant.mode is Mode.NORMAL or name >= '"' else None

    def wrote(self, written: list[tuple[str, Any]], sublevel: bool) -> None:
        for key, value in written:
            self.model.write(PREFIX + key if sublevel else key, value)

    def legal(self, items: list[tuple[str, Any]], sublevel: bool) -> list[tuple[str, Any]]:
        return [item for item in items if self.stored(item[0], sublevel) is not None]

    def same(self, found: Any, wanted: Any) -> None:
        assert encoded(found) == encoded(wanted), f"{found!r} is not {wanted!r}"

    def check_everything(self) -> None:
        self.same(self.level.query(), sorted(self.model.data.items()))
        if self.variant.mode is not Mode.NORMAL:
            assert self.level.cid == self.model.cid
        if self.variant.mode is Mode.SERVER:
            self.same([[change.cid, list(change)] for change in self.level.changes(0, None).changes], self.model.log)
        if self.variant.mode is Mode.CLIENT:
            dirty = [change_of(*item) for item in sorted(self.model.dirty.items(), key=lambda item: item[0])]
            self.same([list(change) for change in self.level.dirty(None)], dirty)
            assert self.level.pending() == len(dirty)
            lost = [(list(conflict.local), list(conflict.remote)) for conflict in self.level.conflicts()]
            self.same(lost, self.model.lost)

    def check_reads(self, reader: Any, data: dict[str, Any], query: dict[str, Any]) -> None:
        pairs, even, given = expected(data, query), query.get("even"), asked(query)
        by_pair = given | ({"filter": lambda key, value: is_even(value)} if even else {})
        by_key = given | ({"filter": lambda key: is_even(data[key])} if even else {})
        by_value = given | ({"filter": is_even} if even else {})
        self.same(reader.query(**by_pair), pairs)
        self.same([*reader.scan(**by_pair)], pairs)
        self.same(reader.keys(**by_key), [key for key, _ in pairs])
        self.same(reader.values(**by_value), [value for _, value in pairs])
        assert reader.count(**by_pair) == len(pairs)

    # ------------------------------------------------------------------------------------------ writing

    @rule(key=plain_keys, value=values, sublevel=st.booleans(), durable=st.sampled_from([None, False, True]))
    def put(self, key: str, value: Any, sublevel: bool, durable: bool | None) -> None:
        if self.stored(key, sublevel) is None:
            with pytest.raises(InvalidKeyError):
                self.view(sublevel).put(key, value)
        else:
            self.view(sublevel).put(key, value, durable=durable)
            self.wrote([(key, value)], sublevel)

    @rule(key=plain_keys, sublevel=st.booleans())
    def delete(self, key: str, sublevel: bool) -> None:
        if self.stored(key, sublevel) is None:
            with pytest.raises(InvalidKeyError):
                self.view(sublevel).delete(key)
        else:
            self.view(sublevel).delete(key)
            self.wrote([(key, GONE)], sublevel)

    @rule(items=operations, sublevel=st.booleans())
    def batch(self, items: list[tuple[str, Any]], sublevel: bool) -> None:
        items = self.legal(items, sublevel)
        self.view(sublevel).batch([Delete(key) if value is GONE else Put(key, value) for key, value in items])
        self.wrote(items, sublevel)

    @rule(items=operations, sublevel=st.booleans(), value=refused, at=st.integers(0, 8))
    def batch_that_is_refused(self, items: list[tuple[str, Any]], sublevel: bool, value: Any, at: int) -> None:
        ops: list[Any] = [
            Delete(key) if value is GONE else Put(key, value) for key, value in self.legal(items, sublevel)
        ]
        ops.insert(at, Put("k", value))
        with pytest.raises(InvalidValueError):
            self.view(sublevel).batch(ops)

    @rule(items=operations, sublevel=st.booleans(), is_kept=st.booleans())
    def write_batch(self, items: list[tuple[str, Any]], sublevel: bool, is_kept: bool) -> None:
        items = self.legal(items, sublevel)

        def collect() -> None:
            with self.view(sublevel).write_batch() as batch:
                for key, value in items:
                    if value is GONE:
                        batch.delete(key)
                    else:
                        batch.put(key, value)
                if not is_kept:
                    raise InterruptedError

        if is_kept:
            collect()
            self.wrote(items, sublevel)
        else:
            with pytest.raises(InterruptedError):
                collect()

    @rule(items=operations, sublevel=st.booleans(), batch_size=st.integers(1, 4))
    def load(self, items: list[tuple[str, Any]], sublevel: bool, batch_size: int) -> None:
        items = [item for item in self.legal(items, sublevel) if item[1] is not GONE]
        assert self.view(sublevel).load(items, batch_size=batch_size) == len(items)
        self.wrote(items, sublevel)

    @rule(given=bounds, sublevel=st.booleans())
    def clear(self, given: dict[str, Any], sublevel: bool) -> None:
        doomed = [key for key, _ in expected(part(self.model.data, sublevel), given)]
        assert self.view(sublevel).clear(**asked(given)) == len(doomed)
        self.wrote([(key, GONE) for key in doomed], sublevel)

    # ------------------------------------------------------------------------------------------ reading

    @rule(wanted=st.lists(any_keys, max_size=5), sublevel=st.booleans())
    def get(self, wanted: list[str], sublevel: bool) -> None:
        wanted = [key for key in wanted if self.stored(key, sublevel) is not None]
        view, data = self.view(sublevel), part(self.model.data, sublevel)
        for key in wanted:
            self.same(view.get(key, "default"), data.get(key, "default"))
            assert view.has(key) == (key in data)
        self.same(view.get_many(wanted, "default"), [data.get(key, "default") for key in wanted])

    @rule(query=options, sublevel=st.booleans())
    def read(self, query: dict[str, Any], sublevel: bool) -> None:
        self.check_reads(self.view(sublevel), part(self.model.data, sublevel), query)

    @precondition(lambda self: self.has_room)
    @rule(sublevel=st.booleans())
    def open_snapshot(self, sublevel: bool) -> None:
        self.snapshots.append((self.view(sublevel).snapshot(), part(self.model.data, sublevel)))

    @precondition(lambda self: self.snapshots)
    @rule(query=options, which=st.integers(0, 9), is_last=st.booleans())
    def read_snapshot(self, query: dict[str, Any], which: int, is_last: bool) -> None:
        snapshot, data = self.snapshots[which % len(self.snapshots)]
        self.check_reads(snapshot, data, query)
        if is_last:
            snapshot.close()
            del self.snapshots[which % len(self.snapshots)]

    @precondition(lambda self: self.has_room)
    @rule(query=options, sublevel=st.booleans(), count=st.integers(1, 4))
    def open_iterator(self, query: dict[str, Any], sublevel: bool, count: int) -> None:
        filtered = {"filter": lambda key, value: is_even(value)} if query.get("even") else {}
        iterator = iter(self.view(sublevel).scan(**asked(query), **filtered))
        self.iterators.append((iterator, expected(part(self.model.data, sublevel), query)))
        self.step_iterator(-1, count)

    @precondition(lambda self: self.iterators)
    @rule(which=st.integers(0, 9), count=st.integers(1, 4))
    def step_iterator(self, which: int, count: int) -> None:
        iterator, left = self.iterators[which % len(self.iterators)]
        self.same([*islice(iterator, count)], left[:count])
        del left[:count]

    @precondition(lambda self: self.has_room)
    @rule(query=options, items=operations, sublevel=st.booleans(), count=st.integers(1, 4))
    def write_below_iterator(
        self, query: dict[str, Any], items: list[tuple[str, Any]], sublevel: bool, count: int
    ) -> None:
        """What is written while an iterator is open is none of its business."""
        self.open_iterator(query, sublevel, count)
        self.batch(items, sublevel)
        self.step_iterator(-1, 1000)

    @rule()
    def reopen(self) -> None:
        """Iterators and snapshots end with the opening."""
        self.level.close()
        self.level.open()
        self.sub = self.level.sublevel(SUBLEVEL)
        self.iterators.clear()
        self.snapshots.clear()
        self.check_everything()

    @rule()
    def compact_range(self) -> None:
        self.level.compact_range()


class ServerMachine(StoreMachine):
    """And the verbs of a server."""

    @rule(back=st.integers(0, 9), limit=st.none() | st.integers(0, 5))
    def changes(self, back: int, limit: int | None) -> None:
        since = max(0, self.model.cid - back)
        behind = [record for record in self.model.log if record[0] > since]
        page = self.level.changes(since, limit)
        shown = behind[:limit]
        self.same([[change.cid, list(change)] for change in page.changes], shown)
        assert page.cid == (shown[-1][0] if shown else since)
        assert page.has_more == (len(shown) < len(behind))

    @rule(items=operations, is_late=st.booleans())
    def change(self, items: list[tuple[str, Any]], is_late: bool) -> None:
        changes = dict(self.legal(items, False))
        pushed = [change_of(*item) for item in changes.items()]
        if is_late:
            with pytest.raises(CIDMismatchError):
                self.level.change(self.model.cid + 1, pushed)
        else:
            assert self.level.change(self.model.cid, pushed) == self.model.cid + len(pushed)
            self.wrote([*changes.items()], False)

    @rule()
    def compact_log(self) -> None:
        assert self.level.compact_log() == self.model.compact()


class ClientMachine(StoreMachine):
    """And the verbs of a client."""

    @rule(items=operations, ahead=st.integers(-1, 3))
    def apply(self, items: list[tuple[str, Any]], ahead: int) -> None:
        items, cid = self.legal(items, False), self.model.cid + ahead
        page = [Change.deletion(key) if value is GONE else Change(key, value) for key, value in items]
        if ahead < 0:
            with pytest.raises(CIDMismatchError):
                self.level.apply(cid, page)
        elif ahead > 0:
            assert self.level.apply(cid, page) == cid
            self.model.apply(cid, items)

    @rule(limit=st.integers(0, 4), ahead=st.integers(0, 3), rewritten=st.none() | values)
    def clean(self, limit: int, ahead: int, rewritten: Any) -> None:
        """The seed's push. What is written between dirty() and clean() stays dirty."""
        pushed = self.level.dirty(limit)
        first = sorted(self.model.dirty.items(), key=lambda item: item[0])[:limit]
        self.same([list(change) for change in pushed], [change_of(*item) for item in first])
        cleaned = [key for key, _ in first]
        if rewritten is not None and first:
            key, before = first[0]
            self.level.put(key, rewritten)
            self.model.write(key, rewritten)
            if encoded(change_of(key, before)) != encoded(change_of(key, rewritten)):
                cleaned.remove(key)
        cid = self.model.cid + ahead
        assert self.level.clean(cid, pushed) == cid
        self.model.clean(cid, cleaned)


MACHINES: Final[dict[Mode, type[StoreMachine]]] = {
    Mode.NORMAL: StoreMachine,
    Mode.SERVER: ServerMachine,
    Mode.CLIENT: ClientMachine,
}


def run(
    variant: Variant,
    examples: int,
    *,
    with_seed: int | None = None,
    stores_of: Callable[..., Stores] = Stores,
    shrink: bool = True,
    url: str = "",
) -> None:
    """Run examples over one variant.

    Args:
        variant: What to run them over.
        examples: How many.
        with_seed: Decides what they are; ``None`` leaves that to Hypothesis.
        stores_of: Makes the stores.
        shrink: Whether to look for the shortest way to a difference.
        url: The database where stores of PostgreSQL go.

    Raises:
        AssertionError: The store and its model differ: Hypothesis has printed the shortest way there.
    """
    members = {"variant": variant, "stores_of": staticmethod(stores_of), "url": url}
    machine: Any = type(f"Machine_{variant}".replace("-", "_"), (MACHINES[variant.mode],), members)
    if with_seed is not None:
        machine = seed(with_seed)(machine)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=[phase for phase in Phase if shrink or phase is not Phase.shrink],
            suppress_health_check=[*HealthCheck],
        ),
    )
