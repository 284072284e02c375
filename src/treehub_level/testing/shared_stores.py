"""The tests of `BackendConformance` for shared stores: two backends have one store open."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest

from ..backends.base import Backend
from ..blocking import Level
from .support import closing, count_concurrently, increment_concurrently, rows, write

#: Returns a new backend that is not open. If ``supports.persistent``, all backends of one factory
#: are of the same store.
BackendFactory = Callable[[], Backend]


class SharedStores:
    """The tests that are skipped unless the backend claims ``supports.shared``."""

    #: The timeout in seconds for each step of a test with threads.
    patience: ClassVar[float] = 30.0

    @pytest.fixture
    def second(self, backend: Backend, backend_factory: BackendFactory) -> Iterator[Backend]:
        """Yield a second backend that has the store of ``backend`` open."""
        if not backend.supports.shared:
            pytest.skip("the backend does not claim to be shared")
        second = backend_factory()
        second.open()
        yield second
        second.close()

    def test_writes_to_a_shared_store_are_visible_to_the_other_backend(self, backend: Backend, second: Backend) -> None:
        write(backend, [(b"k", b"1")])
        assert second.get(b"k") == b"1"
        write(second, [(b"k", b"2")])
        assert (backend.get(b"k"), backend.get_many([b"k"]), rows(backend)) == (b"2", [b"2"], [(b"k", b"2")])

    def test_exclusive_blocks_of_two_backends_do_not_overlap(self, backend: Backend, second: Backend) -> None:
        assert count_concurrently([backend, second], 25, self.patience) == 50
        assert second.get(b"count") == b"50"

    def test_transact_of_two_levels_loses_no_update(self, second: Backend, backend_factory: BackendFactory) -> None:
        levels = [Level("store", backend=lambda _: backend_factory()) for _ in range(2)]
        with levels[0], levels[1]:
            increment_concurrently(levels, 20, self.patience)
            assert levels[0].get("count") == levels[1].get("count") == 40

    def test_a_failed_exclusive_block_releases_the_lock_for_the_other_backend(
        self, backend: Backend, second: Backend
    ) -> None:
        with pytest.raises(ArithmeticError), backend.exclusive():
            raise ArithmeticError
        with ThreadPoolExecutor(1) as pool:
            pool.submit(write, second, [(b"k", b"2")]).result(self.patience)
        assert backend.get(b"k") == b"2"

    def test_a_snapshot_does_not_see_later_writes_of_the_other_backend(self, backend: Backend, second: Backend) -> None:
        write(second, [(b"a", b"1"), (b"b", b"1")])
        with closing(backend.snapshot()) as snapshot, closing(backend.scan(None, None)) as cursor:
            write(second, [(b"a", None), (b"b", b"2"), (b"c", b"2")])
            assert snapshot.get_many([b"a", b"b", b"c"]) == [b"1", b"1", None]
            assert rows(snapshot) == cursor.fetch(10) == [(b"a", b"1"), (b"b", b"1")]
        assert rows(backend) == [(b"b", b"2"), (b"c", b"2")]

    def test_listener_is_called_after_commits_of_the_other_backend(self, backend: Backend, second: Backend) -> None:
        called = threading.Event()
        backend.listen(called.set)
        for number in range(3):
            # A listener may be called more than once per commit: wait until those calls are over.
            while called.wait(self.patience / 100):
                called.clear()
            write(second, [(b"k", b"%d" % number)])
            assert called.wait(self.patience), "the listener was not called after a commit"
            assert backend.get(b"k") == b"%d" % number

    def test_foreign_commits_are_told_from_own_ones(self, backend: Backend, second: Backend) -> None:
        before = _foreign_commits(backend)
        if before is None:
            pytest.skip("the backend does not tell its own commits from those of others")
        for number in range(3):
            write(backend, [(b"k", b"%d" % number)])
            assert _foreign_commits(backend) == before, "a commit of its own counts"
            write(second, [(b"k", b"other")])
            after = _foreign_commits(backend)
            assert after != before, "a commit of the other backend does not count"
            before = after


def _foreign_commits(backend: Backend) -> Hashable:
    with backend.write_lock.entry():
        return backend.foreign_commits()
