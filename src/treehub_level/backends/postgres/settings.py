"""Where a store is, how it is to be reached, and what may be said of that."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ...errors import StorageError

#: What a store may be called: what a database may be called over HTTP.
STORE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
#: What a table may be called, with a schema before it or without. Nothing that SQL or psycopg would want to be quoted.
_TABLE_NAME: Final = re.compile(r"([a-z_][a-z0-9_]{0,62}\.)?[a-z_][a-z0-9_]{0,62}")

#: A URL up to its parameters, and these. A second "@" was meant to be a part of the password: libpq would take what is
#: between them for a host, and messages would show it.
_URL: Final = re.compile(r"(postgres(?:ql)?://(?:[^@/]*@|(?![^@/]*@))[^@?\0]*)(?:\?([^\0]*))?")
#: The ports of several hosts; each may be left out.
_PORTS: Final = re.compile("[0-9]{0,5}(,[0-9]{0,5})*")

#: Seconds after which a connection that is silent is asked whether it lives, then again and again, and given up.
_ALIVE: Final[dict[str, str | int]] = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # in milliseconds
    "fallback_application_name": "treehub-level",
}

#: The fewest connections that leave one each for a writer, a reader and a scan.
_FEWEST: Final = 4
_MOST: Final = 10_000
_LONGEST: Final = 86_400.0
#: The least seconds for which a writer may be silent: less would put out those that are busy with a large batch.
_SILENCE: Final = 5.0


def split_url(url: object) -> tuple[str, str | None]:
    """Part a URL, as the name of a store has it, from the store that it may name: ``?store=NAME``.

    Raises:
        TypeError: It is no str.
        StorageError: It is no URL.
    """
    if not isinstance(url, str):
        raise TypeError(f"the name of a PostgreSQL store must be a URL, a str, not a {type(url).__name__}")
    found = _URL.fullmatch(url)
    if found is None:
        raise _no_url()
    place, parameters = found[1], (found[2] or "").split("&")
    stores = [parameter for parameter in parameters if parameter.startswith("store=")]
    others = "&".join(parameter for parameter in parameters if parameter and parameter not in stores)
    store = unquote(stores[-1].removeprefix("store=")) if stores else None
    return f"{place}?{others}" if others else place, store


@dataclass(frozen=True)
class Settings:
    """What is shared by the stores that are in one table and are reached in one way.

    Attributes:
        conninfo: What libpq is given. It may hold a password, and is shown to nobody.
        label: The same, without what is secret, as a URL.
        table: The name of the table, ready for SQL.
        connections: How many there may be at once, that of the listener aside.
        lock_timeout: Seconds to wait for another writer, or for a connection.
        statement_timeout: Seconds that the server may work on one statement of a writer or a scan.
        notify: Whether the server tells of commits, if it can; otherwise it is asked.
    """

    conninfo: str = field(repr=False)
    label: str
    table: str
    connections: int
    lock_timeout: float
    statement_timeout: float
    notify: bool

    @property
    def silence_timeout(self) -> float:
        """Seconds for which a writer may send nothing while it keeps others out: less than they wait for it.

        So if its process hangs, the others, on other machines, have to wait, but do not fail.
        """
        return min(self.statement_timeout, max(_SILENCE, self.lock_timeout / 2))

    @property
    def channel(self) -> str:
        """What commits are told on."""
        return self.table.rpartition(".")[2]


def checked_settings(
    url: str, table: str, *, connections: int, lock_timeout: float, statement_timeout: float, notify: bool
) -> Settings:
    """Check what a backend was given, and split what is secret from what is not.

    Raises:
        TypeError: Something is of a wrong type.
        ValueError: A number is out of range.
        StorageError: The URL is none, or the table has no name that can be used.
    """
    conninfo, label = _parse(url)
    _check_name("table", table, _TABLE_NAME)
    if type(connections) is not int:
        raise TypeError(f"connections must be an int, not {connections!r:.80}")
    if not _FEWEST <= connections <= _MOST:
        raise ValueError(f"connections must be from {_FEWEST} to {_MOST}, not {connections}")
    if not isinstance(notify, bool):
        raise TypeError(f"notify must be a bool, not {notify!r:.80}")
    return Settings(
        conninfo,
        label,
        table,
        connections,
        _seconds("lock_timeout", lock_timeout),
        _seconds("statement_timeout", statement_timeout),
        notify,
    )


def checked_store(name: str) -> str:
    """The name of a store.

    Raises:
        TypeError: It is no str.
        StorageError: It is not one that a store can have.
    """
    return _check_name("store", name, STORE_NAME)


def _check_name(what: str, name: object, pattern: re.Pattern[str]) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the name of a {what} must be a str, not {name!r:.80}")
    if not pattern.fullmatch(name):
        raise StorageError(f"{name!r:.80} cannot name a {what} in PostgreSQL: it must match {pattern.pattern}")
    return name


def _seconds(option: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{option} must be a number of seconds, not {value!r:.80}")
    if not 0 < value <= _LONGEST:
        raise ValueError(f"{option} must be above 0 and at most {_LONGEST:.0f} seconds, not {value}")
    return float(value)


def _parse(url: str) -> tuple[str, str]:
    try:
        given = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    except psycopg.Error:
        given = None
    if given is None or not _PORTS.fullmatch(given.get("port", "")):
        raise _no_url()  # outside the block above, since what psycopg said may repeat a password
    label = "postgresql://"
    if user := given.get("user"):
        label += f"{quote(user, safe='')}@"
    label += quote(given.get("host") or given.get("hostaddr") or "", safe=",:[]")
    if port := given.get("port"):
        label += f":{port}"
    return make_conninfo("", **(_ALIVE | given)), f"{label}/{quote(given.get('dbname') or '')}"


def _no_url() -> StorageError:
    """The exception for what is no URL. Nothing of it is repeated: there may be a password in it."""
    return StorageError(
        "this is no URL of a PostgreSQL database: write postgresql://user:password@host:port/database, "
        "with %-escapes for special characters"
    )
