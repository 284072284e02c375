"""Synchronisation over HTTP.

Server: `create_app` makes an ASGI application that serves the databases of a `Hub` to holders of
bearer `Tokens`, or to the users of an application (`Identity`, `JWT`), within `Limits`. It needs
the extra ``server``. ``docs/http.md`` describes every
route, status and limit.

Client: a `RemoteServer` takes the place of a level in SERVER mode. It needs the extra ``http``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from ..extras import missing
from .server.dropped import DroppedDatabase
from .server.hub import Hub
from .server.identities import Identity
from .server.limits import Limits
from .server.quotas import Quota
from .server.refusals import RefusedError
from .server.tokens import Token, Tokens

if TYPE_CHECKING:
    from .client.remote import RemoteServer
    from .server.app import create_app
    from .server.jwt import JWT

__all__ = [
    "JWT",
    "DroppedDatabase",
    "Hub",
    "Identity",
    "Limits",
    "Quota",
    "RefusedError",
    "RemoteServer",
    "Token",
    "Tokens",
    "create_app",
]

#: Names that need an optional dependency: the module that defines each, and the extra to install.
_EXTRAS: Final = {
    "JWT": (".server.jwt", "jwt"),
    "RemoteServer": (".client.remote", "http"),
    "create_app": (".server.app", "server"),
}


def __getattr__(name: str) -> Any:
    """Import a name of `_EXTRAS` on first use, so that a client needs no server's dependencies."""
    if name not in _EXTRAS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, extra = _EXTRAS[name]
    try:
        return getattr(import_module(module, __name__), name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise ModuleNotFoundError(missing(f"treehub_level.http.{name}", package, extra), name=error.name) from error
