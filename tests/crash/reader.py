"""The process that opens damaged stores: for each line on its input, a path, an engine and a mode, what it found."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from treehub_level import CorruptionError, Mode, blocking
from treehub_level.backends.leveldb.directory import DirectoryBackend

from .history import OPTIONS, Moment

#: A key that nobody else writes.
MARK = "written after the damage"


def look(path: Path, engine: str, mode: Mode) -> dict[str, Any]:
    """What is in a store, unless it is refused, when opened or when read. Then it must take a write, and keep it."""
    try:
        found = Moment.of(path, engine, mode)
        faults = blocking.verify(path, backend=engine).faults
        with blocking.Level(path, backend=engine, mode=mode, **OPTIONS) as level:
            level.put(MARK, 1, durable=True)
        later = Moment.of(path, engine, mode)
    except CorruptionError as error:
        return {"refused": str(error)}
    if later.data != {**found.data, MARK: 1}:
        faults = [*faults, "what was written after the damage is not there, or not alone"]
    return {"digest": found.digest(), "log": found.log, "faults": faults}


def open_naively() -> None:
    """Open stores as LevelDB does by default, from now on."""
    DirectoryBackend._connect_verified = lambda self: self._connect(paranoid=False)  # type: ignore[method-assign]


if __name__ == "__main__":
    if sys.argv[1:] == ["naive"]:
        open_naively()
    for line in sys.stdin:
        path, engine, mode = json.loads(line)
        print(json.dumps(look(Path(path), engine, Mode(mode))), flush=True)
