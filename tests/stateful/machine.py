"""A state machine that calls the methods of a store in any order, against a model (T3)."""

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
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from ranges import asked, expected, is_even, keys, options
from stores import ENGINES, SHARED, Stores

from treehub_level import (
    MISSING,
    Change,
    CIDMismatchError,
    ConditionError,
    Delete,
    InvalidKeyError,
    InvalidValueError,
    Mode,
    Put,
    StateError,
)
from treehub_level.blocking import reads as reads_module
from treehub_level.blocking import writes as writes_module

from .loop_adapter import LoopAdapter
from .model import GONE, PREFIX, SUBLEVEL, Model, change_of, encoded, part
from .peer import REASON, Peer
from .watching import Consumer

#: The backends to run the machine with.
BACKENDS: Final = ["memory", *ENGINES, *SHARED]
#: The number of calls in one example.
STEPS: Final = 16
#: The folder of stores on disk. It is in memory if possible: opening a store takes a dozen fsyncs.
_FOLDER: Final = "/dev/shm" if os.path.isdir("/dev/shm") else None


class Variant(NamedTuple):
    """An API, a backend and a mode. (The core is that of the process.)"""

    api: str
    backend: str
    mode: Mode

    def __str__(self) -> str:
        return f"{self.api}-{self.backend}-{self.mode.value}"


VARIANTS: Final = [
    Variant(api, backend, mode) for api in ("async", "blocking") for backend in BACKENDS for mode in Mode
]

#: The number of examples per backend for one on PostgreSQL, where opening a store takes 10 ms.
_WEIGHTS: Final = {"memory": 12, "sqlite": 3, "postgres": 1}
_WEIGHT_ON_LEVELDB: Final = 4


