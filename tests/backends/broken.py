"""Backends with one fault each, and the conformance suite over each of them.

The docstring of each suite is the name of the test that must fail.

``test_controls.py`` runs this file; nothing else collects it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from backends.shared_memory import SharedMemory

from treehub_level import InvalidKeyError, LockedError, MemoryBackend, NotOpenError
from treehub_level.backends.base import Backend, Batch, Row, Transaction
from treehub_level.locks import ErrorCheckingLock
from treehub_level.testing import BackendConformance


class Broken(BackendConformance):
    """The suite over ``Faulty``."""

    Faulty: type[Backend]

    @pytest.fixture
    def backend_factory(self) -> Callable[[], Backend]:
        return lambda: self.Faulty("broken")


class _Wrapped:
    """A reader, cursor or snapshot with some methods replaced."""

    def __init__(self, inner: Any, **replaced: Callable[..., Any]) -> None:
        self._inner = inner
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class TestLongKeysCut(Broken):
    """test_a_key_longer_than_max_key_bytes_is_refused_and_absent"""

    class Faulty(MemoryBackend):
        supports = replace(MemoryBackend.supports, max_key_bytes=100)

        def write(self, batch: Batch, *, durable: bool = False) -> None:
            super().write([(key[:100], value) for key, value in batch])


class TestLongKeysRefusedHalfWay(Broken):
    """test_a_key_longer_than_max_key_bytes_is_refused_and_absent"""

    class Faulty(MemoryBackend):
        supports = replace(MemoryBackend.supports, max_key_bytes=100)

        def write(self, batch: Batch, *, durable: bool = False) -> None:
            super().write([(key, value) for key, value in batch if len(key) <= 100])
            if any(len(key) > 100 for key, _ in batch):
                raise InvalidKeyError("too long")


class TestUnsorted(Broken):
    """test_keys_and_values_may_contain_every_byte"""

    class Faulty(MemoryBackend):
        def scan(self, *range_: Any, **options: Any) -> Any:
            cursor = super().scan(*range_, **options)
            return _Wrapped(cursor, fetch=lambda limit: cursor.fetch(limit)[::-1])


class TestReverseIgnored(Broken):
    """test_a_fetch_returns_at_most_limit_rows"""

    class Faulty(MemoryBackend):
        def scan(self, *range_: Any, reverse: bool = False, **options: Any) -> Any:
            return super().scan(*range_, **options)


class TestStopIncluded(Broken):
    """test_every_bound_is_exact"""

    class Faulty(MemoryBackend):
        def scan(self, start: bytes | None, stop: bytes | None, **options: Any) -> Any:
            return super().scan(start, stop and stop + b"\0", **options)


class TestEmptyBoundTakenForNone(Broken):
    """test_every_bound_is_exact"""

    class Faulty(MemoryBackend):
        def scan(self, start: bytes | None, stop: bytes | None, **options: Any) -> Any:
            return super().scan(start or None, stop or None, **options)


class TestLiveCursor(Broken):
    """test_a_cursor_does_not_see_later_writes"""

    class Faulty(MemoryBackend):
        def scan(self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True) -> Any:
            position = [start, stop]

            def fetch(limit: int) -> list[Row]:
                rows = MemoryBackend.scan(self, position[0], position[1], reverse=reverse).fetch(limit)
                if rows:
                    position[reverse] = rows[-1][0] + (b"" if reverse else b"\0")
                return rows

            return _Wrapped(None, fetch=fetch, fetch_keys=lambda n: [key for key, _ in fetch(n)], close=lambda: None)


class TestLiveSnapshot(Broken):
    """test_a_snapshot_does_not_see_later_writes"""

    class Faulty(MemoryBackend):
        def snapshot(self) -> Any:
            return _Wrapped(self, close=lambda: None)


class TestCursorThatGoesOn(Broken):
    """test_an_exhausted_cursor_stays_exhausted"""

    class Faulty(MemoryBackend):
        def scan(self, *range_: Any, **options: Any) -> Any:
            cursor = super().scan(*range_, **options)
            again = MemoryBackend.scan
            return _Wrapped(cursor, fetch=lambda n: cursor.fetch(n) or again(self, *range_, **options).fetch(n))


class TestGreedyFetch(Broken):
    """test_a_fetch_returns_at_most_limit_rows"""

    class Faulty(MemoryBackend):
        def scan(self, *range_: Any, **options: Any) -> Any:
            cursor = super().scan(*range_, **options)
            return _Wrapped(cursor, fetch=lambda limit: cursor.fetch(limit + 1))


class TestHalfABatch(Broken):
    """test_a_batch_that_fails_half_way_writes_nothing"""

    class Faulty(MemoryBackend):
        def write(self, batch: Batch, *, durable: bool = False) -> None:
            for entry in batch:
                super().write([entry])


class TestTornBatch(Broken):
    """test_readers_see_all_of_a_batch_or_none_of_it"""

    class Faulty(MemoryBackend):
        def write(self, batch: Batch, *, durable: bool = False) -> None:
            entries = list(batch)
            super().write(entries[: len(entries) // 2])
            time.sleep(0.001)
            super().write(entries[len(entries) // 2 :])


class TestFirstEntryWins(Broken):
    """test_the_last_entry_of_a_key_wins"""

    class Faulty(MemoryBackend):
        def write(self, batch: Batch, *, durable: bool = False) -> None:
            super().write(list(batch)[::-1])


class TestDeletesAfterPuts(Broken):
    """test_the_last_entry_of_a_key_wins"""

    class Faulty(MemoryBackend):
        def write(self, batch: Batch, *, durable: bool = False) -> None:
            super().write(sorted(batch, key=lambda entry: entry[1] is None))


class TestDeleteOfAnAbsentKeyRaises(Broken):
    """test_deleting_an_absent_key_is_no_error"""

    class Faulty(MemoryBackend):
        def write(self, batch: Batch, *, durable: bool = False) -> None:
            for key, value in batch:
                if value is None and self.get(key) is None:
                    raise KeyError(key)
            super().write(batch)


class TestEmptyValueTakenForNone(Broken):
    """test_an_absent_key_is_none_and_an_empty_value_is_empty"""

    class Faulty(MemoryBackend):
        def get(self, key: bytes) -> bytes | None:
            return super().get(key) or None


class TestShortKeys(Broken):
    """test_keys_of_any_length_are_stored"""

    class Faulty(MemoryBackend):
        def write(self, batch: Batch, *, durable: bool = False) -> None:
            super().write([(key[:65_535], value) for key, value in batch])


class TestTextKeys(Broken):
    """test_keys_and_values_may_contain_every_byte"""

    class Faulty(MemoryBackend):
        def write(self, batch: Batch, *, durable: bool = False) -> None:
            super().write([(key.decode("utf8", "replace").encode(), value) for key, value in batch])


class TestGetManySorts(Broken):
    """test_get_many_returns_values_in_the_order_of_the_keys"""

    class Faulty(MemoryBackend):
        def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
            return super().get_many(sorted(keys))


class TestForgetsOnClose(Broken):
    """test_a_reopened_backend_still_has_its_data"""

    class Faulty(MemoryBackend):
        def close(self) -> None:
            super().close()
            self._data = type(self._data)()


class TestOpensTwice(Broken):
    """test_opening_twice_raises_and_leaves_the_backend_open"""

    class Faulty(MemoryBackend):
        def open(self) -> None:
            with suppress(LockedError):
                super().open()


class TestReadsWhileClosed(Broken):
    """test_reads_and_writes_after_close_raise_not_open_error"""

    class Faulty(MemoryBackend):
        def close(self) -> None:
            pass


class TestReadsNothingOnceClosed(Broken):
    """test_a_guarded_get_during_close_returns_the_value_or_raises"""

    class Faulty(MemoryBackend):
        def get(self, key: bytes) -> bytes | None:
            with suppress(NotOpenError):
                return super().get(key)
            return None


class TestNobodyIsKeptOut(Broken):
    """test_exclusive_blocks_do_not_overlap"""

    class Faulty(MemoryBackend):
        @contextmanager
        def exclusive(self) -> Iterator[Transaction]:
            yield self


class TestKeepsTheLockAfterAnError(Broken):
    """test_a_failed_exclusive_block_writes_nothing_and_releases_the_lock"""

    class Faulty(MemoryBackend):
        @contextmanager
        def exclusive(self) -> Iterator[Transaction]:
            if not self._lock.acquire(timeout=0.1):
                raise TimeoutError
            yield self
            self._lock.release()

        def __init__(self, name: str) -> None:
            super().__init__(name)
            self._lock = threading.Lock()


class TestForgetsThePersistence(Broken):
    """test_another_backend_of_the_same_store_finds_its_data"""

    class Faulty(MemoryBackend):
        supports = type(MemoryBackend.supports)(persistent=True, inline_reads=True)


class TestLetsEverybodyIn(Broken):
    """test_a_store_can_be_open_in_only_one_backend"""

    class Faulty(MemoryBackend):
        supports = type(MemoryBackend.supports)(persistent=True, inline_reads=True)


class TestSharesNothing(Broken):
    """test_writes_to_a_shared_store_are_visible_to_the_other_backend"""

    class Faulty(MemoryBackend):
        supports = type(MemoryBackend.supports)(persistent=True, inline_reads=True, shared=True)


class BrokenShared(Broken):
    """The suite over two of ``Faulty`` that share their data."""

    Faulty: type[SharedMemory]
    patience = 1.0

    @pytest.fixture
    def backend_factory(self) -> Callable[[], Backend]:
        first = self.Faulty("broken", None)
        return lambda: self.Faulty("broken", first)


class TestKeepsOnlyItsOwnWritersOut(BrokenShared):
    """test_exclusive_blocks_of_two_backends_do_not_overlap"""

    class Faulty(SharedMemory):
        def __init__(self, name: str, first: SharedMemory | None) -> None:
            super().__init__(name, first)
            self.write_lock = ErrorCheckingLock("write")


class TestKeepsTheOtherOutAfterAnError(BrokenShared):
    """test_a_failed_exclusive_block_releases_the_lock_for_the_other_backend"""

    class Faulty(SharedMemory):
        @contextmanager
        def exclusive(self) -> Iterator[Transaction]:
            if not self.write_lock.acquire(timeout=0.1):
                raise TimeoutError
            yield self
            self.write_lock.release()


class TestMomentOfItsOwnOnly(BrokenShared):
    """test_a_snapshot_does_not_see_later_writes_of_the_other_backend"""

    class Faulty(SharedMemory):
        def snapshot(self) -> Any:
            return _Wrapped(self, close=lambda: None)


class TestHearsNothing(BrokenShared):
    """test_listener_is_called_after_commits_of_the_other_backend"""

    class Faulty(SharedMemory):
        def listen(self, callback: Callable[[], None]) -> None:
            callback()


class TestCountsNoForeignCommit(BrokenShared):
    """test_foreign_commits_are_told_from_own_ones"""

    class Faulty(SharedMemory):
        def foreign_commits(self) -> object:
            return 1


class TestVendorsError(Broken):
    """test_an_unusable_name_raises_a_storage_error_that_contains_it"""

    class Faulty(MemoryBackend):
        def open(self) -> None:
            if self.name == "unusable":
                raise OSError("no such place")
            super().open()

    @pytest.fixture
    def unusable(self) -> Backend:
        return self.Faulty("unusable")


class TestCompactionThatDrops(Broken):
    """test_compacting_keeps_the_data"""

    class Faulty(MemoryBackend):
        def compact(self) -> None:
            self.write([(b"0001", None)])


class TestCloseOnlyOnce(Broken):
    """test_closing_a_cursor_or_a_snapshot_twice_is_harmless"""

    class Faulty(MemoryBackend):
        def snapshot(self) -> Any:
            snapshot, once = super().snapshot(), [1]
            return _Wrapped(snapshot, close=lambda: once.pop())
