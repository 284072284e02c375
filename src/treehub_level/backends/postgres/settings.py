"""The connection settings of a table: parsing, validation, and a label without secrets."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ...errors import StorageError

#: The name of a store. It is also a valid database name in the HTTP API.
STORE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
#: The name of a dropped store, which no level opens: a period, the time, and the name that it had.
_ASIDE_NAME: Final = re.compile(r"\.[0-9]{8}T[0-9]{6}\.[0-9]{6}Z-" + STORE_NAME.pattern)
#: The name of a table, optionally with a schema. All matching names are safe in SQL without quotes.
_TABLE_NAME: Final = re.compile(r"([a-z_][a-z0-9_]{0,62}\.)?[a-z_][a-z0-9_]{0,62}")

#: A URL, split before its parameters. More than one "@" is rejected: the first is most likely part
#: of a password that was not escaped, and libpq would take the rest of the password for the host,
#: which error messages show.
_URL: Final = re.compile(r"(postgres(?:ql)?://(?:[^@/]*@|(?![^@/]*@))[^@?\0]*)(?:\?([^\0]*))?")
#: The ports of one or more hosts; a port may be empty.
_PORTS: Final = re.compile("[0-9]{0,5}(,[0-9]{0,5})*")

#: libpq's defaults in this package. An idle connection is probed after 15 seconds and given up 15
#: seconds later. Parameters of the URL override them.
_CONNECTION_DEFAULTS: Final[dict[str, str | int]] = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # in milliseconds
    "fallback_application_name": "treehub-level",
    "client_encoding": "UTF8",
}

#: With fewer connections, a writer (a quarter of them) or a scan (half of them) would get none.
_MIN_CONNECTIONS: Final = 4
_MAX_CONNECTIONS: Final = 10_000
#: The longest timeout, in seconds: a day.
_MAX_SECONDS: Final = 86_400.0
#: The shortest idle timeout of a write transaction, in seconds. A writer sends nothing while it
#: prepares a large batch, which takes seconds.
_MIN_IDLE_SECONDS: Final = 5.0


def split_url(url: object) -> tuple[str, str | None]:
    """Split the parameter ``store=NAME`` off a database URL.

    Returns:
        The URL without that parameter, and the name of the store; ``None`` if the URL has no such
        parameter.

    Raises:
        TypeError: ``url`` is not a str.
        StorageError: ``url`` is not a PostgreSQL URL.
    """
    if not isinstance(url, str):
        raise TypeError(f"the name of a PostgreSQL store must be a URL, a str, not a {type(url).__name__}")
    found = _URL.fullmatch(url)
    if found is None:
        raise _invalid_url()
    base, parameters = found[1], (found[2] or "").split("&")
    stores = [parameter for parameter in parameters if parameter.startswith("store=")]
    others = "&".join(parameter for parameter in parameters if parameter and parameter not in stores)
    store = unquote(stores[-1].removeprefix("store=")) if stores else None
    return f"{base}?{others}" if others else base, store


@dataclass(frozen=True)
class Settings:
    """The settings that stores must have in common to share a connection pool.

    Attributes:
        conninfo: libpq's connection string. It may contain a password; never log it.
        label: The same database as a URL without secrets, for messages.
        table: The name of the table, safe in SQL without quotes.
        connections: The maximum number of connections, not counting the listener's.
        lock_timeout: Seconds to wait for another writer, or for a connection.
        statement_timeout: The maximum run time, in seconds, of a statement of a writer or a scan.
        notify: True to use NOTIFY and LISTEN if the server supports them; false to poll only.
    """

    conninfo: str = field(repr=False)
    label: str
    table: str
    connections: int
    lock_timeout: float
    statement_timeout: float
    notify: bool

    @property
    def idle_in_transaction_timeout(self) -> float:
        """The seconds for which a write transaction may be idle before the server ends it.

        Shorter than ``lock_timeout``, unless that is very short: if a writer's process hangs, the
        other writers wait until the server ends its transaction, and do not fail.
        """
        return min(self.statement_timeout, max(_MIN_IDLE_SECONDS, self.lock_timeout / 2))

    @property
    def channel(self) -> str:
        """The channel for NOTIFY and LISTEN: the name of the table without its schema."""
        return self.table.rpartition(".")[2]


def checked_settings(
    url: str, table: str, *, connections: int, lock_timeout: float, statement_timeout: float, notify: bool
) -> Settings:
    """Validate the options of a backend, and return them as settings.

    Raises:
        TypeError: An option has the wrong type.
        ValueError: A number is out of range.
        StorageError: The URL or the name of the table is invalid.
    """
    conninfo, label = _parse(url)
    _check_name("table", table, _TABLE_NAME)
    if type(connections) is not int:
        raise TypeError(f"connections must be an int, not {connections!r:.80}")
    if not _MIN_CONNECTIONS <= connections <= _MAX_CONNECTIONS:
        raise ValueError(f"connections must be from {_MIN_CONNECTIONS} to {_MAX_CONNECTIONS}, not {connections}")
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


def checked_store(name: str, *, aside: bool = False) -> str:
    """Return the name of a store after validation.

    Args:
        name: The name.
        aside: True if it may be that of a store which was set aside (`_ASIDE_NAME`).

    Raises:
        TypeError: ``name`` is not a str.
        StorageError: ``name`` is not a valid name for a store.
    """
    if aside and isinstance(name, str) and _ASIDE_NAME.fullmatch(name):
        return name
    return _check_name("store", name, STORE_NAME)


def _check_name(kind: str, name: object, pattern: re.Pattern[str]) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the name of a {kind} must be a str, not {name!r:.80}")
    if not pattern.fullmatch(name):
        raise StorageError(
            f"{name!r:.80} is not a valid name for a {kind} in PostgreSQL: it must match {pattern.pattern}"
        )
    return name


def _seconds(option: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{option} must be a number of seconds, not {value!r:.80}")
    if not 0 < value <= _MAX_SECONDS:
        raise ValueError(f"{option} must be above 0 and at most {_MAX_SECONDS:.0f} seconds, not {value}")
    return float(value)


def _parse(url: str) -> tuple[str, str]:
    try:
        given = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    except (psycopg.Error, UnicodeEncodeError):  # the latter for bytes of an argument that are not UTF-8
        given = None
    if given is None or not _PORTS.fullmatch(given.get("port", "")):
        raise _invalid_url()  # outside the except block, which would chain psycopg's error, password included
    _check_hosts(given)
    label = "postgresql://"
    if user := given.get("user"):
        label += f"{quote(user, safe='')}@"
    label += quote(given.get("host") or given.get("hostaddr") or "", safe=",:[]")
    if port := given.get("port"):
        label += f":{port}"
    return make_conninfo("", **(_CONNECTION_DEFAULTS | given)), f"{label}/{quote(given.get('dbname') or '')}"


def _check_hosts(given: dict[str, str]) -> None:
    """Check that the names of all hosts can be looked up: psycopg would raise a UnicodeError.

    Raises:
        StorageError: A name, in the URL or in ``PGHOST``, is not a valid host name.
    """
    source = "the URL" if given.get("host") else "the environment variable PGHOST"
    for host in (given.get("host") or os.environ.get("PGHOST", "")).split(","):
        try:
            if not host.startswith(("/", "@")):  # the directory of a socket, or its abstract name
                host.encode("idna")
        except UnicodeError as error:
            raise StorageError(f"the host {host!r:.80} in {source} is not a valid host name: {error}") from error


def _invalid_url() -> StorageError:
    """Return the exception for an invalid URL; its message omits the URL, and so any password."""
    return StorageError(
        "the name of the store is not a URL of a PostgreSQL database: "
        "write postgresql://user:password@host:port/database, with %-escapes for special characters"
    )
