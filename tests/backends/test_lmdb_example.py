"""The example ``lmdb_backend.py`` passes the conformance suite, and works in levels."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import lmdb
import pytest

from treehub_level import Backend, CorruptionError, InvalidKeyError, LockedError, Mode, StorageError, blocking
from treehub_level.testing import BackendConformance
from treehub_level.testing.conformance import BackendFactory

pytestmark = pytest.mark.once

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def guide() -> str:
    """The guide for authors of backends."""
    return (EXAMPLES.parent / "docs" / "backends.md").read_text(encoding="utf-8")


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class of the backend, without fsync, to spare the disk."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr("lmdb.open", partial(lmdb.open, sync=False))
    return import_module("lmdb_backend").LMDBBackend


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store")


class TestLMDB(BackendConformance):
    @pytest.fixture
    def backend_factory(self, make: Any, path: str) -> BackendFactory:
        return lambda: make(path)

    @pytest.fixture
    def unusable(self, make: Any, tmp_path: Path) -> Backend:
        (tmp_path / "file").touch()
        backend: Backend = make(str(tmp_path / "file" / "store"))
        return backend


def test_it_is_found_by_the_name_in_the_guide(
    make: Any, guide: str, tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [(group, name, target)] = re.findall(r'\[project\.entry-points\."(.+)"\]\n(\w+) = "(.+)"', guide)
    metadata = tmp_path / "installed" / "example-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))

    with blocking.Level(path, backend="lmdb", map_size=1 << 24) as level:
        level.put("a", 1)
        assert level.info()["backend"] == "LMDBBackend"


def test_the_test_file_in_the_guide_runs(guide: str, tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n(.+?)```", guide, flags=re.DOTALL)
    (tmp_path / "test_lmdb.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "open", "test_lmdb.py"]
    run = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert re.search(r"^[5-9] passed", run.stdout, flags=re.MULTILINE), run.stdout + run.stderr


def test_a_client_and_a_server_over_it_synchronise(make: Any, tmp_path: Path) -> None:
    with (
        blocking.Level(tmp_path / "server", backend=make, mode=Mode.SERVER) as server,
        blocking.Level(tmp_path / "one", backend=make, mode=Mode.CLIENT) as one,
        blocking.Level(tmp_path / "two", backend=make, mode=Mode.CLIENT) as two,
    ):
        one.load((f"key {number:04}", number) for number in range(1500))
        one.sync(server)
        two.put("key 0007", "mine")
        two.put("another", [1, "é"])
        report = two.sync(server)
        one.sync(server)
        assert [conflict.key for conflict in report.conflicts] == ["key 0007"]
        assert one.query() == two.query() == server.query()
        assert server.cid == 1501
    with blocking.Level(tmp_path / "server", backend=make, mode=Mode.SERVER) as server:
        assert server.cid == 1501


@pytest.mark.parametrize("mode", Mode, ids="mode={.value}".format)
def test_a_key_over_the_limit_is_refused_and_the_store_stays_usable(make: Any, path: str, mode: Mode) -> None:
    with blocking.Level(path, backend=make, mode=mode) as level:
        with pytest.raises(InvalidKeyError, match="LMDB at most 510"):
            level.put("k" * 511, 1)
        with pytest.raises(InvalidKeyError), level.write_batch() as batch:
            batch.put("a", 1)
            batch.put("é" * 300, 2)
        level.put("k" * 509, 1)
        assert level.query() == [("k" * 509, 1)]
        assert level.get("k" * 1024) is None


def test_a_full_map_is_a_storage_error_with_a_remedy_and_a_larger_map_works(make: Any, path: str) -> None:
    with blocking.Level(path, backend=make, map_size=1 << 18) as level:
        level.put("kept", 1)
        with pytest.raises(StorageError, match="larger map_size"):
            level.put("large", "x" * (1 << 18))
        assert level.query() == [("kept", 1)]
    with blocking.Level(path, backend=make, map_size=1 << 20) as level:
        level.put("large", "x" * (1 << 18))
        assert level.keys() == ["kept", "large"]


def test_another_process_cannot_open_it(make: Any, path: str) -> None:
    script = "import sys, lmdb_backend; lmdb_backend.LMDBBackend(sys.argv[1]).open()"
    with blocking.Level(path, backend=make):
        other = subprocess.run(
            [sys.executable, "-c", script, path],
            cwd=EXAMPLES,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert f"{LockedError.__name__}: the LMDB store at {path!r} is open already" in other.stderr


def test_a_file_that_is_not_lmdbs_is_a_corruption_error(make: Any, path: str) -> None:
    with blocking.Level(path, backend=make) as level:
        level.put("a", 1)
    (Path(path) / "data.mdb").write_bytes(b"nonsense" * 1024)
    with pytest.raises(CorruptionError, match="is damaged"):
        blocking.Level(path, backend=make).open()


def test_a_store_is_copied_to_it_and_back(make: Any, tmp_path: Path) -> None:
    first, second, third = (str(tmp_path / name) for name in ("first", "second", "third"))
    with blocking.Level(first, mode=Mode.SERVER) as level:
        level.load((f"key {number:04}", number) for number in range(1500))
    copied = blocking.copy(first, second, to_backend=make)
    copied_back = blocking.copy(second, third, from_backend=make)
    assert copied == copied_back
    with blocking.Level(second, backend=make, mode=Mode.SERVER) as level:
        assert level.cid == 1500


def test_a_store_with_a_longer_key_cannot_be_copied_to_it(make: Any, tmp_path: Path) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    with blocking.Level(first) as level:
        level.put("k" * 600, 1)
    with pytest.raises(InvalidKeyError, match=r"has a key of 600 bytes.* takes at most 510"):
        blocking.copy(first, second, to_backend=make)
    with blocking.Level(second, backend=make) as level:
        assert level.query() == [], "nothing was written: it is no half-made copy"
