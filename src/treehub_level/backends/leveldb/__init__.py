"""Stores in a directory of LevelDB: the engine linked into this package, or plyvel."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .native import LevelDBBackend
    from .plyvel import PlyvelBackend

__all__ = ["LevelDBBackend", "PlyvelBackend"]

_MODULES: Final = {"LevelDBBackend": ".native", "PlyvelBackend": ".plyvel"}


def __getattr__(name: str) -> Any:
    """Import a backend when it is first asked for: either of the two libraries may be absent."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)
