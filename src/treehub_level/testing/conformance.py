"""The contract of `treehub_level.backends.base` as a test suite for pytest.

Subclass `BackendConformance` in a test module, and pytest runs every test of it on your backend::

    class TestMyBackend(BackendConformance):
        @pytest.fixture
        def backend_factory(self, tmp_path):
            return lambda: MyBackend(str(tmp_path / "store"))

        @pytest.fixture
        def unusable(self):
            return MyBackend("/dev/null/store")

A test of an optional feature is skipped unless the backend claims that feature in ``supports``.
Several tests use concurrent readers and writers. The suite takes a few seconds.
"""

# ruff: noqa: D102  # a test is described by its name

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from ..backends.base import Backend, Batch, Entry, Reader, Row, Supports, bounded_fetcher
from ..blocking import Level, LevelTransaction
from ..errors import InvalidKeyError, LockedError, NotOpenError, StorageError
from ..types import Mode
from .shared_stores import BackendFactory, SharedStores
from .support import (
    EDGES,
    FailingBatch,
    apply_batch,
    assert_not_open,
    closing,
    count_concurrently,
    increment_concurrently,
    keys,
    model_rows,
    random_batch,
    random_bound,
    rows,
    write,
)

__all__ = ["BackendConformance", "BackendFactory"]


