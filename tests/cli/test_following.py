"""``follow unfollow followed``, ``sync --follow --unfollow``, and the ranges in ``info``."""

from __future__ import annotations

import os

import pytest

from treehub_level import blocking

from .conftest import Cli


@pytest.fixture
def server(cli: Cli) -> str:
    """Create a server with entries in three ranges."""
    lines = "".join(f'{{"key": "{prefix}/{n}", "value": {n}}}\n' for prefix in "abc" for n in range(3))
    cli("load", "server", "--mode", "server", stdin=lines)
    return "server"


def rows(name: str) -> list[tuple[bytes, bytes]]:
    """Return all rows of a store, metadata included."""
    with blocking.Level(name, mode=blocking.Level.CLIENT) as level:
        return level._store.backend.scan(None, None).fetch(10_000)


def test_a_client_is_created_with_the_ranges_that_it_follows(cli: Cli, server: str) -> None:
    report = cli("sync", "tablet", server, "--follow", "a/", "--follow", "b/1", "--json").json
    assert (report["filled"], report["consistent"]) == (4, True)
    assert cli("keys", "tablet").out == "a/0\na/1\na/2\nb/1\n"
    assert cli("followed", "tablet").out == "a/\tcomplete\nb/1\tcomplete\n"
    assert cli("sync", "tablet", server, "--follow", "a/", "--follow", "b/1", "--json").json["filled"] == 0


def test_sync_changes_the_ranges_of_an_existing_client(cli: Cli, server: str) -> None:
    cli("sync", "tablet", server)
    cli("sync", "tablet", server, "--follow", "a/", "--unfollow", "")
    assert cli("keys", "tablet").out == "a/0\na/1\na/2\n"
    cli("sync", "tablet", server, "--follow", "c/", "--unfollow", "a/", "--unfollow", "never")
    assert cli("keys", "tablet").out == "c/0\nc/1\nc/2\n"
    assert cli("count", server).out == "9\n"


def test_follow_and_unfollow_print_what_is_followed_then(cli: Cli, server: str) -> None:
    cli("sync", "tablet", server, "--follow", "a/")
    assert cli("follow", "tablet", "b/", "c/").out == "a/\tcomplete\nb/\tincomplete\nc/\tincomplete\n"
    cli("sync", "tablet", server)
    assert cli("unfollow", "tablet", "a/", "b/").out == "c/\tcomplete\n"
    assert cli("keys", "tablet").out == "c/0\nc/1\nc/2\n"
    assert cli("follow", "tablet", "", "--json").lines == [
        {"prefix": "", "complete": False},
        {"prefix": "c/", "complete": True},
    ]
    assert cli("followed", "tablet").out == "''\tincomplete\nc/\tcomplete\n"


def test_info_shows_the_ranges_with_their_state(cli: Cli, server: str) -> None:
    cli("sync", "tablet", server, "--follow", "a/")
    cli("follow", "tablet", "b/")
    found = [line.split(maxsplit=1)[1] for line in cli("info", "tablet").out.splitlines() if "followed" in line]
    assert [text.strip() for text in found] == ["a/ (complete)", "b/ (incomplete)"]
    assert cli("info", "tablet", "--json").json["followed"] == [
        {"prefix": "a/", "complete": True},
        {"prefix": "b/", "complete": False},
    ]
    assert "followed" not in cli("info", server, "--json").json


MANY = [f"p{n}" for n in range(257)]


@pytest.mark.parametrize(
    ("command", "code", "name"),
    [
        (["sync", "tablet", "server", *(part for prefix in MANY for part in ("--follow", prefix))], 2, None),
        (["follow", "tablet", *MANY], 2, None),
        (["follow", "tablet", *MANY[:-1]], 2, None),  # with the one that is followed
        (["sync", "tablet", "server", "--follow", "b/", "--unfollow", "b/"], 2, None),
        (["sync", "tablet", "server", "--follow", "b/", "--follow", "!x"], 1, "LEVEL_INVALID_KEY"),
        (["sync", "tablet", "server", "--follow", "b/", "--unfollow", "!x"], 1, "LEVEL_INVALID_KEY"),
        (["follow", "tablet", "b/", "!x"], 1, "LEVEL_INVALID_KEY"),
        (["unfollow", "tablet", "a/", "!x"], 1, "LEVEL_INVALID_KEY"),
        (["unfollow", "tablet", "a/", "b/"], 1, "CLI_FOLLOWED"),
        (["sync", "tablet", "server", "--follow", "b/", "--follow", "a/1"], 1, "CLI_FOLLOWED"),
        (["follow", "server", "b/"], 1, "LEVEL_MODE"),
        (["unfollow", "server", "b/"], 1, "LEVEL_MODE"),
        (["followed", "server"], 1, "LEVEL_MODE"),
        (["sync", "server", "tablet", "--follow", "b/"], 1, "LEVEL_MODE_MISMATCH"),
        (["follow", "none", "b/"], 1, "CLI_NO_STORE"),
        (["sync", "none", "server", "--follow", "!x"], 1, "LEVEL_INVALID_KEY"),
        (["sync", "none", "missing", "--follow", "b/"], 1, "CLI_NO_STORE"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else str(value),
)
def test_bad_ranges_are_named_errors_and_nothing_is_written(
    cli: Cli, server: str, command: list[str], code: int, name: str | None
) -> None:
    cli("sync", "tablet", server, "--follow", "a/")
    cli("put", server, "b/0", "100")
    before, folder = rows("tablet"), sorted(os.listdir())
    run = cli(*command, "--json", code=code)
    if name is not None:
        assert run.error["code"] == name
    assert (rows("tablet"), sorted(os.listdir())) == (before, folder)


def test_a_refused_change_is_reported_and_listed_with_its_reason(cli: Cli, server: str) -> None:
    with (
        blocking.Level(server, mode=blocking.Level.SERVER, check=_refuse) as level,
        blocking.Level("tablet", mode=blocking.Level.CLIENT) as client,
    ):
        client.sync(level)
        client.put("a/1", "mine")
        client.sync(level)
    assert cli("conflicts", "tablet").out.startswith('a/1\tlost: "mine"\tkept: 1\trefused: closed')
    [found] = cli("conflicts", "tablet", "--json").lines
    assert (found["kind"], found["reason"], found["remote"]["value"]) == ("refused", "closed", 1)


def _refuse(call: object, changes: object, read: object) -> None:
    from treehub_level import Refused

    raise Refused("closed")
