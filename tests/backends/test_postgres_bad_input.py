"""Errors of PostgreSQL name the problem and the remedy, and never contain a password."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from backends.tables import Table
from databases import ELSEWHERE

from treehub_level import (
    BackendNotFoundError,
    InvalidKeyError,
    LockedError,
    StorageError,
    UnavailableError,
    blocking,
    extras,
)
from treehub_level.backends import create
from treehub_level.backends.postgres import PostgresBackend, stored_names

pytestmark = pytest.mark.once

SECRET = "s3cret%20w0rd"
CLEAR = "s3cret w0rd"

Role = Callable[[str], str]


@pytest.fixture
def role(table: Table) -> Iterator[Role]:
    """A function that creates a role without privileges other than login, and returns its name."""
    made: list[str] = []

    def make(options: str = "") -> str:
        name = f"role_{table.name}_{len(made)}"
        table.query(f"CREATE ROLE {name} LOGIN {options}")
        made.append(name)
        return name

    yield make
    for name in made:
        table.query(f"DROP OWNED BY {name}")
        table.query(f"DROP ROLE {name}")


def all_messages(caught: pytest.ExceptionInfo[BaseException]) -> str:
    """Return the messages of an error and of all errors in its chain."""
    chain = []
    error: BaseException | None = caught.value
    while error is not None:
        chain += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    return "\n".join(chain)


# -------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "url",
    [
        "",
        "places",
        f"host=example.org password={CLEAR}",
        f"mysql://alice:{SECRET}@example.org/db",
        "postgresql://alice:s3cret%zzw0rd@example.org/db",
        f"postgresql://alice:{SECRET}@example.org:5432:5432/db?x=y",
        f"postgresql://alice:{SECRET}@[example.org/db",
        f"postgresql://alice:{SECRET}@w0rd@example.org/db",
        f"postgresql://alice:{SECRET}/w0rd@example.org/db",
        f"postgresql://alice:{SECRET}?w0rd@example.org@b/db",
        f"postgresql://alice:{SECRET}\0@example.org/db",
        f"postgresql://alice:{SECRET}",
    ],
)
def test_an_invalid_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(StorageError, match="postgresql://user:password@host:port/database") as caught:
        PostgresBackend(url)
    assert "s3cret" not in all_messages(caught)
    assert "example.org" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "Places", "-places", "p'; DROP", "pläne", "a" * 65, "a/b", "a\0", "a.b"])
def test_an_invalid_name_of_a_store_is_refused(name: str) -> None:
    with pytest.raises(StorageError, match="not a valid name for a store"):
        PostgresBackend("postgresql://example.org/db", store=name)


@pytest.mark.parametrize("name", ["", "Table", "a b", "a;b", 'a"b', "a.b.c", "1a", "a" * 64, "a%sb"])
def test_an_invalid_name_of_a_table_is_refused(name: str) -> None:
    with pytest.raises(StorageError, match="not a valid name for a table"):
        PostgresBackend("postgresql://example.org/db", table=name)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"store": 7}, TypeError),
        ({"table": None}, TypeError),
        ({"connections": "9"}, TypeError),
        ({"connections": True}, TypeError),
        ({"connections": 3}, ValueError),
        ({"connections": 10_001}, ValueError),
        ({"lock_timeout": "1"}, TypeError),
        ({"lock_timeout": True}, TypeError),
        ({"lock_timeout": 0}, ValueError),
        ({"statement_timeout": float("nan")}, ValueError),
        ({"statement_timeout": float("inf")}, ValueError),
        ({"notify": 1}, TypeError),
    ],
    ids=repr,
)
def test_an_invalid_option_is_refused_by_name(options: dict[str, Any], error: type[Exception]) -> None:
    (name,) = options
    with pytest.raises(error, match=name):
        PostgresBackend("postgresql://example.org/db", **options)


def test_a_url_that_is_no_str_is_a_type_error_that_does_not_repeat_it() -> None:
    with pytest.raises(TypeError, match="a str, not a bytes") as caught:
        PostgresBackend(b"postgresql://alice:s3cret@example.org/db")  # type: ignore[arg-type]
    assert "s3cret" not in all_messages(caught)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://a@h/db", "postgresql://a@h/db?store=x"),
        (f"postgres://a:{SECRET}@h:1/db", "postgresql://a@h:1/db?store=x"),
        (f"postgresql://h/db?user=a&password={SECRET}&sslpassword={SECRET}", "postgresql://a@h/db?store=x"),
        (f"postgresql://a:{SECRET}@h:1,i:2/db", "postgresql://a@h,i:1,2/db?store=x"),
        (f"postgresql:///db?host=/run/pg&passfile={SECRET}", "postgresql://%2Frun%2Fpg/db?store=x"),
        ("postgresql://", "postgresql:///?store=x"),
        (f"postgresql://a:{SECRET}?@h:/db", "postgresql://a@h/db?store=x"),
    ],
)
def test_its_name_is_the_url_without_secrets_and_with_the_store(url: str, name: str) -> None:
    backend = PostgresBackend(url, store="x")
    assert backend.name == name
    assert CLEAR not in repr(backend) + repr(backend.settings) + repr(blocking.Level(url, backend="postgres"))


@pytest.mark.parametrize("parameters", ["store=x", "connect_timeout=7&store=x", "store=%78&connect_timeout=7"])
def test_a_url_may_name_the_store_like_the_name_of_the_backend(parameters: str) -> None:
    backend = PostgresBackend(f"postgresql://a@h/db?{parameters}")
    assert backend.name == "postgresql://a@h/db?store=x"
    assert ("connect_timeout=7" in backend.settings.conninfo) == ("connect_timeout" in parameters)
    assert PostgresBackend(backend.name).name == backend.name


def test_a_store_that_is_named_twice_is_refused() -> None:
    with pytest.raises(StorageError, match="the store is named twice, in the URL as 'x'"):
        PostgresBackend("postgresql://h/db?store=x", store="y")


@pytest.mark.parametrize("parameter", ["sslmode=never", "connect_timeout=soon", "port=99999"])
def test_an_invalid_parameter_is_not_worth_a_retry(parameter: str) -> None:
    backend = PostgresBackend(f"postgresql://127.0.0.1:1/db?{parameter}")
    with pytest.raises(StorageError, match="Check the URL") as caught:
        backend.open()
    assert type(caught.value) is StorageError


# -------------------------------------------------------------------------------- not to be reached


def test_an_absent_server_is_named(table: Table) -> None:
    backend = PostgresBackend(f"postgresql://alice:{SECRET}@127.0.0.1:1/nowhere", store="places")
    with pytest.raises(UnavailableError, match=r"postgresql://alice@127.0.0.1:1/nowhere.*refused") as caught:
        backend.open()
    assert CLEAR not in all_messages(caught)
    with pytest.raises(UnavailableError, match="refused"):
        backend.exists()


@pytest.mark.skipif(ELSEWHERE is not None, reason="the access rules of that server are not known")
@pytest.mark.parametrize("given", ["wr0ng%20w0rd", ""], ids=["wrong", "none"])
def test_a_wrong_password_is_named_and_not_repeated(table: Table, given: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    name = f"locked_{table.name}"
    table.query(f"CREATE ROLE {name} LOGIN PASSWORD '{CLEAR}'")
    try:
        with pytest.raises(StorageError, match=f"refuses .*{name}.*password") as caught:
            table.open(url=table.url_for(user=name, password=given))
        assert "wr0ng" not in all_messages(caught) + caplog.text
        assert type(caught.value) is StorageError, "trying again would not help"
        table.query(f"GRANT CREATE ON SCHEMA public TO {name}")
        with_password = table.open(url=table.url_for(user=name, password=SECRET))
        assert with_password.get(b"k") is None, "the control: with the password it can be opened"
        with_password.close()
        assert CLEAR not in caplog.text
    finally:
        table.query(f"DROP OWNED BY {name}")
        table.query(f"DROP ROLE {name}")


def test_an_absent_database_is_named(table: Table) -> None:
    with pytest.raises(StorageError, match='database "nowhere" does not exist') as caught:
        table.open(url=table.url_for(dbname="nowhere"))
    assert type(caught.value) is StorageError


# ------------------------------------------------------------------------------------------- rights


def test_a_missing_privilege_to_create_the_table_is_named(table: Table, role: Role) -> None:
    with pytest.raises(StorageError, match=f"lacks the privilege CREATE for the table {table.name}"):
        table.open(url=table.url_for(user=role("")))
    with pytest.raises(StorageError, match="Create the schema first"):
        table.open(table="no_such_schema.table")


@pytest.mark.parametrize(
    ("granted", "missing"),
    [
        ("REFERENCES", "SELECT"),
        ("SELECT", "INSERT, UPDATE, DELETE"),
        ("SELECT, INSERT, UPDATE", "DELETE"),
    ],
)
def test_a_missing_privilege_on_the_table_is_named(table: Table, role: Role, granted: str, missing: str) -> None:
    table.open().close()
    user = role("")
    table.query(f"GRANT {granted} ON {{}} TO {user}")
    backend = table.backend(url=table.url_for(user=user))
    for ask in (backend.open, backend.exists):  # an HTTP server calls exists() when it starts
        with pytest.raises(StorageError, match=f"{user}.* lacks the privilege {missing} for the table {table.name}"):
            ask()


def test_the_four_privileges_are_enough(table: Table, role: Role) -> None:
    table.open().close()
    user = role("")
    table.query(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {{}} TO {user}")
    backend = table.open(url=table.url_for(user=user))
    backend.write([(b"k", b"v")])
    assert backend.get(b"k") == b"v"


def test_a_read_only_database_raises_an_error_that_names_the_remedy(table: Table, role: Role) -> None:
    table.open().close()
    user = role("")
    table.query(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {{}} TO {user}")
    table.query(f"ALTER ROLE {user} SET default_transaction_read_only = on")
    backend = table.open(url=table.url_for(user=user))
    assert backend.get(b"k") is None
    with pytest.raises(StorageError, match=r"read-only transaction.*target_session_attrs=read-write"):
        backend.write([(b"k", b"v")])


# ------------------------------------------------------------------------------ the table, the keys


@pytest.mark.parametrize(
    "columns",
    [
        "id integer PRIMARY KEY, name text",
        "store text, key bytea, value bytea",  # no key
        "store text, key text, value text, PRIMARY KEY (store, key)",
        "store text, key bytea, value bytea, more text, PRIMARY KEY (store, key)",
    ],
)
def test_the_table_of_another_program_is_refused_and_left_alone(table: Table, columns: str) -> None:
    table.query(f"CREATE TABLE {{}} ({columns})")
    with pytest.raises(StorageError, match=f"the table {table.name} in .* belongs to another program: "):
        table.open()
    assert table.query("SELECT * FROM {}") == []


def test_a_table_that_is_dropped_while_in_use_is_named(table: Table) -> None:
    backend = table.open()
    table.query("DROP TABLE {}")
    with pytest.raises(StorageError, match="open it again"):
        backend.get(b"k")
    backend.close()
    backend.open()
    backend.write([(b"k", b"v")])


def test_a_key_that_is_too_long_for_the_index_is_named(table: Table) -> None:
    backend = table.open()
    with pytest.raises(InvalidKeyError, match=r"b'kkk.* takes 2501 bytes, .* at most 2500"):
        backend.write([(b"k" * 2501, b"v")])


def test_keys_of_the_greatest_length_fit_with_any_contents(table: Table) -> None:
    backend = table.open(store="a" * 64)
    rng = random.Random(1)
    keys = sorted(rng.randbytes(2500) for _ in range(200))
    backend.write([(key, b"v") for key in keys])
    assert backend.get_many(keys) == [b"v"] * 200


def test_opening_it_twice_names_it(table: Table) -> None:
    backend = table.open()
    with pytest.raises(LockedError, match="store=places' is open already"):
        backend.open()


# ----------------------------------------------------------------------------------------- the rest


def test_a_store_exists_once_it_was_written_to(table: Table) -> None:
    backend = table.backend()
    assert not backend.exists(), "there is no table"
    backend.open()
    assert not backend.exists(), "there is a table"
    backend.write([(b"k", b"v")])
    assert backend.exists()
    assert not table.backend(store="other").exists()


def test_the_names_of_stores_are_listed(table: Table) -> None:
    assert stored_names(table.url, table=table.name) == []
    for name in ("notes", "places"):
        backend = table.open(store=name)
        assert backend.get(b"k") is None, "stores in one table do not see each other's records"
        backend.write([(b"k", name.encode())])
    assert stored_names(table.url, table=table.name) == ["notes", "places"]


@pytest.mark.usefixtures("without_psycopg")
def test_a_missing_psycopg_is_named_with_the_command_to_install_it() -> None:
    with pytest.raises(BackendNotFoundError) as caught:
        create("postgres", "postgresql://example.org/db", {})
    message = str(caught.value)
    assert message.startswith(extras.missing("the backend 'postgres'", "psycopg", "postgres"))
    assert "psycopg" in message.partition("(")[2]
    assert "; installed: " in message
