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

    cli("put", "notes", "a", "1")
    monkeypatch.setattr("treehub_level.blocking.Level.get", fail)
    return cli


def test_an_unexpected_exception_is_one_line_that_names_it(broken: Any) -> None:
    done = broken("get", "notes", "a", code=70)
    assert done.out == ""
    assert done.err.startswith(
        "error: an unexpected KeyError: 'no such\\x1b[2Jfield'; this is a fault of treehub-level"
    )
    assert "https://github.com/treehub/treehub-level/issues" in done.err
    assert "TREEHUB_LEVEL_TRACEBACK=1" in done.err
    assert done.err.count("\n") == 1


def test_an_expected_error_and_a_wrong_usage_keep_their_exit_codes(broken: Any) -> None:
    assert "there is no store" in broken("info", "absent", code=1).err
    broken("get", code=2)
    broken("--version", code=0)


def test_the_traceback_is_printed_if_the_environment_asks_for_it(broken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREEHUB_LEVEL_TRACEBACK", "1")
    done = broken("get", "notes", "a", code=70)
    assert done.err.startswith("Traceback (most recent call last):")
    assert "with the traceback above" in done.err.splitlines()[-1]
