"""The command line: ``python -m treehub_level.testing.exchange``."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .clients import SUITE as CLIENT_SUITE
from .reports import write_json, write_list, write_table
from .runs import PATIENCE, run_client, run_server
from .scenarios import ConformanceError, Outcome
from .servers import SUITE as SERVER_SUITE
from .servers import ServerScene, ServerUnderTest
from .vectors import vectors_text

#: Exit codes: all scenarios passed or were skipped; one failed; the run could not begin.
PASSED, FAILED, UNUSABLE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (ConformanceError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return UNUSABLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m treehub_level.testing.exchange",
        description="Test a client or a server of the exchange. docs/testing.md explains the scenarios.",
    )
    commands = parser.add_subparsers(required=True, metavar="server|client|vectors")
    server = commands.add_parser("server", help="test a server at a URL")
    server.add_argument("url", nargs="?", help="the URL of a new, empty database")
    server.add_argument(
        "--token",
        default=os.environ.get("TREEHUB_LEVEL_TOKEN"),
        help="a token that may read and write all keys (default: $TREEHUB_LEVEL_TOKEN)",
    )
    server.add_argument("--read-token", help="a token that may read all keys, and write none")
    server.add_argument("--prefix-token", help="a token that may read and write the keys of --token-prefix")
    server.add_argument("--token-prefix", default="", help="the prefix of --prefix-token")
    server.add_argument("--refused-prefix", help="the beginning of keys that a rule of the server refuses")
    server.add_argument("--compact", metavar="COMMAND", help="compacts the log, and forgets all deletes in it")
    server.add_argument("--used", action="store_true", help="also test a database that is not empty")
    server.set_defaults(run=_run_server)
    client = commands.add_parser("client", help="test a client, driven by a program")
    client.add_argument("command", nargs="*", help="the program and its arguments, after --")
    client.set_defaults(run=_run_client)
    for command in (server, client):
        command.add_argument("--only", action="append", default=[], metavar="NAME", help="play this scenario")
        command.add_argument("--list", action="store_true", help="list the scenarios")
        command.add_argument("--json", action="store_true", help="write the outcomes as JSON")
        command.add_argument("--patience", type=float, default=PATIENCE, help=f"seconds to wait ({PATIENCE:g})")
    vectors = commands.add_parser("vectors", help="write the message vectors, a JSON file, to the standard output")
    vectors.set_defaults(run=_write_vectors)
    return parser


def _run_server(options: Any) -> int:
    if options.list:
        return _list(SERVER_SUITE.chosen(options.only))
    if options.url is None:
        raise ValueError("name the URL of a new database, such as http://localhost:8421/v1/notes")
    server = ServerUnderTest(
        options.url,
        options.token,
        options.read_token,
        options.prefix_token,
        options.token_prefix,
        options.refused_prefix,
        None if options.compact is None else _command(options.compact),
        options.patience,
    )
    _check_new(server, is_used=options.used)
    return _report(run_server(server, only=options.only), as_json=options.json)


def _check_new(server: ServerUnderTest, *, is_used: bool) -> None:
    """Check that the database can be reached, and has never been written to.

    Raises:
        OSError, ConformanceError: It cannot be reached.
        ValueError: It has been written to.
    """
    scene = ServerScene(server)
    try:
        head = scene.head()
    finally:
        scene.close()
    if head and not is_used:
        raise ValueError(
            f"the database {server.url} has {head} changes. The scenarios write to it: name a new one, or add --used"
        )


def _command(text: str) -> Callable[[], object]:
    """Return a function that runs a command, which must succeed."""
    return lambda: subprocess.run(shlex.split(text), check=True, stdout=subprocess.DEVNULL)


def _run_client(options: Any) -> int:
    if options.list:
        return _list(CLIENT_SUITE.chosen(options.only))
    if not options.command:
        raise ValueError("name the program that drives the client, after --")
    outcomes = run_client(options.command, only=options.only, patience=options.patience)
    return _report(outcomes, as_json=options.json)


def _list(scenarios: Iterable[Any]) -> int:
    write_list(scenarios, sys.stdout)
    return PASSED


def _report(outcomes: Iterable[Outcome], *, as_json: bool) -> int:
    seen = write_json(outcomes, sys.stdout) if as_json else write_table(outcomes, sys.stdout)
    return FAILED if any(outcome.result == "failed" for outcome in seen) else PASSED


def _write_vectors(_: Any) -> int:
    sys.stdout.write(vectors_text())
    return PASSED


if __name__ == "__main__":
    sys.exit(main())
