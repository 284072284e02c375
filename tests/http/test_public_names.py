"""The public names of `treehub_level.http`, and the optional dependencies that each one needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from treehub_level import extras, http

pytestmark = pytest.mark.once


def run(script: str) -> list[str]:
    """Run a script in a new interpreter, and return the lines that it prints."""
    process = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return process.stdout.splitlines()


def without(*modules: str) -> str:
    """Return a statement that makes modules impossible to import."""
    return f"import sys; sys.modules.update(dict.fromkeys({modules!r}))\n"


WITHOUT_EXTRAS = without("httpx", "prometheus_client", "sniffio", "starlette", "uvicorn", "zstandard")


def test_all_lists_every_public_name() -> None:
    names = ["JWT", "DroppedDatabase", "Hub", "Identity", "Limits", "RefusedError", "RemoteServer", "Token", "Tokens"]
    assert http.__all__ == [*names, "create_app"]
    for name in http.__all__:
        assert getattr(http, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Absent'"):
        http.Absent  # noqa: B018


@pytest.mark.parametrize("name", ["Hub", "Identity", "Limits", "RefusedError", "Token", "Tokens"])
def test_a_name_that_needs_no_extra_is_importable_without_extras(name: str) -> None:
    assert run(f"{WITHOUT_EXTRAS}from treehub_level.http import {name}; print({name}.__name__)") == [name]


PRINT_ERRORS = """
from importlib import import_module
for module, name in (("http", "RemoteServer"), ("http.blocking", "RemoteServer"), ("http", "create_app")):
    try:
        getattr(import_module(f"treehub_level.{module}"), name)
    except ImportError as error:
        print(error)
"""


def test_without_an_extra_the_message_is_the_command_that_installs_it() -> None:
    client = extras.missing("treehub_level.http.RemoteServer", "httpx", "http")
    server = extras.missing("treehub_level.http.create_app", "starlette", "server")
    assert run(without("httpx", "starlette") + PRINT_ERRORS) == [client, client, server]
    assert "pip install '.[http]'" in client


def test_the_package_and_the_command_line_import_no_optional_dependency() -> None:
    script = "import sys, treehub_level, treehub_level.cli; print({'httpx', 'starlette'} & set(sys.modules))"
    assert run(script) == ["set()"]
