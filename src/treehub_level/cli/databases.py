"""The commands for the life of databases: ``create rename drop undrop list``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, Protocol
from urllib.parse import urlsplit

import typer

from ..errors import TransportError
from ..http.server.administration import Administrator
from ..http.server.catalog import create_catalog
from ..http.server.dropped import KEEP
from ..http.server.refusals import RefusedError
from .errors import CommandError
from .options import Backend, JSONOutput, MetadataPrefix
from .output import print_json, print_line
from .remote import Insecure, TokenFile, is_url, remote_server
from .stores import check_prefix

#: The name in a URL for calls that concern no single database.
_ANY_NAME = "any"

Root = Annotated[
    str,
    typer.Argument(
        metavar="DIR|URL",
        help="The served directory, or the URL of the server (http://HOST:PORT); for --backend postgres, a "
        "database URL.",
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the database.")]


class _Databases(Protocol):
    """The databases of a directory or of a server."""

    def names(self) -> list[str]: ...
    def dropped(self) -> list[dict[str, str]]: ...
    def create(self, name: str) -> None: ...
    def rename(self, old: str, new: str) -> None: ...
    def drop(self, name: str, *, now: bool) -> None: ...
    def undrop(self, name: str, to: str | None) -> str: ...


class _OfDirectory:
    """The databases of a served directory, or in a table.

    Each command first removes those that were dropped a day ago.
    """

    def __init__(self, root: str, backend: str, prefix: str, *, creating: bool) -> None:
        check_prefix(prefix)
        catalog = create_catalog(root, {"backend": backend, "prefix": prefix})
        catalog.prepare(creating=creating)
        self._administrator = Administrator(catalog)
        self._administrator.remove_expired()
        self.names = self._administrator.names
        self.create = self._administrator.create
        self.rename = self._administrator.rename
        self.undrop = self._administrator.undrop

    def dropped(self) -> list[dict[str, str]]:
        return [dropped.document() for dropped in self._administrator.dropped()]

    def drop(self, name: str, *, now: bool) -> None:
        (self._administrator.delete if now else self._administrator.drop)(name)


class _OfServer:
    """The databases of a server."""

    def __init__(self, url: str, token_file: str | None, insecure: bool) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        self._options: dict[str, Any] = {"token_file": token_file, "insecure": insecure}

    def _server(self, name: str = _ANY_NAME) -> Any:
        return remote_server(f"{self._url}/v1/{name}", **self._options)

    def names(self) -> list[str]:
        with self._server() as server:
            found: list[str] = server.databases()["databases"]
        return found

    def dropped(self) -> list[dict[str, str]]:
        with self._server() as server:
            found: list[dict[str, str]] = server.databases()["dropped"]
        return found

    def create(self, name: str) -> None:
        with self._server(name) as server:
            server.create()

    def rename(self, old: str, new: str) -> None:
        with self._server(old) as server:
            server.rename(new)

    def drop(self, name: str, *, now: bool) -> None:
        with self._server(name) as server:
            server.drop(now=now)

    def undrop(self, name: str, to: str | None) -> str:
        with self._server(name) as server:
            restored: str = server.undrop(to=to)
        return restored


@contextmanager
def _databases(
    root: str, token_file: str | None, insecure: bool, backend: str, prefix: str, *, creating: bool = False
) -> Iterator[_Databases]:
    """Yield the databases of a directory or of a server, and name the causes of failures.

    Raises:
        typer.BadParameter: A name or the URL is invalid.
        CommandError: There is no such database.
    """
    try:
        if is_url(root):
            _check_server_url(root)
            yield _OfServer(root, token_file, insecure)
        else:
            yield _OfDirectory(root, backend, prefix, creating=creating)
    except RefusedError as error:  # the server's words name a token, which a directory has not
        raise CommandError(
            "there is no such database here: see `treehub-level list`, with --dropped for dropped ones", code=error.code
        ) from error
    except TransportError as error:
        if error.status != 404:
            raise
        raise CommandError(f"{error}; `treehub-level list` names those that it covers", code=error.code) from error
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _check_server_url(url: str) -> None:
    path = urlsplit(url).path.rstrip("/")
    if "/v1/" in path:
        raise typer.BadParameter("give the URL of the server, and the name of the database after it: http://HOST:PORT")


def create(
    root: Root,
    name: Name,
    token_file: TokenFile = None,
    insecure: Insecure = False,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Create an empty database in a served directory, or on a server.

    A running server serves it from the next request on. On a server this needs the token of an
    operator.
    """
    with _databases(root, token_file, insecure, backend, metadata_prefix, creating=True) as databases:
        databases.create(name)
    _report(as_json, {"created": name}, f"created {name}")


