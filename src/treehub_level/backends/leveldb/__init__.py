"""The LevelDB backends: one linked against LevelDB itself, and one on top of plyvel.

Either library may be absent, so importing this package imports neither of the two backends: the
first access to the name of a backend imports its module.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .native import LevelDBBackend
    from .plyvel import PlyvelBackend

__all__ = ["LevelDBBackend", "PlyvelBackend"]

_MODULES: Final = {"LevelDBBackend": ".native", "PlyvelBackend": ".plyvel"}


def __getattr__(name: str) -> Any:
    """Import the module of a backend and return its class (PEP 562).

    Raises:
        ImportError: The library of that backend is not installed.
        AttributeError: There is no backend of that name.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)
