"""What `BackendConformance` asks of backends whose stores are shared: two of them have one store open."""

# see conformance.py

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest

from ..backends.base import Backend
from .support import closing, counted_together, rows, write

#: Makes a backend that is not open. Where ``supports.persistent``, all that it makes are of one
#: store.
BackendFactory = Callable[[], Backend]


class SharedStores:
    """The part of the suite for ``supports.shared``."""

    #: Seconds that no step of a test with threads should take.
    patience: ClassVar[float] = 30.0

    @pytest.fixture
    def second(self, backend: Backend, backend_factory: BackendFactory) -> Iterator[Backend]:
        """Another backend that has the store of ``backend`` open."""
        if not backend.supports.shared:
            pytest.skip("it does not claim to be shared")
        second = backend_factory()
        second.open()
        yield second
        second.close()

    def test_a_shared_store_shows_each_backend_what_the_other_wrote(self, backend: Backend, second: Backend) -> None:
        write(backend, [(b"k", b"1")])
        assert second.get(b"k") == b"1"
        write(second, [(b"k", b"2")])
        assert (backend.get(b"k"), backend.get_many([b"k"]), rows(backend)) == (b"2", [b"2"], [(b"k", b"2")])

    def test_writers_of_a_shared_store_take_turns(self, backend: Backend, second: Backend) -> None:
        assert counted_together([backend, second], 25, self.patience) == 50
        assert second.get(b"count") == b"50"

    def test_a_block_that_raises_lets_the_other_backend_in(self, backend: Backend, second: Backend) -> None:
        with pytest.raises(ArithmeticError), backend.exclusive():
            raise ArithmeticError
        with ThreadPoolExecutor(1) as pool:
            pool.submit(write, second, [(b"k", b"2")]).result(self.patience)
        assert backend.get(b"k") == b"2"

    def test_a_moment_of_a_shared_store_lacks_what_the_other_backend_writes(
        self, backend: Backend, second: Backend
    ) -> None:
        write(second, [(b"a", b"1"), (b"b", b"1")])
        with closing(backend.snapshot()) as snapshot, closing(backend.scan(None, None)) as cursor:
            write(second, [(b"a", None), (b"b", b"2"), (b"c", b"2")])
            assert snapshot.get_many([b"a", b"b", b"c"]) == [b"1", b"1", None]
            assert rows(snapshot) == cursor.fetch(10) == [(b"a", b"1"), (b"b", b"1")]
        assert rows(backend) == [(b"b", b"2"), (b"c", b"2")]

    def test_whoever_listens_hears_of_the_other_backends_commits(self, backend: Backend, second: Backend) -> None:
        heard = threading.Event()
        backend.listen(heard.set)
        for number in range(3):
            # It may hear once too often. So it is waited until it has heard all there is to hear,
            # and then for more.
            while heard.wait(self.patience / 100):
                heard.clear()
            write(second, [(b"k", b"%d" % number)])
            assert heard.wait(self.patience), "it has not heard of a commit"
            assert backend.get(b"k") == b"%d" % number
