"""A process that opens damaged stores.

Each line of its input is a path, an engine and a mode, each line of its output the result.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from treehub_level import CorruptionError, Mode, blocking
from treehub_level.backends.leveldb.directory import DirectoryBackend

from .history import StoreState, options_of

#: A key that no writer uses.
MARK = "written after the damage"


def inspect_store(path: Path, engine: str, mode: Mode) -> dict[str, Any]:
    """Return the contents of a store, which must keep a write, or the error that refuses it."""
    try:
        found = StoreState.of(path, engine, mode)
        faults = blocking.verify(path, backend=engine).faults
        with blocking.Level(path, backend=engine, mode=mode, **options_of(engine)) as level:
            level.put(MARK, 1, durable=True)
        later = StoreState.of(path, engine, mode)
    except CorruptionError as error:
        return {"refused": str(error)}
    if later.data != {**found.data, MARK: 1}:
        faults = [*faults, "a write after the damage is missing, or other data appeared"]
    return {"digest": found.digest(), "log": found.log, "faults": faults}


def open_naively() -> None:
    """Open stores with LevelDB's defaults from now on, without verification."""
    DirectoryBackend._connect_verified = lambda self: self._connect(paranoid=False)  # type: ignore[method-assign]


if __name__ == "__main__":
    if sys.argv[1:] == ["naive"]:
        open_naively()
    for line in sys.stdin:
        path, engine, mode = json.loads(line)
        print(json.dumps(inspect_store(Path(path), engine, Mode(mode))), flush=True)
