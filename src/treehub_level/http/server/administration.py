"""The life of the databases in a catalog: they are created, renamed, dropped and restored."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from ... import blocking
from ...engine import clock
from ...errors import CorruptionError, StateError
from ...types import Mode
from .catalog import DATABASE_NAME, Catalog
from .dropped import DroppedDatabase
from .refusals import RefusedError, database_not_found


def check_database_name(name: object) -> str:
    """Return a name if a database can have it.

    Raises:
        ValueError: It is invalid.
    """
    if not isinstance(name, str) or not DATABASE_NAME.fullmatch(name):
        raise ValueError(f"{name!r:.80} is not a valid database name: use {DATABASE_NAME.pattern}")
    return name


def create_store(catalog: Catalog, name: str) -> None:
    """Create a store unless it exists.

    Raises:
        LevelError: It exists and cannot be opened, or cannot be created.
    """
    with blocking.Level(mode=Mode.SERVER, **catalog.level_options(name)):
        pass


def _now() -> datetime:
    return datetime.fromtimestamp(clock.unix_ms() / 1000, timezone.utc)


class Administrator:
    """Changes the set of stores in a catalog. No level of this process may have them open.

    Each method raises ``ValueError`` for an invalid name, ``StorageError`` if the change cannot be
    made, and ``LockedError`` if another process has the store open.

    Args:
        catalog: The catalog.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def names(self) -> list[str]:
        """Return the sorted names of the stores, those in other modes than SERVER included."""
        return sorted(self._catalog.names())

    def dropped(self) -> list[DroppedDatabase]:
        """Return the dropped databases, oldest first."""
        found = [*filter(None, map(DroppedDatabase.parse, self._catalog.stored_aside()))]
        return sorted(found, key=lambda dropped: dropped.dropped_at)

    def create(self, name: str) -> None:
        """Create an empty database.

        Raises:
            StateError: There is a store of that name.
        """
        self._catalog.prepare(creating=True)
        self._require_free(name)
        create_store(self._catalog, name)

    def rename(self, old: str, new: str) -> None:
        """Give a database another name. It stays the same store.

        Raises:
            RefusedError: There is no database ``old``.
            StateError: There is a store ``new``.
        """
        if old == new:
            raise ValueError(f"the database is named {new!r} already")
        self._require_database(old)
        self._require_free(new)
        self._catalog.rename(old, new)

    def drop(self, name: str) -> DroppedDatabase:
        """Set a database aside. It can be restored until `remove_expired` removes it.

        A damaged database can be dropped, too.

        Raises:
            RefusedError: There is no such database.
        """
        self._require_database(name)
        dropped = DroppedDatabase(name, _now())
        while dropped in self.dropped():  # the clock was set back
            dropped = DroppedDatabase(name, dropped.dropped_at + timedelta(microseconds=1))
        self._catalog.set_aside(name, dropped.stored_name)
        return dropped

    def delete(self, name: str) -> None:
        """Remove a database for good.

        Raises:
            RefusedError: There is no such database.
        """
        self._require_database(name)
        self._catalog.remove(name)

    def undrop(self, name: str, to: str | None = None) -> str:
        """Restore the database that was dropped last under a name.

        Args:
            name: The name that it had.
            to: Its new name; ``None`` for the old one.

        Returns:
            Its name.

        Raises:
            RefusedError: There is no such dropped database.
            StateError: There is a store of the new name.
        """
        check_database_name(name)
        new = name if to is None else to
        self._require_free(new)
        found = [dropped for dropped in self.dropped() if dropped.name == name]
        if not found:
            raise RefusedError(
                404,
                database_not_found().code,
                f"there is no dropped database {name!r}: it was never dropped, or it was removed a day later",
            )
        self._catalog.put_back(found[-1].stored_name, new)
        return new

    def remove_expired(self) -> list[DroppedDatabase]:
        """Remove the databases that were dropped a day ago, and return them."""
        now = _now()
        expired = [dropped for dropped in self.dropped() if dropped.removed_at <= now]
        for dropped in expired:
            self._catalog.remove_aside(dropped.stored_name)
        return expired

    def _require_database(self, name: str) -> None:
        check_database_name(name)
        try:
            found = self._catalog.find(name)
        except CorruptionError:
            return  # its mode is unknown
        if found is None:
            raise database_not_found()

    def _require_free(self, name: str) -> None:
        if check_database_name(name) in self._catalog.names():
            raise StateError(f"there is a store {name!r} already: choose another name, or drop it first")