def shares(examples: int) -> list[tuple[Variant, int]]:
    """Distribute examples over the variants: the cheaper an example, the more of them."""
    weights = [_WEIGHTS.get(variant.backend, _WEIGHT_ON_LEVELDB) for variant in VARIANTS]
    return [(variant, -(-examples * weight // sum(weights))) for variant, weight in zip(VARIANTS, weights, strict=True)]


#: A few keys, so that examples use the same key often. `any_keys` adds arbitrary ones.
some_keys = st.sampled_from(
    ["a", "aa", "a\x00", "b", "0", '"', "~", "😀", "\uffff", PREFIX + "a", PREFIX, "sub", "sub0"]
)
any_keys = some_keys | keys
#: Keys that only NORMAL stores allow.
plain_keys = any_keys | st.sampled_from(["", "!", "!1", "!a", "!!store", " ", "\x00"])
values = st.integers(-3, 9) | st.sampled_from(
    [None, True, False, 1.5, "", "x", "😀", [], {}, [1, [None]], {"b": 1, "a": {"c": []}}, "y" * 300, 2**63, -(2**63)]
)
operations = st.lists(st.tuples(any_keys, values | st.just(GONE)), max_size=8)
bounds = options.map(lambda given: {name: given[name] for name in ("lower", "upper", "prefix") if name in given})
#: Prefixes to follow; "!x" begins no key.
prefixes = st.lists(st.sampled_from(["", "a", "aa", "b", PREFIX, "😀", "never", "!x"]), min_size=1, max_size=2)
refused = st.sampled_from([float("nan"), float("inf"), 2**64, -(2**63) - 1, {1: 2}, {"x": {3}}, b"bytes", object()])


class StoreMachine(RuleBasedStateMachine):
    """A store, its sublevel, its open snapshots and iterators, and the model of each.

    Attributes:
        variant: The variant to run.
        stores_of: Creates the stores.
        url: The database for stores on PostgreSQL.
    """

    variant: ClassVar[Variant]
    stores_of: ClassVar[Callable[..., Stores]] = Stores
    url: ClassVar[str] = ""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="treehub-level-machine-", dir=_FOLDER))
        self.loop = asyncio.new_event_loop()
        self.patches = ExitStack()
        for module in (reads_module, writes_module):
            self.patches.enter_context(mock.patch.object(module, "CHUNK", 2))
        self.stores = self.stores_of(self.variant.api, self.variant.backend, self.folder, self.url)
        made = self.stores.level("store", mode=self.variant.mode)
        self.level: Any = LoopAdapter(made, self.loop) if self.variant.api == "async" else made.blocking
        self.level.open()
        self.sub = self.level.sublevel(SUBLEVEL)
        self.model = Model(self.variant.mode)
        self.snapshots: list[tuple[Any, dict[str, Any]]] = []
        self.iterators: list[tuple[Iterator[Any], list[Any]]] = []
        self.consumer = Consumer(self.level)
        #: The origins of the changes that the present call makes.
        self.origins = {"local"}
        #: Those of the calls since the data changed last: what alters nothing may be told late.
        self.earlier_origins = {"local"}
        self.consumed = encoded([])

    @invariant()
    def check_consumer(self) -> None:
        """Check that a consumer of the changes knows the data, and where the changes come from."""
        if hasattr(self, "consumer"):
            wanted = encoded(sorted(self.model.data.items()))
            origins = self.consumer.settle(lambda data: encoded(sorted(data.items())) == wanted)
            assert origins <= {*self.origins, *self.earlier_origins, "initial"}, origins
            kept = self.earlier_origins if wanted == self.consumed else set[str]()
            self.earlier_origins, self.origins, self.consumed = kept | self.origins, {"local"}, wanted

    def teardown(self) -> None:
        if not hasattr(self, "level"):
            return
        try:
            self.check_everything()
        finally:
            self.level.close()
            self.consumer.end()
            self.iterators.clear()
            self.snapshots.clear()
            self.loop.close()
            self.patches.close()
            shutil.rmtree(self.folder)

    # ------------------------------------------------------------------------------------- helpers

    @property
    def can_open_more(self) -> bool:
        """True if one more snapshot or iterator may be open: each takes one of ten connections."""
        return len(self.snapshots) + len(self.iterators) < 8

    def view(self, sublevel: bool) -> Any:
        return self.sub if sublevel else self.level

    def stored(self, key: str, sublevel: bool) -> str | None:
        """Return the stored name of a key; ``None`` if the mode does not allow the key."""
        name = PREFIX + key if sublevel else key
        return name if self.variant.mode is Mode.NORMAL or name >= '"' else None

    def record_writes(self, written: list[tuple[str, Any]], sublevel: bool) -> None:
        for item in self.stored_items(written, sublevel):
            self.model.write(*item)

    def record_batch(self, written: list[tuple[str, Any]], sublevel: bool, together: bool | None = None) -> None:
        self.model.write_batch(self.stored_items(written, sublevel), together=together)

    def stored_items(self, items: list[tuple[str, Any]], sublevel: bool) -> list[tuple[str, Any]]:
        return [(PREFIX + key if sublevel else key, value) for key, value in items]

    def allowed(self, items: list[tuple[str, Any]], sublevel: bool) -> list[tuple[str, Any]]:
        return [item for item in items if self.stored(item[0], sublevel) is not None]

    def assert_same(self, found: Any, wanted: Any) -> None:
        assert encoded(found) == encoded(wanted), f"{found!r} is not {wanted!r}"

    def check_everything(self) -> None:
        self.assert_same(self.level.query(), sorted(self.model.data.items()))
        if self.variant.mode is not Mode.NORMAL:
            assert self.level.cid == self.model.cid
        if self.variant.mode is Mode.SERVER:
            self.assert_same(
                [[change.cid, list(change)] for change in self.level.changes(0, None).changes], self.model.log
            )
        if self.variant.mode is Mode.CLIENT:
            dirty = [change_of(*item) for item in sorted(self.model.dirty.items(), key=lambda item: item[0])]
            self.assert_same([list(change) for change in self.level.dirty(None)], dirty)
            assert self.level.pending() == len(dirty)
            self.assert_same(self.lost(), self.model.lost)
            assert [tuple(item[:2]) for item in self.level.followed()] == sorted(self.model.followed.items())
            assert self.level.live(Peer({}, accepts_even=True)).consistent == self.model.is_consistent

    def lost(self) -> list[tuple[Any, ...]]:
        """Return the journal of a client, as the model has it."""
        return [
            (list(lost.local), list(lost.remote), *([lost.reason] if lost.kind == "refused" else []))
            for lost in self.level.conflicts()
        ]

    def check_reads(self, reader: Any, data: dict[str, Any], query: dict[str, Any]) -> None:
        pairs, even, given = expected(data, query), query.get("even"), asked(query)
        by_pair = given | ({"filter": lambda key, value: is_even(value)} if even else {})
        by_key = given | ({"filter": lambda key: is_even(data[key])} if even else {})
        by_value = given | ({"filter": is_even} if even else {})
        self.assert_same(reader.query(**by_pair), pairs)
        self.assert_same([*reader.scan(**by_pair)], pairs)
        self.assert_same(reader.keys(**by_key), [key for key, _ in pairs])
        self.assert_same(reader.values(**by_value), [value for _, value in pairs])
        assert reader.count(**by_pair) == len(pairs)

    # ------------------------------------------------------------------------------------- writing

    @rule(key=plain_keys, value=values, sublevel=st.booleans(), durable=st.sampled_from([None, False, True]))
    def put(self, key: str, value: Any, sublevel: bool, durable: bool | None) -> None:
        if self.stored(key, sublevel) is None:
            with pytest.raises(InvalidKeyError):
                self.view(sublevel).put(key, value)
        else:
            self.view(sublevel).put(key, value, durable=durable)
            self.record_writes([(key, value)], sublevel)

    @rule(key=plain_keys, sublevel=st.booleans())
    def delete(self, key: str, sublevel: bool) -> None:
        if self.stored(key, sublevel) is None:
            with pytest.raises(InvalidKeyError):
                self.view(sublevel).delete(key)
        else:
            self.view(sublevel).delete(key)
            self.record_writes([(key, GONE)], sublevel)

    @rule(items=operations, sublevel=st.booleans(), together=st.sampled_from([None, False, True]))
    def batch(self, items: list[tuple[str, Any]], sublevel: bool, together: bool | None) -> None:
        items = self.allowed(items, sublevel)
        ops = [Delete(key) if value is GONE else Put(key, value) for key, value in items]
        self.view(sublevel).batch(ops, together=together)
        self.record_batch(items, sublevel, together)

    @rule(items=operations, sublevel=st.booleans(), value=refused, at=st.integers(0, 8))
    def batch_that_is_refused(self, items: list[tuple[str, Any]], sublevel: bool, value: Any, at: int) -> None:
        ops: list[Any] = [
            Delete(key) if value is GONE else Put(key, value) for key, value in self.allowed(items, sublevel)
        ]
        ops.insert(at, Put("k", value))
        with pytest.raises(InvalidValueError):
            self.view(sublevel).batch(ops)

    @rule(items=operations, sublevel=st.booleans(), is_kept=st.booleans())
    def write_batch(self, items: list[tuple[str, Any]], sublevel: bool, is_kept: bool) -> None:
        items = self.allowed(items, sublevel)

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
            self.record_batch(items, sublevel)
        else:
            with pytest.raises(InterruptedError):
                collect()

    @rule(
        items=operations,
        sublevel=st.booleans(),
        together=st.sampled_from([None, False, True]),
        query=options,
        is_kept=st.booleans(),
    )
    def transact(
        self, items: list[tuple[str, Any]], sublevel: bool, together: bool | None, query: dict[str, Any], is_kept: bool
    ) -> None:
        """Write in a transaction, which reads its own writes, and of one key keeps the last."""
        items = self.allowed(items, sublevel)
        data = part(self.model.data, sublevel)
        last: dict[str, Any] = {}
        for key, value in items:
            last.pop(key, None)
            last[key] = value

        def decide(tx: Any) -> str:
            for key, value in items:
                if value is GONE:
                    tx.delete(key)
                    data.pop(key, None)
                else:
                    tx.put(key, value)
                    data[key] = value
            self.check_reads(tx, data, query)
            if not is_kept:
                raise InterruptedError
            return "result"

        if is_kept:
            assert self.view(sublevel).transact(decide, together=together) == "result"
            self.record_batch([*last.items()], sublevel, together)
        else:
            with pytest.raises(InterruptedError):
                self.view(sublevel).transact(decide, together=together)

    @rule(key=any_keys, value=values | st.just(GONE), sublevel=st.booleans())
    def update(self, key: str, value: Any, sublevel: bool) -> None:
        if self.stored(key, sublevel) is None:
            return
        data = part(self.model.data, sublevel)

        def replace(found: Any) -> Any:
            self.assert_same(found, data.get(key))
            return MISSING if value is GONE else value

        result = self.view(sublevel).update(key, replace)
        if value is GONE:
            assert result is MISSING
        else:
            self.assert_same(result, value)
        if value is not GONE or key in data:
            self.record_writes([(key, value)], sublevel)

    @rule(key=any_keys, value=values | st.just(GONE), wanted=values | st.just(GONE), sublevel=st.booleans())
    def write_if(self, key: str, value: Any, wanted: Any, sublevel: bool) -> None:
        if self.stored(key, sublevel) is None:
            return
        view, found = self.view(sublevel), part(self.model.data, sublevel).get(key, GONE)
        holds = found is wanted if found is GONE or wanted is GONE else encoded(found) == encoded(wanted)
        condition = {"if_value": MISSING if wanted is GONE else wanted}
        if wanted is GONE and value is not GONE:
            condition = {"if_absent": True}

        def write() -> None:
            if value is GONE:
                view.delete(key, **condition)
            else:
                view.put(key, value, **condition)

        if holds:
            write()
            self.record_writes([(key, value)], sublevel)
        else:
            with pytest.raises(ConditionError) as caught:
                write()
            assert caught.value.key == key
            if found is GONE:
                assert caught.value.found is MISSING
            else:
                self.assert_same(caught.value.found, found)

    @rule(items=operations, sublevel=st.booleans(), batch_size=st.integers(1, 4))
    def load(self, items: list[tuple[str, Any]], sublevel: bool, batch_size: int) -> None:
        items = [item for item in self.allowed(items, sublevel) if item[1] is not GONE]
        assert self.view(sublevel).load(items, batch_size=batch_size) == len(items)
        self.record_writes(items, sublevel)

    @rule(given=bounds, sublevel=st.booleans())
    def clear(self, given: dict[str, Any], sublevel: bool) -> None:
        doomed = [key for key, _ in expected(part(self.model.data, sublevel), given)]
        assert self.view(sublevel).clear(**asked(given)) == len(doomed)
        self.record_writes([(key, GONE) for key in doomed], sublevel)

    # ------------------------------------------------------------------------------------- reading

    @rule(wanted=st.lists(any_keys, max_size=5), sublevel=st.booleans())
    def get(self, wanted: list[str], sublevel: bool) -> None:
        wanted = [key for key in wanted if self.stored(key, sublevel) is not None]
        view, data = self.view(sublevel), part(self.model.data, sublevel)
        for key in wanted:
            self.assert_same(view.get(key, "default"), data.get(key, "default"))
            assert view.has(key) == (key in data)
        self.assert_same(view.get_many(wanted, "default"), [data.get(key, "default") for key in wanted])

    @rule(query=options, sublevel=st.booleans())
    def read(self, query: dict[str, Any], sublevel: bool) -> None:
        self.check_reads(self.view(sublevel), part(self.model.data, sublevel), query)

    @precondition(lambda self: self.can_open_more)
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

    @precondition(lambda self: self.can_open_more)
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
        self.assert_same([*islice(iterator, count)], left[:count])
        del left[:count]

    @precondition(lambda self: self.can_open_more)
    @rule(query=options, items=operations, sublevel=st.booleans(), count=st.integers(1, 4))
    def write_during_iteration(
        self, query: dict[str, Any], items: list[tuple[str, Any]], sublevel: bool, count: int
    ) -> None:
        """Check that an open iterator does not see later writes."""
        self.open_iterator(query, sublevel, count)
        self.batch(items, sublevel, None)
        self.step_iterator(-1, 1000)

    @rule()
    def reopen(self) -> None:
        """Close and open the store. This ends its iterators and snapshots."""
        self.level.close()
        self.consumer.end()
        self.level.open()
        self.consumer = Consumer(self.level)
        self.sub = self.level.sublevel(SUBLEVEL)
        self.iterators.clear()
        self.snapshots.clear()
        self.check_everything()

    @rule()
    def compact_range(self) -> None:
        self.level.compact_range()


class ServerMachine(StoreMachine):
    """The machine of a server, with its additional methods."""

    @rule(back=st.integers(0, 9), limit=st.none() | st.integers(0, 5))
    def changes(self, back: int, limit: int | None) -> None:
        since = max(0, self.model.cid - back)
        page = self.level.changes(since, limit)
        shown, goes_on = self.model.page(since, limit)
        self.assert_same([[change.cid, list(change)] for change in page.changes], shown)
        assert page.cid == (shown[-1][0] if shown else since)
        assert page.has_more == goes_on

    @rule(items=operations, is_late=st.booleans())
    def change(self, items: list[tuple[str, Any]], is_late: bool) -> None:
        changes = dict(self.allowed(items, False))
        pushed = [change_of(*item) for item in changes.items()]
        if is_late:
            with pytest.raises(CIDMismatchError):
                self.level.change(self.model.cid + 1, pushed)
        else:
            assert self.level.change(self.model.cid, pushed) == self.model.cid + len(pushed)
            self.record_batch([*changes.items()], False)

    @rule()
    def compact_log(self) -> None:
        assert self.level.compact_log() == self.model.compact()


class ClientMachine(StoreMachine):
    """The machine of a client, with its additional methods."""

    @rule(items=operations, ahead=st.integers(-1, 3))
    def apply(self, items: list[tuple[str, Any]], ahead: int) -> None:
        items, cid = self.allowed(items, False), self.model.cid + ahead
        page = [Change.deletion(key) if value is GONE else Change(key, value) for key, value in items]
        if ahead < 0:
            with pytest.raises(CIDMismatchError):
                self.level.apply(cid, page)
        elif ahead > 0 and not self.model.may_move:
            with pytest.raises(StateError, match="a fill of sync"):
                self.level.apply(cid, page)
        elif ahead > 0:
            self.origins = {"remote"}
            assert self.level.apply(cid, page) == cid
            self.model.apply(cid, items)

    @rule(limit=st.integers(0, 4), ahead=st.integers(0, 3), rewritten=st.none() | values)
    def clean(self, limit: int, ahead: int, rewritten: Any) -> None:
        """Run a manual push. A write between dirty() and clean() stays dirty."""
        pushed = self.level.dirty(limit)
        first = sorted(self.model.dirty.items(), key=lambda item: item[0])[:limit]
        self.assert_same([list(change) for change in pushed], [change_of(*item) for item in first])
        cleaned = [key for key, _ in first]
        if rewritten is not None and first:
            key, before = first[0]
            self.level.put(key, rewritten)
            self.model.write(key, rewritten)
            if encoded(change_of(key, before)) != encoded(change_of(key, rewritten)):
                cleaned.remove(key)
        cid = self.model.cid + (ahead if self.model.may_move else 0)
        assert self.level.clean(cid, pushed) == cid
        self.model.clean(cid, cleaned)

    @rule(added=prefixes)
    def follow(self, added: list[str]) -> None:
        if "!x" in added:
            with pytest.raises(InvalidKeyError):
                self.level.follow(*added)
            return
        self.level.follow(*added)
        for prefix in added:
            self.model.follow(prefix)

    @rule(removed=prefixes.filter(lambda removed: "!x" not in removed))
    def unfollow(self, removed: list[str]) -> None:
        self.origins = {"remote"}
        self.level.unfollow(*removed)
        for prefix in removed:
            self.model.unfollow(prefix)

    @rule(accepts_even=st.booleans())
    def sync(self, accepts_even: bool) -> None:
        """Synchronise with a server that refuses some groups, and check that all arrive whole."""
        clean = {key: value for key, value in self.model.data.items() if key not in self.model.dirty}
        peer = Peer(clean, accepts_even=accepts_even)
        groups = self.model.dirty_groups()
        pushed = [[change_of(key, self.model.dirty[key]) for key in group] for group in groups]
        self.origins = {"remote"}
        report = self.level.sync(peer)
        self.assert_same(sorted(peer.groups), pushed)
        refused = [group for group in groups if not peer.accepts(group[0])]
        lost = self.model.sync(refused, REASON)
        assert sorted(report.refused) == sorted(key for group in refused for key in group)
        assert (report.pushed, report.cid, report.consistent) == (
            sum(map(len, groups)) - len(report.refused),
            self.model.cid,
            True,
        )
        found = self.lost()[len(self.model.lost) :]
        self.assert_same(sorted(found, key=lambda item: item[1]), sorted(lost, key=lambda item: item[1]))
        self.model.lost += found


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
    """Run examples of one variant.

    Args:
        variant: The variant to run.
        examples: The number of examples.
        with_seed: The random seed of the examples; ``None`` lets Hypothesis choose.
        stores_of: Creates the stores.
        shrink: True to search for a minimal failing example.
        url: The database for stores on PostgreSQL.

    Raises:
        AssertionError: The store and its model differ. Hypothesis has printed a minimal example.
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
