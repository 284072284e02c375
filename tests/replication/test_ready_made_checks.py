"""The ready-made checks: values must fit a JSON Schema, or a pydantic model."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from treehub_level import blocking, checks
from treehub_level.types import Mode

from .helpers import Message, ask

SCHEMAS = {
    "order/": {"type": "object", "required": ["count"], "properties": {"count": {"type": "integer", "minimum": 1}}},
    "order/draft/": True,
}


def push(check: Any, **values: Any) -> Message:
    """Push values to a server with a check, and return the refused keys with their reasons."""
    with blocking.Level("server", backend="memory", mode=Mode.SERVER, check=check) as server:
        reply = server.exchange(ask(changes=[[key, value] for key, value in values.items()]))
    return {key: reason for reason, keys in reply.get("refused", []) for key in keys}


VALUES: Message = {
    "order/1": {"count": 1},
    "order/2": {"count": 0},
    "order/3": {},
    "order/draft/4": "anything",
    "other": -1,
}


def test_values_must_fit_the_schema_of_the_longest_prefix() -> None:
    pytest.importorskip("jsonschema")
    refused = push(checks.json_schema(SCHEMAS), **VALUES)
    assert refused == {
        "order/2": "$.count: 0 is less than the minimum of 1",
        "order/3": "$: 'count' is a required property",
    }


def test_an_invalid_schema_is_a_value_error() -> None:
    pytest.importorskip("jsonschema")
    with pytest.raises(ValueError, match="the schema for 'order/' is invalid"):
        checks.json_schema({"order/": {"type": "no such type"}})


def test_values_must_fit_the_model_of_the_longest_prefix() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Order", count=(pydantic.PositiveInt, ...))
    refused = push(checks.pydantic({"order/": model, "order/draft/": Any}), **VALUES)
    assert refused == {
        "order/2": "$.count: Input should be greater than 0",
        "order/3": "$.count: Field required",
    }


def test_a_delete_is_accepted() -> None:
    pytest.importorskip("jsonschema")
    with blocking.Level("server", backend="memory", mode=Mode.SERVER, check=checks.json_schema(SCHEMAS)) as server:
        assert server.exchange(ask(changes=[["order/1"]]))["rejected"] == []


@pytest.mark.parametrize(("name", "library"), [("json_schema", "jsonschema"), ("pydantic", "pydantic")])
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, name: str, library: str
) -> None:
    for module in [module for module in sys.modules if module.partition(".")[0] == library]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModuleNotFoundError, match=rf"needs {library}, which is not installed: run .*\[checks\]"):
        getattr(checks, name)({})