def rename(
    root: Root,
    old: Annotated[str, typer.Argument(metavar="OLD", help="The name of the database.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
    token_file: TokenFile = None,
    insecure: Insecure = False,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Give a database another name.

    It stays the same store: clients go on under the new URL, without a new first sync. Under the
    old one they get 404.
    """
    with _databases(root, token_file, insecure, backend, metadata_prefix) as databases:
        databases.rename(old, new)
    _report(as_json, {"renamed": old, "to": new}, f"renamed {old} to {new}")


def drop(
    root: Root,
    name: Name,
    now: Annotated[bool, typer.Option("--now", help="Remove it for good at once, not a day later.")] = False,
    token_file: TokenFile = None,
    insecure: Insecure = False,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Drop a database: `undrop` restores it within a day.

    Its clients get 404 at once. After a day the server, or the next command for the directory,
    removes it for good.
    """
    with _databases(root, token_file, insecure, backend, metadata_prefix) as databases:
        databases.drop(name, now=now)
    hours = int(KEEP.total_seconds() // 3600)
    undo = "" if now else f": `treehub-level undrop {root} {name}` restores it within {hours} hours"
    _report(as_json, {"dropped": name, "now": now}, f"{'removed' if now else 'dropped'} {name}{undo}")


def undrop(
    root: Root,
    name: Name,
    to: Annotated[str | None, typer.Option("--as", metavar="NEW", help="Restore it under this name.")] = None,
    token_file: TokenFile = None,
    insecure: Insecure = False,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Restore a database that was dropped, as the same store.

    Of several that had the name, the one that was dropped last is restored.
    """
    with _databases(root, token_file, insecure, backend, metadata_prefix) as databases:
        restored = databases.undrop(name, to)
    _report(as_json, {"restored": name, "as": restored}, f"restored {name}{'' if to is None else f' as {to}'}")


def list_(
    root: Root,
    dropped: Annotated[bool, typer.Option("--dropped", help="The dropped databases that can be restored.")] = False,
    token_file: TokenFile = None,
    insecure: Insecure = False,
    as_json: JSONOutput = False,
    backend: Backend = "leveldb",
    metadata_prefix: MetadataPrefix = "!",
) -> None:
    """Print the names of the databases in a served directory, or on a server.

    With --dropped, each line has the name, the time at which the database was dropped, and the one
    from which on it is removed.
    """
    with _databases(root, token_file, insecure, backend, metadata_prefix) as databases:
        found = databases.dropped() if dropped else databases.names()
    for item in found:
        if as_json:
            print_json(item if isinstance(item, dict) else {"name": item})
        elif isinstance(item, dict):
            print_line(item["name"], f"dropped {_when(item['dropped_at'])}", f"until {_when(item['removed_at'])}")
        else:
            print_line(item)


def _when(time: str) -> str:
    try:
        return f"{datetime.fromisoformat(time.replace('Z', '+00:00')):%Y-%m-%d %H:%M:%S} UTC"
    except ValueError:  # of a later version of the server
        return time


def _report(as_json: bool, document: dict[str, object], line: str) -> None:
    if as_json:
        print_json(document)
    else:
        print_line(line)
