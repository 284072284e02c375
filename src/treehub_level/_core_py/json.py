"""Values and their JSON: encoding objects, and taking over what is JSON already. The twin of ``json.pyx``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum
from typing import Any, Final, NoReturn

import orjson

from ..errors import InvalidValueError
from .keys import MAX_DEPTH, check_bytes, shown, shown_int

_ONLY_STR: Final = frozenset({str})
#: Types of which orjson refuses every value that would not come back equal, so that it alone need look at them.
_SIMPLE: Final = frozenset({str, int, bool, type(None)})
#: What orjson returns keeps the buffer that it was written in, of 1 KiB (3.11) or 4 KiB (3.13), however short it is.
#: Copies take a tenth of the memory, and half of the time, since every value is then written in the same warm buffer.
_WORTH_COPYING: Final = 2048
#: `{"key":string,"value":something}`. What string and something hold is for `json_value` to judge.
_LINE: Final = re.compile(rb'\{"key":("[^"\\]*(?:\\.[^"\\]*)*"),"value":(.*)\}[ \t\r\n]*', re.DOTALL)


class JSONBytes(bytes):
    """See ``_core_c.pyi``."""

    __slots__ = ()


def check_value(value: object) -> None:
    """See ``_core_c.pyi``."""
    if not isinstance(value, JSONBytes):
        _check(value, "$", MAX_DEPTH)


def encode_value(value: object, limit: int | None = None) -> bytes:
    """See ``_core_c.pyi``."""
    if isinstance(value, JSONBytes):
        encoded = bytes(value)  # orjson reads no subclass, and some backends store the very object
    else:
        if not _plain(value, MAX_DEPTH):
            _check(value, "$", MAX_DEPTH)
        try:
            encoded = orjson.dumps(value)
        except orjson.JSONEncodeError as error:
            _check(value, "$", MAX_DEPTH)
            raise InvalidValueError(f"the value cannot be encoded: {error}") from error
        if len(encoded) < _WORTH_COPYING:
            encoded = b"%b" % encoded
    if limit is not None and len(encoded) > limit:
        raise InvalidValueError(f"the value takes {len(encoded)} bytes of JSON, and at most {limit} are allowed")
    return encoded


def _plain(value: object, depth: int) -> bool:
    """Whether all types in here are plain and all floats finite, so that orjson finds whatever else may be wrong."""
    kind = type(value)
    if kind in _SIMPLE:
        return True
    if kind is float:
        return math.isfinite(value)  # type: ignore[arg-type]
    if depth == 0:
        return False
    inner: Iterable[object]
    if kind is dict:
        if not _ONLY_STR.issuperset(map(type, value)):  # type: ignore[call-overload]
            return False
        inner = value.values()  # type: ignore[attr-defined]
    elif kind is list or kind is tuple:
        inner = value  # type: ignore[assignment]
    else:
        return False
    return not any(type(item) not in _SIMPLE and not _plain(item, depth - 1) for item in inner)


def _check(value: object, path: str, depth: int) -> None:
    """Raise InvalidValueError, naming the fault and its place, for whatever would not come back equal."""
    if isinstance(value, Enum):
        # orjson writes a member as its value; only one that equals its value comes back equal.
        if not isinstance(value, (str, int)) or value != value.value:
            raise _unstorable(value, path)
        value = value.value
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        if not _encodable(value):
            raise InvalidValueError(f"a str with a lone surrogate {_at(path)}: it is not Unicode text, remove it")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise InvalidValueError(f"{shown_int(value)} {_at(path)}: an int lies between -2**63 and 2**64 - 1")
    elif type(value) is float:
        if not math.isfinite(value):
            raise InvalidValueError(f"{value} {_at(path)}: JSON holds finite numbers only")
    elif isinstance(value, (list, dict)) or type(value) is tuple:
        if depth == 0:
            raise InvalidValueError(f"more than {MAX_DEPTH} containers inside each other {_at(path)}")
        if isinstance(value, dict):
            for key, item in dict.items(value):
                _check(item, f"{path}{_step(key, path)}", depth - 1)
        else:
            for index, item in enumerate(tuple(value)):
                _check(item, f"{path}[{index}]", depth - 1)
    else:
        raise _unstorable(value, path)


def _step(key: object, path: str) -> str:
    if type(key) is not str:
        raise InvalidValueError(f"a dict key of type {type(key).__name__} {_at(path)}: it must be a str")
    if not _encodable(key):
        raise InvalidValueError(f"a dict key with a lone surrogate {_at(path)}: it is not Unicode text, remove it")
    return f".{key}" if key.isidentifier() else f"[{shown(key)}]"


def _encodable(text: str) -> bool:
    try:
        str.encode(text)
    except UnicodeEncodeError:
        return False
    return True


def _unstorable(value: object, path: str) -> InvalidValueError:
    return InvalidValueError(
        f"a value of type {type(value).__name__} {_at(path)}: only None, bool, int, float, str, list, tuple and dict "
        f"can be stored, convert it first"
    )


def _at(path: str) -> str:
    return f"at {path}" if len(path) <= 120 else f"at {path[:60]}…{path[-59:]}"


def json_value(text: bytes) -> JSONBytes:
    """See ``_core_c.pyi``."""
    check_bytes(text, "JSON text")
    with suppress(orjson.JSONDecodeError, InvalidValueError):  # what is wrong is found out below
        if encode_value(orjson.loads(text)) == text:  # so no key stands twice, and no number was rounded
            return JSONBytes(text)
    return JSONBytes(encode_value(_parse(text)))


def json_line(line: bytes) -> tuple[str, JSONBytes] | None:
    """See ``_core_c.pyi``."""
    check_bytes(line, "a line")
    parts = _LINE.fullmatch(line)
    if parts is None:
        return None
    try:
        return orjson.loads(parts[1]), json_value(parts[2])
    except (orjson.JSONDecodeError, InvalidValueError):
        return None


def _parse(text: bytes) -> Any:
    """What a JSON text says, exactly: orjson would round large integers, and drop all but the last of equal keys."""
    try:
        return json.loads(text.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except InvalidValueError:
        raise
    except ValueError as error:
        raise InvalidValueError(f"it is not JSON: {error}") from None
    except RecursionError:
        raise InvalidValueError(f"more than {MAX_DEPTH} containers inside each other") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    items = dict(pairs)
    if len(items) < len(pairs):
        seen: set[str] = set()
        again = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidValueError(f"an object with the key {shown(again)} twice: only one of its values would be kept")
    return items


def _refuse_constant(constant: str) -> NoReturn:
    raise InvalidValueError(f"{constant} is not JSON: JSON holds finite numbers only")
