"""Ready-made checks of a server: values must fit a JSON Schema, or a pydantic model.

Each function returns a ``check`` for ``Level(…, mode=Level.SERVER, check=…)`` and ``Hub``. To
combine one with rules of your own, call it from your function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .errors import Refused
from .extras import missing
from .replication.rules import Call, Check, CheckedChange, Lookup
from .types import MISSING

__all__ = ["Call", "Check", "CheckedChange", "Lookup", "json_schema", "pydantic"]

#: Returns the fault of a value in one sentence; ``None`` if the value fits.
_FindFault = Callable[[Any], "str | None"]


def json_schema(schemas: Mapping[str, Any]) -> Check:
    """Return a check that refuses values which do not fit the JSON Schema of their prefix.

    The longest prefix that a key begins with counts. A key without one, and a delete, are accepted.

    Args:
        schemas: A schema for each prefix of keys; ``""`` for all other keys.

    Raises:
        ModuleNotFoundError: The extra ``checks`` is not installed.
        ValueError: A schema is invalid.
    """
    try:
        from jsonschema.exceptions import SchemaError, best_match
        from jsonschema.validators import validator_for
    except ImportError as error:
        message = missing("treehub_level.checks.json_schema", "jsonschema", "checks")
        raise ModuleNotFoundError(message, name=error.name) from error

    def fault_finder(prefix: str, schema: Any) -> _FindFault:
        kind = validator_for(schema)
        try:
            kind.check_schema(schema)
        except SchemaError as error:
            raise ValueError(f"the schema for {prefix!r:.80} is invalid: {error.message}") from error
        validator = kind(schema)

        def find_fault(value: Any) -> str | None:
            error = best_match(validator.iter_errors(value))
            return None if error is None else f"{error.json_path}: {error.message}"

        return find_fault

    return _check_of({prefix: fault_finder(prefix, schema) for prefix, schema in schemas.items()})


def pydantic(models: Mapping[str, Any]) -> Check:
    """Return a check that refuses values which do not fit the pydantic model of their prefix.

    The longest prefix that a key begins with counts. A key without one, and a delete, are accepted.
    Values are validated as JSON, in the model's own mode; they are stored as the client sent them.

    Args:
        models: A model, or any type that pydantic can validate, for each prefix of keys; ``""`` for
            all other keys.

    Raises:
        ModuleNotFoundError: The extra ``checks`` is not installed.
    """
    try:
        from pydantic import TypeAdapter, ValidationError
    except ImportError as error:
        message = missing("treehub_level.checks.pydantic", "pydantic", "checks")
        raise ModuleNotFoundError(message, name=error.name) from error

    def fault_finder(model: Any) -> _FindFault:
        adapter = TypeAdapter(model)

        def find_fault(value: Any) -> str | None:
            try:
                adapter.validate_python(value)
            except ValidationError as error:
                first = error.errors(include_url=False, include_context=False, include_input=False)[0]
                return f"{'.'.join(['$', *map(str, first['loc'])])}: {first['msg']}"
            return None

        return find_fault

    return _check_of({prefix: fault_finder(model) for prefix, model in models.items()})


def _check_of(rules: Mapping[str, _FindFault]) -> Check:
    """Return a check of the values of each prefix."""
    by_length = sorted(rules, key=len, reverse=True)

    def check(call: Call, changes: list[CheckedChange], read: Lookup) -> None:
        for change in changes:
            prefix = next((prefix for prefix in by_length if change.key.startswith(prefix)), None)
            if prefix is None or change.after is MISSING:
                continue
            fault = rules[prefix](change.after)
            if fault is not None:
                raise Refused(fault, keys=[change.key])

    return check
