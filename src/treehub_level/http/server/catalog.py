"""Catalogs of stores: directories (LevelDB), files (SQLite), or parts of a table (PostgreSQL)."""

from __future__ import annotations

import os
import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, ClassVar, Final

from ... import blocking
from ...backends import Backend, create
from ...backends.leveldb.files import holds_store
from ...backends.paths import checked_path
from ...errors import CorruptionError, LockedError, StorageError
from ...fsync import sync_directory
from ...types import Mode

#: Seconds for which a store in another mode than SERVER is not looked at again.
_REMEMBER_SECONDS: Final = 1.0

#: The folder of the stores that were set aside. It is no valid database name.
ASIDE: Final = ".dropped"
#: The prefix of the names of such stores in a table.
_ASIDE_PREFIX: Final = "."

#: The pattern of database names.
DATABASE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class Catalog(ABC):
    """The named stores at one location.

    Args:
        location: A path or a URL.
        options: Options for the levels of all its stores, ``backend`` and ``prefix`` included.
    """

    def __init__(self, location: str, options: Mapping[str, Any]) -> None:
        self._location = location
        self._options = dict(options)

    @abstractmethod
    def prepare(self, *, creating: bool, dry_run: bool = False) -> None:
        """Check that the location can hold stores, and create its directory if needed.

        Args:
            creating: True if stores are going to be created at the location.
            dry_run: True to create no directory.

        Raises:
            StorageError: The location is missing, cannot be reached, or cannot hold new stores.
            ValueError: The location is a store whose name is not a valid database name.
        """

    @abstractmethod
    def check(self) -> None:
        """Check that the location can be reached now.

        Raises:
            StorageError: The location is missing or cannot be reached.
        """

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of all stores. Stores in other modes than SERVER are included."""

    def sizes(self) -> dict[str, int | None]:
        """Return the bytes on disk of each store, open or not, without opening it.

        A size is ``None`` if only the open store can tell it.

        Raises:
            StorageError: The location cannot be reached.
            OSError: It cannot be read.
        """
        return dict.fromkeys(self.names())

    @abstractmethod
    def level_options(self, name: str) -> dict[str, Any]:
        """Return the arguments that open a store as a level. The store need not exist."""

    def find(self, name: str) -> dict[str, Any] | None:
        """Return the arguments that open an existing server store; ``None`` if there is none."""
        return self._if_server(self.level_options(name))

    def remove(self, name: str) -> None:
        """Delete a store that is closed.

        Raises:
            LockedError: Another process has it open.
            StorageError: It cannot be deleted.
        """
        backend = self._backend(self.level_options(name))
        backend.open()
        backend.close_and_remove(lambda reader: True)

    @abstractmethod
    def rename(self, old: str, new: str) -> None:
        """Give a store that is closed another name, which no other store has.

        Raises:
            LockedError: Another process has it open.
            StorageError: It cannot be renamed.
        """

    @abstractmethod
    def set_aside(self, name: str, stored_name: str) -> None:
        """Give a store that is closed a name that `names` and `find` do not know.

        Raises:
            LockedError: Another process has it open.
            StorageError: It cannot be renamed.
        """

    @abstractmethod
    def stored_aside(self) -> list[str]:
        """Return the stored names of the stores that were set aside."""

    @abstractmethod
    def put_back(self, stored_name: str, name: str) -> None:
        """Give a store that was set aside a name, which no other store has.

        Raises:
            StorageError: It cannot be renamed.
        """

    @abstractmethod
    def remove_aside(self, stored_name: str) -> None:
        """Remove a store that was set aside. Another process may do the same at the same time.

        Raises:
            StorageError: It cannot be removed.
        """

    @staticmethod
    def _backend(options: Mapping[str, Any]) -> Backend:
        """Return the backend of a store, closed, by the arguments that open it as a level."""
        own = {key: value for key, value in options.items() if key not in ("name", "backend", "prefix")}
        return create(options["backend"], options["name"], own)

    def _if_server(self, options: dict[str, Any]) -> dict[str, Any] | None:
        # Reading the mode neither changes the store nor keeps its owner from opening it.
        return options if blocking.stored_mode(**options) is Mode.SERVER else None


class _OtherStores:
    """The stores that were found not to be servers, for a while.

    To find the mode of a store takes reading its files, and any page on the web can ask for it.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, tuple[int, int]]] = {}

    def add(self, path: str) -> None:
        """Remember a store."""
        status = os.stat(path)
        now = time.monotonic()
        self._known = {known: entry for known, entry in self._known.items() if now - entry[0] < _REMEMBER_SECONDS}
        self._known[path] = now, (status.st_dev, status.st_ino)

    def __contains__(self, path: str) -> bool:
        known = self._known.get(path)
        if known is None or time.monotonic() - known[0] >= _REMEMBER_SECONDS:
            return False
        status = os.stat(path)
        return known[1] == (status.st_dev, status.st_ino)


