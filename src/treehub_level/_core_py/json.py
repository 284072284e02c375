"""Values and their JSON: encode objects, and accept JSON text.

The counterpart of ``json.pyx`` and ``json_rewriter.pyx``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum
from typing import Any, Final, NoReturn

import orjson

from ..errors import InvalidValueError
from .json_structure import WHITE_SPACE, string_end
from .keys import MAX_DEPTH, check_bytes, describe_int, quoted

_ONLY_STR: Final = frozenset({str})
#: Types of which orjson refuses every value that JSON cannot round-trip: they need no other check.
_SIMPLE: Final = frozenset({str, int, bool, type(None)})
#: Results of orjson shorter than this are copied. Each result keeps its whole buffer, of 1 KiB
#: (Python 3.11) or 4 KiB (3.13). Copies take a tenth of the memory and half of the time, because
#: orjson then writes every value into the same warm buffer.
_WORTH_COPYING: Final = 2048
#: The start of a line as ``dump`` writes it, and the part between key and value.
_LINE_START, _LINE_MIDDLE = b'{"key":"', b',"value":'


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
        encoded = bytes(value)  # plain bytes: orjson reads no subclass, and some backends store the object
    else:
        if not _is_plain(value, MAX_DEPTH):
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


def _is_plain(value: object, depth: int) -> bool:
    """True if a value holds only plain JSON types and finite floats: orjson finds other faults."""
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
    return not any(type(item) not in _SIMPLE and not _is_plain(item, depth - 1) for item in inner)


def _check(value: object, path: str, depth: int) -> None:
    """Raise InvalidValueError, with the fault and its path, if JSON cannot round-trip a value."""
    if isinstance(value, Enum):
        # orjson writes a member as its value, so only a member equal to its value round-trips.
        if not isinstance(value, (str, int)) or value != value.value:
            raise _unsupported_type(value, path)
        value = value.value
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        if not _is_unicode(value):
            raise InvalidValueError(f"a str with a lone surrogate {_at_path(path)}: it is not Unicode text, remove it")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise InvalidValueError(f"{describe_int(value)} {_at_path(path)}: an int lies between -2**63 and 2**64 - 1")
    elif type(value) is float:
        if not math.isfinite(value):
            raise InvalidValueError(f"{value} {_at_path(path)}: JSON holds finite numbers only")
    elif isinstance(value, (list, dict)) or type(value) is tuple:
        if depth == 0:
            raise InvalidValueError(f"more than {MAX_DEPTH} containers inside each other {_at_path(path)}")
        if isinstance(value, dict):
            for key, item in dict.items(value):
                _check(item, f"{path}{_path_step(key, path)}", depth - 1)
        else:
            for index, item in enumerate(tuple(value)):
                _check(item, f"{path}[{index}]", depth - 1)
    else:
        raise _unsupported_type(value, path)


def _path_step(key: object, path: str) -> str:
    if type(key) is not str:
        raise InvalidValueError(f"a dict key of type {type(key).__name__} {_at_path(path)}: it must be a str")
    if not _is_unicode(key):
        raise InvalidValueError(f"a dict key with a lone surrogate {_at_path(path)}: it is not Unicode text, remove it")
    return f".{key}" if key.isidentifier() else f"[{quoted(key)}]"


def _is_unicode(text: str) -> bool:
    try:
        str.encode(text)
    except UnicodeEncodeError:
        return False
    return True


def _unsupported_type(value: object, path: str) -> InvalidValueError:
    return InvalidValueError(
        f"a value of type {type(value).__name__} {_at_path(path)}: "
        f"only None, bool, int, float, str, list, tuple and dict can be stored, convert it first"
    )


def _at_path(path: str) -> str:
    return f"at {path}" if len(path) <= 120 else f"at {path[:60]}…{path[-59:]}"


def json_value(text: bytes) -> JSONBytes:
    """See ``_core_c.pyi``."""
    check_bytes(text, "JSON text")
    with suppress(orjson.JSONDecodeError, InvalidValueError):  # _parse finds the fault
        if encode_value(orjson.loads(text)) == text:  # no key was repeated, and no number rounded
            return JSONBytes(text)
    return JSONBytes(encode_value(_parse(text)))


def json_line(line: bytes) -> tuple[str, JSONBytes] | None:
    """See ``_core_c.pyi``."""
    check_bytes(line, "a line")
    end = string_end(line, len(_LINE_START)) if line.startswith(_LINE_START) else -1
    rest = line[end + len(_LINE_MIDDLE) :].rstrip(WHITE_SPACE)
    if end < 0 or not line.startswith(_LINE_MIDDLE, end) or not rest.endswith(b"}"):
        return None
    try:
        return orjson.loads(line[len(_LINE_START) - 1 : end]), json_value(rest[:-1])
    except (orjson.JSONDecodeError, InvalidValueError):
        return None


def _parse(text: bytes) -> Any:
    """Parse JSON exactly: orjson rounds large integers, and keeps only the last of equal keys."""
    try:
        return json.loads(text.decode(), object_pairs_hook=object_of_pairs, parse_constant=_refuse_constant)
    except InvalidValueError:
        raise
    except ValueError as error:
        raise InvalidValueError(f"it is not JSON: {error}") from None
    except RecursionError:
        raise too_deep() from None


def object_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of a JSON object, for ``json.loads``.

    Raises:
        InvalidValueError: A member occurs twice.
    """
    items = dict(pairs)
    if len(items) < len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise repeated_key(repeated)
    return items


def repeated_key(key: str) -> InvalidValueError:
    """Return the error for an object that has a key twice."""
    return InvalidValueError(f"an object has the key {quoted(key)} twice: remove one of them")


def too_deep() -> InvalidValueError:
    """Return the error for a text with too many containers inside each other."""
    return InvalidValueError(f"more than {MAX_DEPTH} containers inside each other")


def malformed_at(position: int) -> InvalidValueError:
    """Return the error for a long text with a fault at a byte, counted from 0."""
    return InvalidValueError(f"byte {position} begins something that is not JSON, or that JSON cannot round-trip")


def _refuse_constant(constant: str) -> NoReturn:
    raise InvalidValueError(f"{constant} is not JSON: JSON holds finite numbers only")
