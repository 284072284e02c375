"""Conversion between instances of a type and plain JSON, by msgspec or pydantic."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any, Final, is_typeddict

import orjson

from ..extras import missing


class MismatchError(Exception):
    """A value does not fit a type.

    Attributes:
        fault: The fault, such as ``expected str, got int``.
        path: The JSON path of the fault, such as ``$.tags[2]``.
    """

    def __init__(self, fault: str, path: str) -> None:
        super().__init__(fault, path)
        self.fault = fault
        self.path = path


class Conversion:
    """The conversion for one type.

    Args:
        model: A dataclass, a ``TypedDict``, a ``msgspec.Struct``, or another type that msgspec can
            validate, such as ``list[int]``; or a pydantic model, which pydantic converts.

    Raises:
        ModuleNotFoundError: The extra ``typed`` is not installed.
        TypeError: The library cannot convert the type.
    """

    def __init__(self, model: Any) -> None:
        self.name = getattr(model, "__name__", None) or str(model)
        self._class = model if isinstance(model, type) and not is_typeddict(model) else None
        self._dump, self._load = (_by_pydantic if _is_pydantic(model) else _by_msgspec)(model)

    def load(self, value: Any) -> Any:
        """Return the instance of a JSON value.

        Raises:
            MismatchError: The value does not fit.
        """
        return self._load(value)

    def dump(self, instance: Any) -> Any:
        """Return the JSON value of an instance, which `load` turns into an equal one.

        Raises:
            MismatchError: It is not an instance, a part of it has another type than the field, or
                JSON cannot represent it.
        """
        kind = self._class
        if kind is not None and not isinstance(instance, kind) and not (kind is float and type(instance) is int):
            raise MismatchError(f"expected {kind.__name__}, got {type(instance).__name__}", "$")
        value = self._dump(instance)
        _compare(instance, self._load(value), "$")
        return value


def _is_pydantic(model: Any) -> bool:
    """True for a model or a dataclass of pydantic. It has imported pydantic then."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or not isinstance(model, type):
        return False
    return issubclass(model, pydantic.BaseModel) or "__pydantic_validator__" in vars(model)


def _by_msgspec(model: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    try:
        import msgspec
    except ImportError as error:
        raise ModuleNotFoundError(missing("a typed view", "msgspec", "typed"), name=error.name) from error
    if not isinstance(model, type) and isinstance(model, (str, int, dict, list, tuple)):
        raise TypeError(f"the type of a view is a class or a type, not {model!r:.80}")
    msgspec.json.Decoder(model)  # it refuses types that it cannot convert

    def dump(instance: Any) -> Any:
        try:
            return msgspec.to_builtins(instance, str_keys=True)
        except (TypeError, ValueError, RecursionError) as error:
            raise MismatchError(str(error), "$") from None

    def load(value: Any) -> Any:
        try:
            return msgspec.convert(value, model, str_keys=True)
        except (msgspec.ValidationError, RecursionError) as error:
            fault, _, path = str(error).partition(" - at `")
            raise MismatchError(fault.replace("`", ""), path.rstrip("`") or "$") from None

    return dump, load


def _by_pydantic(model: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    from pydantic import TypeAdapter, ValidationError
    from pydantic_core import PydanticSerializationError

    adapter = TypeAdapter(model)

    def dump(instance: Any) -> Any:
        try:
            return adapter.dump_python(instance, mode="json", by_alias=True, round_trip=True, warnings="none")
        except (PydanticSerializationError, ValueError, RecursionError) as error:
            raise MismatchError(str(error), "$") from None

    def load(value: Any) -> Any:
        try:
            # As JSON: a strict model takes a time as a string only from there.
            return adapter.validate_json(orjson.dumps(value))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            raise MismatchError(first["msg"], "$" + "".join(map(_path_step, first["loc"]))) from None
        except (TypeError, RecursionError) as error:  # a NaN, say: the encoder of the store names it
            raise MismatchError(str(error), "$") from None

    return dump, load


def _path_step(step: object) -> str:
    return f"[{step}]" if isinstance(step, int) else f".{step}" if str(step).isidentifier() else f"[{step!r}]"


# ------------------------------------------------------------------- the types inside an instance


def _compare(given: Any, loaded: Any, path: str) -> None:
    """Compare an instance with its copy that went through JSON.

    Raises:
        MismatchError: A part has another type than its copy, or is not equal to it.
    """
    kind = type(loaded)
    if not isinstance(given, kind):
        if kind is float and type(given) is int and given == loaded:
            return
        raise MismatchError(f"expected {kind.__name__}, got {type(given).__name__}", path)
    if isinstance(loaded, dict):
        for name, value in given.items():
            if name not in loaded:
                raise MismatchError("the type has no such field", f"{path}{_path_step(name)}")
            _compare(value, loaded[name], f"{path}{_path_step(name)}")
    elif isinstance(loaded, (list, tuple)):
        for index, (value, copy) in enumerate(zip(given, loaded, strict=False)):
            _compare(value, copy, f"{path}[{index}]")
    elif (names := _fields(kind)) is not None:
        for name in names:
            _compare(getattr(given, name, None), getattr(loaded, name, None), f"{path}.{name}")
    elif kind is float and not isfinite(given):
        raise MismatchError(f"{given} is not finite, and JSON holds finite numbers only", path)
    elif given != loaded:
        raise MismatchError(f"{given!r:.80} would come back as {loaded!r:.80}", path)


def _fields(kind: type) -> Iterable[str] | None:
    """Return the names of the fields of a class; ``None`` for types without fields."""
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    for attribute in _FIELDS:
        if (names := getattr(kind, attribute, None)) is not None:
            return [getattr(name, "name", name) for name in names]
    return None


#: Attributes of the classes of msgspec, pydantic and attrs that list their fields.
_FIELDS: Final = ("__struct_fields__", "__pydantic_fields__", "__attrs_attrs__")