class FileSystemCatalog(Catalog):
    """The stores in a directory, or a single store.

    A requested name is compared with the names of the directory entries; it never becomes part of
    a path. So a name such as ``..`` cannot reach outside the directory.
    """

    #: The file name extension of stores.
    suffix: ClassVar[str] = ""

    def __init__(self, location: str | os.PathLike[str], options: Mapping[str, Any]) -> None:
        super().__init__(os.path.abspath(checked_path(location, "a served")), options)
        self._others = _OtherStores()

    @staticmethod
    @abstractmethod
    def is_store(path: str) -> bool:
        """Return True if there is a store at ``path``."""

    def prepare(self, *, creating: bool, dry_run: bool = False) -> None:
        """See `Catalog.prepare`."""
        if creating and dry_run and not os.path.lexists(self._location):
            return
        if creating and not dry_run:
            os.makedirs(self._location, mode=0o700, exist_ok=True)
        self.check()
        if self.is_store(self._location):
            name = os.path.basename(self._location)
            if creating:
                raise StorageError(
                    f"cannot create stores in {self._location!r}, which is a store: give the directory above it"
                )
            if not DATABASE_NAME.fullmatch(name.removesuffix(self.suffix)):
                raise ValueError(
                    f"the store {self._location!r} would be served as {name!r}, which is not a valid database name "
                    f"({DATABASE_NAME.pattern}): rename it"
                )

    def check(self) -> None:
        """See `Catalog.check`."""
        if not (os.path.isdir(self._location) or self.is_store(self._location)):
            raise StorageError(f"cannot serve {self._location!r}: there is no such directory; create it first")

    def names(self) -> list[str]:
        """See `Catalog.names`."""
        return [name for name, path in self._candidates() if self.is_store(path)]

    def level_options(self, name: str) -> dict[str, Any]:
        """See `Catalog.level_options`."""
        return {"name": os.path.join(self._location, name + self.suffix), **self._options}

    def sizes(self) -> dict[str, int | None]:
        """See `Catalog.sizes`."""
        found: dict[str, int | None] = {}
        for name, path in self._candidates():
            with suppress(StorageError):  # it is being deleted
                if self.is_store(path):
                    found[name] = self._backend({"name": path, **self._options}).size_on_disk()
        return found

    def find(self, name: str) -> dict[str, Any] | None:
        """See `Catalog.find`."""
        with suppress(FileNotFoundError, NotADirectoryError):  # it was removed during the search
            for candidate, path in self._candidates():
                if candidate == name and self.is_store(path) and path not in self._others:
                    found = self._if_server({"name": path, **self._options})
                    if found is None:
                        self._others.add(path)
                    return found
        return None

    def remove(self, name: str) -> None:
        """See `Catalog.remove`."""
        self._check_directory()
        super().remove(name)
        with suppress(OSError):  # it holds files of others
            os.rmdir(self.level_options(name)["name"])

    def rename(self, old: str, new: str) -> None:
        """See `Catalog.rename`."""
        self._check_directory()
        self._settle(old)
        self._move(self._path(old), self._path(new))

    def set_aside(self, name: str, stored_name: str) -> None:
        """See `Catalog.set_aside`."""
        self._check_directory()
        with suppress(CorruptionError):  # it can be moved all the same
            self._settle(name)
        try:
            os.makedirs(os.path.join(self._location, ASIDE), mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot create {ASIDE!r} in {self._location!r}: {error.strerror}") from error
        self._move(self._path(name), self._path(stored_name, ASIDE))

    def stored_aside(self) -> list[str]:
        """See `Catalog.stored_aside`."""
        with suppress(FileNotFoundError, NotADirectoryError):
            names = os.listdir(os.path.join(self._location, ASIDE))
            return [name.removesuffix(self.suffix) for name in names if name.endswith(self.suffix)]
        return []

    def put_back(self, stored_name: str, name: str) -> None:
        """See `Catalog.put_back`."""
        self._move(self._path(stored_name, ASIDE), self._path(name))

    def remove_aside(self, stored_name: str) -> None:
        """See `Catalog.remove_aside`. Of a store that is a symbolic link the link is removed."""
        path = self._path(stored_name, ASIDE)
        try:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StorageError(f"the dropped store {path!r} cannot be removed: {error.strerror}") from error

    def _path(self, name: str, folder: str = "") -> str:
        return os.path.join(self._location, folder, name + self.suffix)

    def _settle(self, name: str) -> None:
        """Open and close a store, so that it is recovered; alone, if its backend is not shared.

        Raises:
            LockedError: Another process has it open.
        """
        backend = self._backend(self.level_options(name))
        backend.open()
        backend.close()

    @staticmethod
    def _move(source: str, target: str) -> None:
        try:
            os.rename(source, target)
            for folder in {os.path.dirname(source), os.path.dirname(target)}:
                sync_directory(folder)
        except OSError as error:
            raise StorageError(f"the store {source!r} cannot be moved to {target!r}: {error.strerror}") from error

    def _check_directory(self) -> None:
        """Check that the location is a directory of stores.

        Raises:
            StorageError: It is a single store.
        """
        if self.is_store(self._location):
            raise StorageError(
                f"{self._location!r} is a store, not a directory of stores: administer it by its own files"
            )

    def _candidates(self) -> Iterator[tuple[str, str]]:
        """Iterate over the paths that may be stores, each with its database name."""
        if self.is_store(self._location):
            yield os.path.basename(self._location).removesuffix(self.suffix), self._location
            return
        with os.scandir(self._location) as entries:
            for entry in entries:
                name = entry.name.removesuffix(self.suffix)
                if entry.name == name + self.suffix and DATABASE_NAME.fullmatch(name):
                    yield name, entry.path


class DirectoryCatalog(FileSystemCatalog):
    """Stores that are directories of LevelDB files."""

    @staticmethod
    def is_store(path: str) -> bool:
        """See `FileSystemCatalog.is_store`."""
        return os.path.isdir(path) and holds_store(path)


class FileCatalog(FileSystemCatalog):
    """Stores that are SQLite files: the database ``notes`` is the file ``notes.sqlite``."""

    suffix = ".sqlite"

    @staticmethod
    def is_store(path: str) -> bool:
        """See `FileSystemCatalog.is_store`."""
        return path.endswith(FileCatalog.suffix) and os.path.isfile(path)

    def _settle(self, name: str) -> None:
        """See `FileSystemCatalog._settle`. The last process that closes a store removes its log.

        A file that is moved without its write-ahead log would lose the last commits.
        """
        super()._settle(name)
        if os.path.exists(self._path(name) + "-wal"):
            raise LockedError(
                f"another process has the store {self._path(name)!r} open: close it there, or ask the server that "
                "serves it"
            )

    @staticmethod
    def _move(source: str, target: str) -> None:
        """See `FileSystemCatalog._move`.

        SQLite would apply a write-ahead log that it finds beside the moved file, to any database.
        """
        for name in (target, target + "-wal", target + "-journal"):
            if os.path.lexists(name):
                raise StorageError(
                    f"the store {source!r} cannot be moved to {target!r}: remove {name!r}, which is there"
                )
        FileSystemCatalog._move(source, target)


class TableCatalog(Catalog):
    """Stores in one table of a database server. The location is a URL, perhaps with a password."""

    def prepare(self, *, creating: bool, dry_run: bool = False) -> None:
        """See `Catalog.prepare`."""
        self.check()

    def check(self) -> None:
        """See `Catalog.check`."""
        # `exists()` queries the database server over a new connection.
        self._probe_backend().exists()

    def names(self) -> list[str]:
        """See `Catalog.names`."""
        return [name for name in self._stored_names() if DATABASE_NAME.fullmatch(name)]

    def _stored_names(self) -> list[str]:
        self._probe_backend()  # raises an error that names the extra, if psycopg is not installed
        from ...backends.postgres import stored_names

        return stored_names(self._location, **self._backend_options)

    def level_options(self, name: str) -> dict[str, Any]:
        """See `Catalog.level_options`."""
        return {"name": self._location, "store": name, **self._options}

    def rename(self, old: str, new: str) -> None:
        """See `Catalog.rename`."""
        self._probe_backend()  # raises an error that names the extra, if psycopg is not installed
        from ...backends.postgres import rename_store

        rename_store(self._location, old, new, **self._backend_options)

    def set_aside(self, name: str, stored_name: str) -> None:
        """See `Catalog.set_aside`."""
        self.rename(name, _ASIDE_PREFIX + stored_name)

    def stored_aside(self) -> list[str]:
        """See `Catalog.stored_aside`."""
        return [name.removeprefix(_ASIDE_PREFIX) for name in self._stored_names() if name.startswith(_ASIDE_PREFIX)]

    def put_back(self, stored_name: str, name: str) -> None:
        """See `Catalog.put_back`."""
        self.rename(_ASIDE_PREFIX + stored_name, name)

    def remove_aside(self, stored_name: str) -> None:
        """See `Catalog.remove_aside`."""
        from ...backends.postgres import remove_store

        remove_store(self._location, _ASIDE_PREFIX + stored_name, **self._backend_options)

    def _probe_backend(self) -> Backend:
        """Return a backend for checks of the database server. The name of its store is unused."""
        return create(self._options["backend"], self._location, {**self._backend_options, "store": "any"})

    @property
    def _backend_options(self) -> dict[str, Any]:
        return {name: value for name, value in self._options.items() if name not in ("backend", "prefix")}


def create_catalog(location: str | os.PathLike[str], options: Mapping[str, Any]) -> Catalog:
    """Create the catalog for ``options["backend"]``; by default a `DirectoryCatalog`."""
    classes: dict[str, type[FileCatalog | TableCatalog]] = {"sqlite": FileCatalog, "postgres": TableCatalog}
    return classes.get(options["backend"], DirectoryCatalog)(os.fspath(location), options)
