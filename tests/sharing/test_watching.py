"""watch() of a store that another process writes to, with a change log and without one."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from treehub_level import Change, Mode, blocking
from treehub_level.backends.base import Backend
from treehub_level.backends.sqlite import SQLiteBackend
from treehub_level.engine.watch import StateWatch

PATIENCE = 20.0

#: Another process: it runs one line of Python on a level for each line of its input.
WRITER = """
import sys
from treehub_level import Delete, Mode, Put, blocking
with blocking.Level(sys.argv[1], backend=sys.argv[2], mode=Mode(sys.argv[3]), **eval(sys.argv[4])) as level:
    print("open", flush=True)
    for line in sys.stdin:
        exec(line)
        print("done", flush=True)
"""


class Writer:
    """Another process with the same store open."""

    def __init__(self, name: str, backend: str, mode: Mode, options: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WRITER, name, backend, mode.value, repr(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._read("open")

    def run(self, line: str) -> None:
        """Run a line of Python, and wait for its end."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._read("done")

    def _read(self, expected: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == expected + "\n"

    def end(self) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]


class Collector:
    """Takes the changes of a watch in a thread."""

    def __init__(self, changes: Iterator[Change]) -> None:
        self.taken: list[Change] = []
        self.data: dict[str, Any] = {}
        self._changes = changes
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        for change in self._changes:
            self.taken.append(change)
            if change.deleted:
                self.data.pop(change.key, None)
            else:
                self.data[change.key] = change.value

    def wait_for(self, data: dict[str, Any], patience: float = PATIENCE) -> None:
        """Wait until the changes make these data."""
        deadline = time.monotonic() + patience
        while self.data != data:
            assert time.monotonic() < deadline, self.taken
            time.sleep(0.005)


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str, dict[str, Any]]:
    """The name, the backend and the options of a store."""
    if request.param == "sqlite":
        return str(tmp_path / "store"), "sqlite", {}
    pytest.importorskip("psycopg")
    return request.getfixturevalue("postgres_url"), "postgres", {"store": f"watch-{time.time_ns()}"}


@contextmanager
def two_processes(where: tuple[str, str, dict[str, Any]], mode: Mode) -> Iterator[tuple[blocking.Level, Writer]]:
    name, backend, options = where
    with blocking.Level(name, backend=backend, mode=mode, **options) as level:
        level.load((f"old{n}", n) for n in range(3))
        writer = Writer(name, backend, mode, options)
        try:
            yield level, writer
        finally:
            writer.end()


@pytest.mark.parametrize("mode", [Mode.NORMAL, Mode.SERVER], ids=lambda mode: mode.value)
def test_changes_of_another_process_arrive_among_the_own_ones(where: Any, mode: Mode) -> None:
    with two_processes(where, mode) as (level, writer):
        collector, later = Collector(level.watch(initial=True)), Collector(level.watch(prefix="new"))
        called: list[Change] = []
        level.on_change(called.append)
        collector.wait_for({"old0": 0, "old1": 1, "old2": 2})
        writer.run("level.batch([Put('new', 1), Delete('old1'), Put('old2', [2])])")
        collector.wait_for({"old0": 0, "old2": [2], "new": 1})
        for n in range(2, 30):
            if n % 3:
                level.put("new", n)
            else:
                writer.run(f"level.put('new', {n})")
        writer.run("level.clear(prefix='old')")
        collector.wait_for({"new": 29})
        later.wait_for({"new": 29})
        values = [change.value for change in collector.taken if change.key == "new"]
        assert values == sorted(set(values)), "an older value after a newer one, or one twice"
        assert {change.origin for change in collector.taken} == {"initial", "local"}
        deadline = time.monotonic() + PATIENCE
        while called[-1:] == [] or {change.key for change in called if change.deleted} != {"old0", "old1", "old2"}:
            assert time.monotonic() < deadline, called
            time.sleep(0.005)


def test_many_keys_of_another_process_are_compared_in_parts(where: Any) -> None:
    with two_processes(where, Mode.NORMAL) as (level, writer):
        changes = level.watch()
        writer.run("level.load((f'k{n:04}', n) for n in range(2500))")
        writer.run("level.clear(gte='k1', lt='k2')")
        collector = Collector(changes)
        collector.wait_for({f"k{n:04}": n for n in range(2500) if not 1000 <= n < 2000})


def test_a_client_shows_the_changes_of_another_process(where: Any) -> None:
    """Those that are dirty are local."""
    with two_processes(where, Mode.CLIENT) as (level, writer):
        collector = Collector(level.watch())
        writer.run("level.put('new', 1)")
        collector.wait_for({"new": 1})
        assert [change.origin for change in collector.taken] == ["local"]


@pytest.mark.parametrize("where", ["sqlite"], indirect=True)
def test_own_commits_compare_nothing(where: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name, backend, options = where
    with blocking.Level(name, backend=backend, **options) as level:
        collector = Collector(level.watch(initial=True))
        level.put("a", 0)
        collector.wait_for({"a": 0})
        time.sleep(0.2)  # the listener's first call compares once
        comparisons: list[object] = []
        monkeypatch.setattr(StateWatch, "_compare", lambda *arguments: comparisons.append(arguments))
        for n in range(5):
            level.put("a", n)
            time.sleep(0.05)
        collector.wait_for({"a": 4})
        assert comparisons == []


@pytest.mark.parametrize("where", ["sqlite"], indirect=True)
def test_control_a_backend_that_does_not_see_others_is_found(where: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend: type[Backend] = SQLiteBackend
    monkeypatch.setattr(backend, "foreign_commits", lambda self: 1)
    with two_processes(where, Mode.NORMAL) as (level, writer):
        collector = Collector(level.watch())
        time.sleep(0.2)  # the listener's first call compares once
        writer.run("level.put('new', 1)")
        with pytest.raises(AssertionError):
            collector.wait_for({"new": 1}, patience=0.5)
