"""The contract of `treehub_level.backends.base` as a test suite: subclass it, and pytest holds your backend to it.

    class TestMyBackend(BackendConformance):
        @pytest.fixture
        def backend_factory(self, tmp_path):
            return lambda: MyBackend(str(tmp_path / "store"))

        @pytest.fixture
        def unusable(self):
            return MyBackend("/dev/null/store")

What a backend does not claim in its ``supports`` is not asked of it. What it claims is asked of it
under concurrent readers and writers too; the whole suite takes a few seconds.
"""

# ruff: noqa: D102  # the name of a test is its sentence

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from ..backends.base import Backend, Batch, Entry, Reader, Supports
from ..errors import InvalidKeyError, LockedError, NotOpenError, StorageError
from .shared_stores import BackendFactory, SharedStores
from .support import (
    EDGES,
    FailingBatch,
    apply,
    assert_not_open,
    closing,
    counted_together,
    keys,
    model_rows,
    random_batch,
    random_bound,
    rows,
    write,
)

__all__ = ["BackendConformance", "BackendFactory"]


class BackendConformance(SharedStores):
    """The suite. See the module's docstring for how to use it.

    Fixtures to define: backend_factory: Returns a `BackendFactory`. Its store, or its stores, are
        empty at first and this test's own. unusable: Returns a backend whose ``open()`` must fail
        for its name: no such place, or no right to it. Leave it out where every name will do.
    """

    @pytest.fixture
    def backend_factory(self) -> BackendFactory:
        """To be overridden."""
        raise NotImplementedError("define the fixture backend_factory in your subclass of BackendConformance")

    @pytest.fixture
    def unusable(self) -> Backend | None:
        """To be overridden where a name can be one that the backend cannot use."""
        return None

    @pytest.fixture
    def backend(self, backend_factory: BackendFactory) -> Iterator[Backend]:
        """An open, empty backend."""
        backend = backend_factory()
        backend.open()
        yield backend
        backend.close()

    # ------------------------------------------------------------------------------------------ life cycle

    def test_it_says_what_it_supports(self, backend_factory: BackendFactory) -> None:
        assert isinstance(backend_factory().supports, Supports)

    def test_before_it_was_opened_it_refuses_to_read_and_write(self, backend_factory: BackendFactory) -> None:
        assert_not_open(backend_factory())

    def test_once_closed_it_refuses_to_read_and_write(self, backend_factory: BackendFactory) -> None:
        backend = backend_factory()
        backend.open()
        backend.close()
        assert_not_open(backend)

    def test_a_get_while_it_closes_finds_the_value_or_is_refused_if_it_guards_that(
        self, backend_factory: BackendFactory
    ) -> None:
        backend = backend_factory()
        if not backend.supports.guarded_get:
            pytest.skip("the engine keeps gets and close() apart for it")

        def read_until_refused() -> None:
            with suppress(NotOpenError):
                while backend.get(b"k") == b"v":
                    pass
                raise AssertionError("another value")

        for _ in range(10):
            backend.open()
            write(backend, [(b"k", b"v")])
            with ThreadPoolExecutor(3) as pool:
                readers = [pool.submit(read_until_refused) for _ in range(3)]
                backend.close()
                for reader in readers:
                    reader.result(self.patience)

    def test_closing_what_is_not_open_does_nothing(self, backend_factory: BackendFactory) -> None:
        backend = backend_factory()
        backend.close()
        backend.open()
        backend.close()
        backend.close()

    def test_opening_it_twice_raises_and_leaves_it_open(self, backend: Backend) -> None:
        write(backend, [(b"k", b"v")])
        with pytest.raises(LockedError):
            backend.open()
        assert backend.get(b"k") == b"v"

    def test_it_can_be_opened_again_and_still_has_its_data(self, backend_factory: BackendFactory) -> None:
        backend = backend_factory()
        for generation in range(3):
            backend.open()
            assert backend.get(b"generation") == (str(generation - 1).encode() if generation else None)
            write(backend, [(b"generation", str(generation).encode())])
            backend.close()

    def test_another_backend_of_the_same_store_finds_its_data(self, backend_factory: BackendFactory) -> None:
        first = backend_factory()
        if not first.supports.persistent:
            pytest.skip("it does not claim to be persistent")
        first.open()
        write(first, [(b"durable", b"1")], durable=True)
        write(first, [(b"plain", b"2")])
        first.close()
        second = backend_factory()
        second.open()
        assert rows(second) == [(b"durable", b"1"), (b"plain", b"2")]
        second.close()

    def test_of_one_store_one_backend_is_open_at_a_time(
        self, backend: Backend, backend_factory: BackendFactory
    ) -> None:
        second = backend_factory()
        if not second.supports.persistent or second.supports.shared:
            pytest.skip("it does not claim to be persistent, or claims to be shared")
        with pytest.raises(LockedError):
            second.open()
        second.close()
        write(backend, [(b"k", b"v")])
        assert backend.get(b"k") == b"v"

    def test_a_name_that_it_cannot_use_raises_a_storage_error_that_names_it(self, unusable: Backend | None) -> None:
        if unusable is None:
            pytest.skip("every name will do for it, as the fixture `unusable` says")
        with pytest.raises(StorageError) as caught:
            unusable.open()
        assert unusable.name in str(caught.value)
        assert_not_open(unusable)

    # ------------------------------------------------------------------------------------- single values

    def test_an_absent_key_is_none_and_an_empty_value_is_empty(self, backend: Backend) -> None:
        write(backend, [(b"empty", b"")])
        assert backend.get(b"empty") == b""
        assert backend.get(b"absent") is None
        assert backend.get(b"") is None

    @pytest.mark.parametrize("size", [0, 1, 255, 65_536, 300_000], ids="{}-bytes".format)
    def test_keys_of_any_length_are_kept(self, backend: Backend, size: int) -> None:
        longest = backend.supports.max_key_bytes
        if longest is not None and size >= longest:
            pytest.skip(f"it claims to take at most {longest} bytes")
        key, neighbour = b"k" * size, b"k" * size + b"\0"
        write(backend, [(key, b"1"), (neighbour, b"2")])
        assert (backend.get(key), backend.get(neighbour)) == (b"1", b"2")
        assert rows(backend) == [(key, b"1"), (neighbour, b"2")]

    def test_a_key_that_is_too_long_for_it_is_refused_and_absent(self, backend: Backend) -> None:
        longest = backend.supports.max_key_bytes
        if longest is None:
            pytest.skip("it claims to take keys of any length")
        kept, too_long, above = b"k" * longest, b"k" * (longest + 1), b"k" * (longest - 1) + b"l"
        write(backend, [(kept, b"1"), (above, b"2")])
        with pytest.raises(InvalidKeyError):
            write(backend, [(b"a", b"3"), (too_long, b"4")])
        assert rows(backend) == [(kept, b"1"), (above, b"2")]
        assert (backend.get(too_long), backend.get_many([too_long, kept])) == (None, [None, b"1"])
        for reverse in (False, True):
            assert rows(backend, too_long, None, reverse=reverse) == [(above, b"2")]
            assert rows(backend, None, too_long, reverse=reverse) == [(kept, b"1")]

    def test_every_byte_may_stand_in_keys_and_values(self, backend: Backend) -> None:
        written = [(bytes([byte]) + b"-key", bytes(range(byte, -1, -1)) * 3) for byte in range(256)]
        write(backend, written)
        assert rows(backend) == written
        assert backend.get_many([key for key, _ in written]) == [value for _, value in written]

    def test_large_values_are_kept(self, backend: Backend) -> None:
        value = random.Random(1).randbytes(5_000_000)
        write(backend, [(b"large", value), (b"small", b"s")])
        assert backend.get(b"large") == value
        assert rows(backend) == [(b"large", value), (b"small", b"s")]

    def test_get_many_answers_in_the_order_asked(self, backend: Backend) -> None:
        write(backend, [(b"a", b"1"), (b"b", b""), (b"c", b"3")])
        asked = [b"c", b"absent", b"a", b"c", b"b", b""]
        expected = [b"3", None, b"1", b"3", b"", None]
        assert backend.get_many(asked) == expected
        assert backend.get_many([]) == []
        with closing(backend.snapshot()) as snapshot:
            assert snapshot.get_many(asked) == expected
            assert snapshot.get_many([]) == []

    # ---------------------------------------------------------------------------------------------- batches

    @pytest.mark.parametrize(
        ("batch", "left"),
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
        self, backend: Backend, before: bytes | None, batch: Batch, left: bytes | None
    ) -> None:
        write(backend, [(b"k", before)])
        write(backend, batch)
        assert backend.get(b"k") == left
        assert rows(backend) == ([(b"k", left)] if left is not None else [])

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

    def test_a_batch_is_not_kept_or_changed(self, backend: Backend) -> None:
        batch: list[Entry] = [(b"b", b"1"), (b"a", None), (b"b", b"2")]
        given = list(batch)
        write(backend, batch)
        assert batch == given
        batch.clear()
        assert rows(backend) == [(b"b", b"2")]

    # ------------------------------------------------------------------------------------------------ ranges

    def test_a_scan_gives_the_keys_of_its_range_in_order(self, backend: Backend) -> None:
        chance = random.Random(20240607)
        model: dict[bytes, bytes] = {}
        for _ in range(12):
            batch = random_batch(chance)
            write(backend, batch)
            apply(model, batch)
            with backend.exclusive() as transaction, closing(backend.snapshot()) as snapshot:
                readers: list[Reader] = [backend, snapshot, transaction]
                for _ in range(60):
                    start, stop = random_bound(chance), random_bound(chance)
                    reverse, chunk = chance.random() < 0.5, chance.choice([1, 2, 3, 7, 1000])
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
    def test_a_range_of_one_key_has_that_key(self, backend: Backend, reverse: bool) -> None:
        for key in EDGES:
            write(backend, [(key, b"v")])
            assert rows(backend, key, key + b"\0", reverse=reverse) == [(key, b"v")]
            assert rows(backend, key, None, reverse=reverse) == [(key, b"v")]
            assert keys(backend, None, key + b"\0", reverse=reverse) == [key]
            write(backend, [(key, None)])

    @pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
    def test_a_fetch_gives_at_most_what_was_asked_for(self, backend: Backend, reverse: bool) -> None:
        written = [(b"%03d" % number, b"v") for number in range(10)]
        write(backend, written)
        expected = written[::-1] if reverse else written
        with closing(backend.scan(None, None, reverse=reverse)) as cursor:
            assert cursor.fetch(4) == expected[:4]
            assert cursor.fetch(1) == expected[4:5]
            assert cursor.fetch(1000) == expected[5:]
            assert cursor.fetch(1000) == []

    def test_a_cursor_at_its_end_stays_there(self, backend: Backend) -> None:
        write(backend, [(b"a", b"1")])
        with closing(backend.scan(None, None)) as cursor:
            assert cursor.fetch(10) == [(b"a", b"1")]
            write(backend, [(b"b", b"2")])
            assert cursor.fetch(10) == []
            assert cursor.fetch(10) == []

    # ------------------------------------------------------------------------------- cursors and snapshots

    @pytest.mark.parametrize("chunk", [1, 3, 1000])
    @pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
    def test_a_cursor_stays_at_the_moment_it_was_made(self, backend: Backend, reverse: bool, chunk: int) -> None:
        chance = random.Random(chunk)
        model: dict[bytes, bytes] = {}
        for _ in range(6):
            with closing(backend.scan(b"\0", b"\xff", reverse=reverse)) as cursor:
                expected = model_rows(model, b"\0", b"\xff", reverse=reverse)
                found = []
                more = True
                while more:
                    batch = random_batch(chance)
                    write(backend, batch)
                    apply(model, batch)
                    fetched = cursor.fetch(chunk)
                    found += fetched
                    more = bool(fetched)
                assert found == expected
        assert rows(backend) == model_rows(model, None, None)

    def test_a_cursor_over_keys_stays_at_the_moment_it_was_made(self, backend: Backend) -> None:
        write(backend, [(b"deleted", b"1"), (b"kept", b"1"), (b"overwritten", b"1")])
        with closing(backend.scan(None, None, values=False)) as cursor:
            write(backend, [(b"deleted", None), (b"overwritten", b"2"), (b"a-new", b"2"), (b"z-new", b"2")])
            assert cursor.fetch_keys(10) == [b"deleted", b"kept", b"overwritten"]

    def test_a_snapshot_stays_at_the_moment_it_was_made(self, backend: Backend) -> None:
        chance = random.Random(7)
        model: dict[bytes, bytes] = {}
        moments = []
        for _ in range(6):
            batch = random_batch(chance)
            write(backend, batch)
            apply(model, batch)
            moments.append((backend.snapshot(), dict(model)))
        for snapshot, then in moments:
            asked = [*EDGES, *model, *then]
            assert snapshot.get_many(asked) == [then.get(key) for key in asked]
            assert [snapshot.get(key) for key in asked] == [then.get(key) for key in asked]
            assert rows(snapshot, chunk=5) == model_rows(then, None, None)
            assert rows(snapshot, b"a", b"b", reverse=True) == model_rows(then, b"a", b"b", reverse=True)
        for snapshot, _ in moments:
            snapshot.close()

    def test_a_cursor_of_a_snapshot_stays_at_the_moment_of_the_snapshot(self, backend: Backend) -> None:
        write(backend, [(b"a", b"1"), (b"b", b"1")])
        with closing(backend.snapshot()) as snapshot:
            write(backend, [(b"a", None), (b"b", b"2")])
            with closing(snapshot.scan(None, None)) as cursor:
                write(backend, [(b"b", None), (b"c", b"3")])
                assert cursor.fetch(1) == [(b"a", b"1")]
                assert cursor.fetch(9) == [(b"b", b"1")]

    def test_cursors_and_snapshots_do_not_disturb_each_other(self, backend: Backend) -> None:
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

    # --------------------------------------------------------------------------------- writers and readers

    def test_a_transaction_reads_what_was_written_last(self, backend: Backend) -> None:
        for number in range(5):
            with backend.exclusive() as transaction:
                before = int(transaction.get(b"count") or b"0")
                assert before == number
                transaction.write([(b"count", b"%d" % (before + 1))])

    def test_a_block_that_raises_before_it_writes_writes_nothing_and_lets_the_next_in(self, backend: Backend) -> None:
        with pytest.raises(ArithmeticError), backend.exclusive():
            raise ArithmeticError
        assert rows(backend) == []
        in_another_thread = threading.Thread(target=write, args=(backend, [(b"k", b"v")]), daemon=True)
        in_another_thread.start()
        in_another_thread.join(self.patience)
        assert backend.get(b"k") == b"v"

    def test_writers_take_turns(self, backend: Backend) -> None:
        assert counted_together([backend] * 4, 25, self.patience) == 100

    def test_readers_see_all_of_a_batch_or_none_of_it(self, backend: Backend) -> None:
        names = [b"%02d" % number for number in range(40)]
        stop = threading.Event()

        def watch() -> int:
            seen = 0
            while not stop.is_set():
                with closing(backend.snapshot()) as snapshot:
                    moments: list[list[bytes | None]] = [
                        backend.get_many(names),
                        [value for _, value in rows(backend, chunk=7)],
                        [value for _, value in rows(snapshot, reverse=True, chunk=7)],
                        snapshot.get_many(names),
                    ]
                for values in moments:
                    assert len(values) == len(names)
                    assert len(set(values)) == 1, "a reader saw part of a batch"
                seen += 1
            return seen

        write(backend, [(name, b"0") for name in names])
        with ThreadPoolExecutor(3) as pool:
            watchers = [pool.submit(watch) for _ in range(3)]
            try:
                for number in range(150):
                    write(backend, [(name, None) for name in names] + [(name, b"%d" % number) for name in names])
            finally:
                stop.set()
            assert sum(watcher.result(self.patience) for watcher in watchers) > 0

    # ----------------------------------------------------------------------------------------------- upkeep

    def test_compacting_keeps_the_data(self, backend: Backend) -> None:
        write(backend, [(b"%04d" % number, b"v" * 100) for number in range(1000)])
        write(backend, [(b"%04d" % number, None) for number in range(0, 1000, 2)])
        left = rows(backend)
        assert len(left) == 500
        backend.compact()
        assert rows(backend) == left

    def test_its_size_on_disk_is_a_number_of_bytes_or_none(self, backend: Backend) -> None:
        write(backend, [(b"k", random.Random(2).randbytes(100_000))], durable=True)
        size = backend.size_on_disk()
        assert size is None or size >= 100_000
