"""An exception that no command expects is one line, with the way to report it: no traceback."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.once


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, cli: Any) -> Any:
    """The command line, with a fault in ``get``."""

    def fail(*_: object) -> None:
        raise KeyError("no such\x1b[2Jfield")

    assert cli("put", "notes", "a", "1").code == 0
    monkeypatch.setattr("treehub_level.blocking.Level.get", fail)
    return cli


def test_an_unexpected_exception_is_one_line_that_names_it(broken: Any) -> None:
    done = broken("get", "notes", "a")
    assert (done.code, done.out) == (70, "")
    assert done.err.startswith("error: an unexpected KeyError: 'no such\\x1b[2Jfield'; this is a fault of treehub-level")
    assert "https://github.com/treehub/treehub-level/issues" in done.err
    assert "TREEHUB_LEVEL_TRACEBACK=1" in done.err
    assert done.err.count("\n") == 1


def test_an_unexpected_exception_is_json_with_the_option_for_it(broken: Any) -> None:
    done = broken("info", "absent", "--json")
    assert done.code == 1  # an expected error
    assert "CLI_NO_STORE" in done.err


def test_the_traceback_is_printed_if_the_environment_asks_for_it(broken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREEHUB_LEVEL_TRACEBACK", "1")
    done = broken("get", "notes", "a")
    assert done.code == 70
    assert done.err.startswith("Traceback (most recent call last):")
    assert "report it" in done.err.splitlines()[-1]


def test_a_wrong_usage_keeps_its_own_exit_code(broken: Any) -> None:
    assert broken("get").code == 2
    assert broken("--version").code == 0
