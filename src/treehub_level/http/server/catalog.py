"""Where a hub finds its stores: directories of LevelDB's in a directory, files of SQLite's, a table of PostgreSQL's."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, ClassVar, Final

from ... import blocking
from ...backends import Backend, create
from ...backends.leveldb.directory import holds_store
from ...backends.paths import checked_path
from ...errors import StorageError
from ...types import Mode

#: What a database may be called.
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class Root(ABC):
    """A place with stores in it, each of which has a name.

    Args:
        at: The place.
        options: What a level of any of its stores is given besides: ``backend`` and ``prefix`` among it.
    """

    def __init__(self, at: str, options: Mapping[str, Any]) -> None:
        self._at = at
        self._options = dict(options)

    @abstractmethod
    def prepare(self, *, making: bool) -> None:
        """See whether stores can be found here, and made if some are to be.

        Raises:
            StorageError: They cannot.
            ValueError: What is here has a name that cannot name a database.
        """

    @abstractmethod
    def check(self) -> None:
        """See whether stores can be reached at the moment.

        Raises:
            StorageError: They cannot.
        """

    @abstractmethod
    def names(self) -> list[str]:
        """The names of all stores that there are. Those that are no server stores are among them."""

    @abstractmethod
    def arguments(self, name: str) -> dict[str, Any]:
        """What makes a level of the store of that name, which need not be there."""

    def find(self, name: str) -> dict[str, Any] | None:
        """What makes a level of a server store that is there; ``None`` if there is none of that name."""
        return self._server(self.arguments(name))

    def _server(self, arguments: dict[str, Any]) -> dict[str, Any] | None:
        return arguments if blocking.stored_mode(**arguments) is Mode.SERVER else None


class _Folder(Root):
    """A directory with stores in it, or a store itself. A name is looked up among them, and never becomes a path."""

    #: What the name of a store's file ends with.
    suffix: ClassVar[str] = ""

    def __init__(self, at: str | os.PathLike[str], options: Mapping[str, Any]) -> None:
        super().__init__(os.path.abspath(checked_path(at, "a served")), options)

    @staticmethod
    @abstractmethod
    def is_store(path: str) -> bool:
        """Whether there is a store at a path."""

    def prepare(self, *, making: bool) -> None:
        """See `Root.prepare`."""
        if making:
            os.makedirs(self._at, exist_ok=True)
        self.check()
        if self.is_store(self._at):
            name = os.path.basename(self._at)
            if making:
                raise StorageError(f"cannot make stores in {self._at!r}: that is a store itself")
            if not NAME.fullmatch(name.removesuffix(self.suffix)):
                raise ValueError(
                    f"the store {self._at!r} would be served as {name!r}, which cannot name a database "
                    f"({NAME.pattern}): rename it"
                )

    def check(self) -> None:
        """See `Root.check`."""
        if not (os.path.isdir(self._at) or self.is_store(self._at)):
            raise StorageError(f"cannot serve {self._at!r}: there is no such directory")

    def names(self) -> list[str]:
        """See `Root.names`."""
        return [name for name, path in self._places() if self.is_store(path)]

    def arguments(self, name: str) -> dict[str, Any]:
        """See `Root.arguments`."""
        return {"name": os.path.join(self._at, name + self.suffix), **self._options}

    def find(self, name: str) -> dict[str, Any] | None:
        """See `Root.find`."""
        with suppress(FileNotFoundError, NotADirectoryError):  # it went away while it was looked at
            for found, path in self._places():
                if found == name and self.is_store(path):
                    return self._server({"name": path, **self._options})
        return None

    def _places(self) -> Iterator[tuple[str, str]]:
        """Each name that something here may be asked for by, and where it is."""
        if self.is_store(self._at):
            yield os.path.basename(self._at).removesuffix(self.suffix), self._at
            return
        with os.scandir(self._at) as entries:
            for entry in entries:
                name = entry.name.removesuffix(self.suffix)
                if entry.name == name + self.suffix and NAME.fullmatch(name):
                    yield name, entry.path


class Directories(_Folder):
    """Stores that are directories, of LevelDB's files."""

    @staticmethod
    def is_store(path: str) -> bool:
        """See `_Folder.is_store`."""
        return os.path.isdir(path) and holds_store(path)


class Files(_Folder):
    """Stores that are files, of SQLite's: the database ``notes`` is in ``notes.sqlite``."""

    suffix = ".sqlite"

    @staticmethod
    def is_store(path: str) -> bool:
        """See `_Folder.is_store`."""
        return path.endswith(Files.suffix) and os.path.isfile(path)


class Table(Root):
    """Stores that are in one table of a database server, by their names. The place is a URL, perhaps with a secret."""

    def prepare(self, *, making: bool) -> None:
        """See `Root.prepare`."""
        self.check()

    def check(self) -> None:
        """See `Root.check`."""
        # Whether there is such a store is asked of the server, over a new connection.
        self._any_store().exists()

    def names(self) -> list[str]:
        """See `Root.names`."""
        self._any_store()  # says what is not installed
        from ...backends.postgres import stored_names

        return [name for name in stored_names(self._at, **self._backend_options) if NAME.fullmatch(name)]

    def arguments(self, name: str) -> dict[str, Any]:
        """See `Root.arguments`."""
        return {"name": self._at, "store": name, **self._options}

    def _any_store(self) -> Backend:
        return create(self._options["backend"], self._at, {**self._backend_options, "store": "any"})

    @property
    def _backend_options(self) -> dict[str, Any]:
        return {name: value for name, value in self._options.items() if name not in ("backend", "prefix")}


def root_at(at: str | os.PathLike[str], options: Mapping[str, Any]) -> Root:
    """The root of the kind that the backend among the options has."""
    kinds: dict[str, type[Files | Table]] = {"sqlite": Files, "postgres": Table}
    return kinds.get(options["backend"], Directories)(os.fspath(at), options)
