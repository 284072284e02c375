"""Synchronisation over HTTP.

The server's side: a `Hub` of databases, served by the ASGI application that `create_app` makes, for those who hold one
of its `Tokens`. It needs the extra ``server``. `docs/http.md` has every route, status and limit.

The client's side: a `RemoteServer` stands in for a level in SERVER mode. It needs the extra ``http``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from .server.hub import Hub
from .server.tokens import Tokens

if TYPE_CHECKING:
    from .client.remote import RemoteServer
    from .server.app import create_app

__all__ = ["Hub", "RemoteServer", "Tokens", "create_app"]

#: Names that need a library beyond those of the package: where they live, and the extra that installs it.
_EXTRAS: Final = {"RemoteServer": (".client.remote", "http"), "create_app": (".server.app", "server")}


def __getattr__(name: str) -> Any:
    """Import such a name when it is asked for: a client need not have what a server needs, nor the other way round."""
    if name not in _EXTRAS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, extra = _EXTRAS[name]
    try:
        return getattr(import_module(module, __name__), name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"treehub_level.http.{name} needs {error.name}, which is not installed: "
            f'pip install "treehub-level[{extra}]"',
            name=error.name,
        ) from error
