"""Across the network: ``RemoteServer`` stands in for a level in SERVER mode."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .remote import RemoteServer

__all__ = ["RemoteServer"]

#: The module of each name: whoever wants the client need not have what the server needs, and the other way round.
_MODULES = {"RemoteServer": "remote"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