class BackendConformance(SharedStores):
    """The conformance suite. The module's docstring shows a subclass.

    A subclass overrides these fixtures:

    * ``backend_factory`` returns a `BackendFactory`. Each test needs new, empty stores.
    * ``unusable`` returns a backend whose ``open()`` must raise ``StorageError`` because of its
      name: a path that cannot exist, or one without access. Do not override it if the backend
      accepts every name.
    """

    @pytest.fixture
    def backend_factory(self) -> BackendFactory:
        """Return the `BackendFactory` of the backend to test: subclasses must override this."""
        raise NotImplementedError("define the fixture backend_factory in your subclass of BackendConformance")

    @pytest.fixture
    def unusable(self) -> Backend | None:
        """Return a backend whose ``open()`` must fail, or ``None`` if there is no such name."""
        return None

    @pytest.fixture
    def backend(self, backend_factory: BackendFactory) -> Iterator[Backend]:
        """Yield an open, empty backend."""
        backend = backend_factory()
        backend.open()
        yield backend
        backend.close()

    # ----------------------------------------------------------------------------------- life cycle

    def test_supports_is_declared(self, backend_factory: BackendFactory) -> None:
        assert isinstance(backend_factory().supports, Supports)

    def test_reads_and_writes_before_open_raise_not_open_error(self, backend_factory: BackendFactory) -> None:
        assert_not_open(backend_factory())

    def test_reads_and_writes_after_close_raise_not_open_error(self, backend_factory: BackendFactory) -> None:
        backend = backend_factory()
        backend.open()
        backend.close()
        assert_not_open(backend)

    def test_a_guarded_get_during_close_returns_the_value_or_raises(self, backend_factory: BackendFactory) -> None:
        backend = backend_factory()
        if not backend.supports.guarded_get:
            pytest.skip("the backend does not claim guarded_get: the engine never runs get() during close()")

        def read_until_refused() -> None:
            with suppress(NotOpenError):
                while backend.get(b"k") == b"v":
                    pass
                raise AssertionError("get() returned another value")

        for _ in range(10):
            backend.open()
            write(backend, [(b"k", b"v")])
            with ThreadPoolExecutor(3) as pool:
                readers = [pool.submit(read_until_refused) for _ in range(3)]
                backend.close()
                for reader in readers:
                    reader.result(self.patience)

    def test_closing_a_backend_that_is_not_open_does_nothing(self, backend_factory: BackendFactory) -> None:
        backend = backend_factory()
        backend.close()
        backend.open()
        backend.close()
        backend.close()

    def test_opening_twice_raises_and_leaves_the_backend_open(self, backend: Backend) -> None:
        write(backend, [(b"k", b"v")])
        with pytest.raises(LockedError):
            backend.open()
        assert backend.get(b"k") == b"v"

    def test_a_reopened_backend_still_has_its_data(self, backend_factory: BackendFactory) -> None:
        backend = backend_factory()
        for generation in range(3):
            backend.open()
            assert backend.get(b"generation") == (str(generation - 1).encode() if generation else None)
            write(backend, [(b"generation", str(generation).encode())])
            backend.close()

    def test_another_backend_of_the_same_store_finds_its_data(self, backend_factory: BackendFactory) -> None:
        first = backend_factory()
        if not first.supports.persistent:
            pytest.skip("the backend does not claim to be persistent")
        first.open()
        write(first, [(b"durable", b"1")], durable=True)
        write(first, [(b"plain", b"2")])
        first.close()
        second = backend_factory()
        second.open()
        assert rows(second) == [(b"durable", b"1"), (b"plain", b"2")]
        second.close()

    def test_a_store_can_be_open_in_only_one_backend(self, backend: Backend, backend_factory: BackendFactory) -> None:
        second = backend_factory()
        if not second.supports.persistent or second.supports.shared:
            pytest.skip("the backend does not claim to be persistent, or claims to be shared")
        with pytest.raises(LockedError):
            second.open()
        second.close()
        write(backend, [(b"k", b"v")])
        assert backend.get(b"k") == b"v"

    def test_an_unusable_name_raises_a_storage_error_that_contains_it(self, unusable: Backend | None) -> None:
        if unusable is None:
            pytest.skip("the fixture `unusable` is not overridden: the backend accepts every name")
        with pytest.raises(StorageError) as caught:
            unusable.open()
        assert unusable.name in str(caught.value)
        assert_not_open(unusable)

    # -------------------------------------------------------------------------------- single values

    def test_an_absent_key_is_none_and_an_empty_value_is_empty(self, backend: Backend) -> None:
        write(backend, [(b"empty", b"")])
        assert backend.get(b"empty") == b""
        assert backend.get(b"absent") is None
        assert backend.get(b"") is None

    @pytest.mark.parametrize("size", [0, 1, 255, 65_536, 300_000], ids="{}-bytes".format)
    def test_keys_of_any_length_are_stored(self, backend: Backend, size: int) -> None:
        longest = backend.supports.max_key_bytes
        if longest is not None and size >= longest:
            pytest.skip(f"the backend claims keys of at most {longest} bytes")
        key, neighbour = b"k" * size, b"k" * size + b"\0"
        write(backend, [(key, b"1"), (neighbour, b"2")])
        assert (backend.get(key), backend.get(neighbour)) == (b"1", b"2")
        assert rows(backend) == [(key, b"1"), (neighbour, b"2")]

    def test_a_key_longer_than_max_key_bytes_is_refused_and_absent(self, backend: Backend) -> None:
        longest = backend.supports.max_key_bytes
        if longest is None:
            pytest.skip("the backend claims keys of any length")
        longest_key, too_long, next_key = b"k" * longest, b"k" * (longest + 1), b"k" * (longest - 1) + b"l"
        write(backend, [(longest_key, b"1"), (next_key, b"2")])
        with pytest.raises(InvalidKeyError):
            write(backend, [(b"a", b"3"), (too_long, b"4")])
        assert rows(backend) == [(longest_key, b"1"), (next_key, b"2")]
        assert (backend.get(too_long), backend.get_many([too_long, longest_key])) == (None, [None, b"1"])
        for reverse in (False, True):
            assert rows(backend, too_long, None, reverse=reverse) == [(next_key, b"2")]
            assert rows(backend, None, too_long, reverse=reverse) == [(longest_key, b"1")]

    def test_keys_and_values_may_contain_every_byte(self, backend: Backend) -> None:
        written = [(bytes([byte]) + b"-key", bytes(range(byte, -1, -1)) * 3) for byte in range(256)]
        write(backend, written)
        assert rows(backend) == written
        assert backend.get_many([key for key, _ in written]) == [value for _, value in written]

    def test_large_values_are_stored(self, backend: Backend) -> None:
        value = random.Random(1).randbytes(5_000_000)
        write(backend, [(b"large", value), (b"small", b"s")])
        assert backend.get(b"large") == value
        assert rows(backend) == [(b"large", value), (b"small", b"s")]

    def test_get_many_returns_values_in_the_order_of_the_keys(self, backend: Backend) -> None:
        write(backend, [(b"a", b"1"), (b"b", b""), (b"c", b"3")])
        wanted = [b"c", b"absent", b"a", b"c", b"b", b""]
        expected = [b"3", None, b"1", b"3", b"", None]
        assert backend.get_many(wanted) == expected
        assert backend.get_many([]) == []
        with closing(backend.snapshot()) as snapshot:
            assert snapshot.get_many(wanted) == expected
            assert snapshot.get_many([]) == []

    # -------------------------------------------------------------------------------------- batches

    @pytest.mark.parametrize(
        ("batch", "expected"),
        [
            ([(b"k", b"1"), (b"k", b"2")], b"2"),
            ([(b"k", b"1"), (b"k", None)], None),
            ([(b"k", None), (b"k", b"2")], b"2"),
            ([(b"k", b"1"), (b"k", None), (b"k", b"3")], b"3"),
        ],
        ids=["put-put", "put-delete", "delete-put", "put-delete-put"],
    )
    @pytest.mark.parametrize("before", [None, b"0"], ids=["absent", "present"])
    def test_the_last_entry_of_a_key_wins(
        self, backend: Backend, before: bytes | None, batch: Batch, expected: bytes | None
    ) -> None:
        write(backend, [(b"k", before)])
        write(backend, batch)
        assert backend.get(b"k") == expected
        assert rows(backend) == ([(b"k", expected)] if expected is not None else [])

    def test_deleting_an_absent_key_is_no_error(self, backend: Backend) -> None:
        write(backend, [(b"absent", None), (b"k", b"v")])
        write(backend, [(b"k", None), (b"absent", None)])
        assert rows(backend) == []

    def test_an_empty_batch_changes_nothing(self, backend: Backend) -> None:
        write(backend, [(b"k", b"v")])
        write(backend, [])
        assert rows(backend) == [(b"k", b"v")]

    def test_a_batch_that_fails_half_way_writes_nothing(self, backend: Backend) -> None:
        write(backend, [(b"k000", b"old"), (b"k001", b"old")])
        entries: list[Entry] = [(b"k%03d" % number, None if number == 1 else b"new") for number in range(500)]
        with pytest.raises(ArithmeticError):
            write(backend, FailingBatch(entries))
        assert rows(backend) == [(b"k000", b"old"), (b"k001", b"old")]
        write(backend, [(b"after", b"1")])
        assert backend.get(b"after") == b"1"

    def test_a_batch_is_neither_modified_nor_kept(self, backend: Backend) -> None:
        batch: list[Entry] = [(b"b", b"1"), (b"a", None), (b"b", b"2")]
        original = list(batch)
        write(backend, batch)
        assert batch == original
        batch.clear()
        assert rows(backend) == [(b"b", b"2")]

    # --------------------------------------------------------------------------------------- ranges

    def test_a_scan_returns_the_rows_of_its_range_in_order(self, backend: Backend) -> None:
        rng = random.Random(20240607)
        model: dict[bytes, bytes] = {}
        for _ in range(12):
            batch = random_batch(rng)
            write(backend, batch)
            apply_batch(model, batch)
            with backend.exclusive() as transaction, closing(backend.snapshot()) as snapshot:
                readers: list[Reader] = [backend, snapshot, transaction]
                for _ in range(20):
                    start, stop = random_bound(rng), random_bound(rng)
                    reverse, chunk = rng.random() < 0.5, rng.choice([1, 2, 3, 7, 1000])
                    expected = model_rows(model, start, stop, reverse=reverse)
                    for reader in readers:
                        where = f"{type(reader).__name__}.scan({start!r}, {stop!r}, reverse={reverse}) by {chunk}"
                        assert rows(reader, start, stop, reverse=reverse, chunk=chunk) == expected, where
                        found = keys(reader, start, stop, reverse=reverse, chunk=chunk)
                        assert found == [key for key, _ in expected], where

    @pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
    @pytest.mark.parametrize("start", [None, *EDGES], ids=repr)
    def test_every_bound_is_exact(self, backend: Backend, start: bytes | None, reverse: bool) -> None:
        model = {key: key + b"!" for key in EDGES}
        write(backend, list(model.items()))
        for stop in [None, *EDGES]:
            found = rows(backend, start, stop, reverse=reverse)
            assert found == model_rows(model, start, stop, reverse=reverse), f"up to {stop!r}"

    @pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
    def test_a_range_of_one_key_contains_that_key(self, backend: Backend, reverse: bool) -> None:
        for key in EDGES:
            write(backend, [(key, b"v")])
            assert rows(backend, key, key + b"\0", reverse=reverse) == [(key, b"v")]
            assert rows(backend, key, None, reverse=reverse) == [(key, b"v")]
            assert keys(backend, None, key + b"\0", reverse=reverse) == [key]
            write(backend, [(key, None)])

    @pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
    def test_a_fetch_returns_at_most_limit_rows(self, backend: Backend, reverse: bool) -> None:
        written = [(b"%03d" % number, b"v") for number in range(10)]
        write(backend, written)
        expected = written[::-1] if reverse else written
        with closing(backend.scan(None, None, reverse=reverse)) as cursor:
            assert cursor.fetch(4) == expected[:4]
            assert cursor.fetch(1) == expected[4:5]
            assert cursor.fetch(1000) == expected[5:]
            assert cursor.fetch(1000) == []

    @pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
    def test_a_bounded_fetch_ends_with_the_row_that_reaches_the_bound(self, backend: Backend, reverse: bool) -> None:
        sizes = [0, 10, 2000, 10, 10, 990, 10, 1000, 1001, 5]
        written = [(b"%03d" % number, b"v" * size) for number, size in enumerate(sizes)]
        write(backend, written)
        expected = written[::-1] if reverse else written
        for limit, bound in ((1000, 1000), (2, 1000), (1000, 1)):
            found: list[Row] = []
            with closing(backend.scan(None, None, reverse=reverse)) as cursor:
                fetch = bounded_fetcher(cursor)
                while rows := fetch(limit, bound):
                    assert len(rows) <= limit
                    assert sum(len(value) for _, value in rows[:-1]) < bound
                    found += rows
                assert fetch(limit, bound) == []
            assert found == expected

    def test_an_exhausted_cursor_stays_exhausted(self, backend: Backend) -> None:
        write(backend, [(b"a", b"1")])
        with closing(backend.scan(None, None)) as cursor:
            assert cursor.fetch(10) == [(b"a", b"1")]
            write(backend, [(b"b", b"2")])
            assert cursor.fetch(10) == []
            assert cursor.fetch(10) == []

    # ------------------------------------------------------------------------ cursors and snapshots

    @pytest.mark.parametrize("chunk", [1, 3, 1000])
    @pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
    def test_a_cursor_does_not_see_later_writes(self, backend: Backend, reverse: bool, chunk: int) -> None:
        rng = random.Random(chunk)
        model: dict[bytes, bytes] = {}
        for _ in range(4):
            with closing(backend.scan(b"\0", b"\xff", reverse=reverse)) as cursor:
                expected = model_rows(model, b"\0", b"\xff", reverse=reverse)
                found = []
                more = True
                while more:
                    batch = random_batch(rng)
                    write(backend, batch)
                    apply_batch(model, batch)
                    fetched = cursor.fetch(chunk)
                    found += fetched
                    more = bool(fetched)
                assert found == expected
        assert rows(backend) == model_rows(model, None, None)

    def test_a_cursor_over_keys_does_not_see_later_writes(self, backend: Backend) -> None:
        write(backend, [(b"deleted", b"1"), (b"kept", b"1"), (b"overwritten", b"1")])
        with closing(backend.scan(None, None, values=False)) as cursor:
            write(backend, [(b"deleted", None), (b"overwritten", b"2"), (b"a-new", b"2"), (b"z-new", b"2")])
            assert cursor.fetch_keys(10) == [b"deleted", b"kept", b"overwritten"]

    def test_a_snapshot_does_not_see_later_writes(self, backend: Backend) -> None:
        rng = random.Random(7)
        model: dict[bytes, bytes] = {}
        snapshots = []
        for _ in range(6):
            batch = random_batch(rng)
            write(backend, batch)
            apply_batch(model, batch)
            snapshots.append((backend.snapshot(), dict(model)))
        for snapshot, expected in snapshots:
            wanted = [*EDGES, *model, *expected]
            assert snapshot.get_many(wanted) == [expected.get(key) for key in wanted]
            assert [snapshot.get(key) for key in wanted] == [expected.get(key) for key in wanted]
            assert rows(snapshot, chunk=5) == model_rows(expected, None, None)
            assert rows(snapshot, b"a", b"b", reverse=True) == model_rows(expected, b"a", b"b", reverse=True)
        for snapshot, _ in snapshots:
            snapshot.close()

    def test_a_cursor_of_a_snapshot_reads_the_snapshot(self, backend: Backend) -> None:
        write(backend, [(b"a", b"1"), (b"b", b"1")])
        with closing(backend.snapshot()) as snapshot:
            write(backend, [(b"a", None), (b"b", b"2")])
            with closing(snapshot.scan(None, None)) as cursor:
                write(backend, [(b"b", None), (b"c", b"3")])
                assert cursor.fetch(1) == [(b"a", b"1")]
                assert cursor.fetch(9) == [(b"b", b"1")]

    def test_cursors_and_snapshots_are_independent(self, backend: Backend) -> None:
        write(backend, [(b"a", b"1"), (b"b", b"1")])
        first, second = backend.snapshot(), backend.snapshot()
        ahead, behind = backend.scan(None, None), backend.scan(None, None)
        write(backend, [(b"a", b"2")])
        assert ahead.fetch(2) == [(b"a", b"1"), (b"b", b"1")]
        ahead.close()
        first.close()
        write(backend, [(b"b", b"2")])
        assert behind.fetch(2) == [(b"a", b"1"), (b"b", b"1")]
        assert second.get_many([b"a", b"b"]) == [b"1", b"1"]
        behind.close()
        second.close()
        assert rows(backend) == [(b"a", b"2"), (b"b", b"2")]

    def test_closing_a_cursor_or_a_snapshot_twice_is_harmless(self, backend: Backend) -> None:
        write(backend, [(b"a", b"1")])
        snapshot = backend.snapshot()
        for cursor in (backend.scan(None, None), snapshot.scan(None, None), backend.scan(None, None)):
            cursor.fetch(1)
            cursor.close()
            cursor.close()
        snapshot.close()
        snapshot.close()
        assert backend.get(b"a") == b"1"

    # -------------------------------------------------------------------------- writers and readers

    def test_a_transaction_reads_the_last_write(self, backend: Backend) -> None:
        for number in range(5):
            with backend.exclusive() as transaction:
                before = int(transaction.get(b"count") or b"0")
                assert before == number
                transaction.write([(b"count", b"%d" % (before + 1))])

    def test_a_failed_exclusive_block_writes_nothing_and_releases_the_lock(self, backend: Backend) -> None:
        with pytest.raises(ArithmeticError), backend.exclusive():
            raise ArithmeticError
        assert rows(backend) == []
        writer = threading.Thread(target=write, args=(backend, [(b"k", b"v")]), daemon=True)
        writer.start()
        writer.join(self.patience)
        assert backend.get(b"k") == b"v"

    def test_exclusive_blocks_do_not_overlap(self, backend: Backend) -> None:
        assert count_concurrently([backend] * 4, 25, self.patience) == 100

    @pytest.mark.parametrize("reverse", [False, True])
    def test_a_transaction_reads_ranges(self, backend: Backend, reverse: bool) -> None:
        write(backend, [(b"%03d" % number, b"%d" % number) for number in range(300)])
        with backend.exclusive() as transaction, closing(transaction.scan(b"100", b"200", reverse=reverse)) as cursor:
            found: list[Row] = []
            while fetched := cursor.fetch(30):
                found += fetched
        numbers = range(199, 99, -1) if reverse else range(100, 200)
        assert found == [(b"%03d" % number, b"%d" % number) for number in numbers]

    def test_transact_of_a_level_loses_no_update(self, backend_factory: BackendFactory) -> None:
        with Level("store", backend=lambda _: backend_factory(), mode=Mode.SERVER) as level:
            increment_concurrently([level] * 4, 20, self.patience)
            assert (level.get("count"), level.cid) == (80, 80)

    def test_transact_of_a_level_is_all_or_nothing(self, backend_factory: BackendFactory) -> None:
        def fail(tx: LevelTransaction) -> None:
            tx.put("b", 2)
            tx.delete("a")
            assert tx.query(reverse=True) == [("c", 3), ("b", 2)]
            raise ArithmeticError

        with Level("store", backend=lambda _: backend_factory()) as level:
            level.load([("a", 1), ("c", 3)])
            with pytest.raises(ArithmeticError):
                level.transact(fail)
            assert level.query() == [("a", 1), ("c", 3)]

    def test_readers_see_all_of_a_batch_or_none_of_it(self, backend: Backend) -> None:
        names = [b"%02d" % number for number in range(40)]
        stop = threading.Event()

        def read_until_stopped() -> int:
            reads = 0
            while not stop.is_set():
                with closing(backend.snapshot()) as snapshot:
                    results: list[list[bytes | None]] = [
                        backend.get_many(names),
                        [value for _, value in rows(backend, chunk=7)],
                        [value for _, value in rows(snapshot, reverse=True, chunk=7)],
                        snapshot.get_many(names),
                    ]
                for values in results:
                    assert len(values) == len(names)
                    assert len(set(values)) == 1, "a reader saw part of a batch"
                reads += 1
            return reads

        write(backend, [(name, b"0") for name in names])
        with ThreadPoolExecutor(3) as pool:
            readers = [pool.submit(read_until_stopped) for _ in range(3)]
            try:
                for number in range(150):
                    write(backend, [(name, None) for name in names] + [(name, b"%d" % number) for name in names])
            finally:
                stop.set()
            assert sum(reader.result(self.patience) for reader in readers) > 0

    # ---------------------------------------------------------------------------------- maintenance

    def test_compacting_keeps_the_data(self, backend: Backend) -> None:
        write(backend, [(b"%04d" % number, b"v" * 100) for number in range(1000)])
        write(backend, [(b"%04d" % number, None) for number in range(0, 1000, 2)])
        remaining = rows(backend)
        assert len(remaining) == 500
        backend.compact()
        assert rows(backend) == remaining

    def test_size_on_disk_is_in_bytes_or_none(self, backend: Backend) -> None:
        write(backend, [(b"k", random.Random(2).randbytes(100_000))], durable=True)
        size = backend.size_on_disk()
        assert size is None or size >= 100_000
