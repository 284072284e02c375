"""Parsing of the keyword arguments that describe a range of keys."""

from __future__ import annotations

from typing import Final, NamedTuple, cast

from ..types import KeyRange, RangeOptions
from .codec import Codec

_BOUNDS: Final = frozenset(KeyRange.__annotations__)
_OPTIONS: Final = frozenset(RangeOptions.__annotations__)


class Range(NamedTuple):
    """A range of stored keys to walk over.

    Attributes:
        start: The first key, inclusive; ``None`` for the first of the store.
        stop: The end, exclusive; ``None`` for the end of the store.
        reverse: True to walk from the last key down.
        limit: The largest number of results; ``None`` for all.
    """

    start: bytes | None
    stop: bytes | None
    reverse: bool
    limit: int | None


def parse_range(codec: Codec, verb: str, options: RangeOptions) -> Range:
    """Check the options of a verb that reads a range, and encode its bounds.

    Args:
        codec: The codec of the level.
        verb: The name of the verb, for error messages.
        options: The keyword arguments of the call.

    Raises:
        TypeError: An option is unknown or of a wrong type.
        ValueError: ``gt`` with ``gte``, ``lt`` with ``lte``, or a negative limit.
        InvalidKeyError: A bound contains a lone surrogate.
    """
    _check_names(verb, options.keys() - _OPTIONS)
    reverse = options.get("reverse", False)
    if not isinstance(reverse, bool):
        raise TypeError(f"reverse is True or False, not {reverse!r:.80}")
    start, stop = _encode_bounds(codec, cast(KeyRange, options))
    return Range(start, stop, reverse, check_limit(options.get("limit")))


def parse_bounds(codec: Codec, verb: str, bounds: KeyRange) -> tuple[bytes | None, bytes | None]:
    """Check the bounds of a verb that takes nothing else, and encode them.

    Returns:
        The stored keys where the range starts, inclusive, and stops, exclusive.

    Raises:
        TypeError, ValueError, InvalidKeyError: As `parse_range` does.
    """
    _check_names(verb, bounds.keys() - _BOUNDS)
    return _encode_bounds(codec, bounds)


def _check_names(verb: str, unknown: set[str]) -> None:
    if unknown:
        raise TypeError(f"{verb}() got an unexpected keyword argument {min(unknown)!r}")


def _encode_bounds(codec: Codec, bounds: KeyRange) -> tuple[bytes | None, bytes | None]:
    get = bounds.get
    return codec.bounds(get("gt"), get("gte"), get("lt"), get("lte"), get("prefix"))


def check_limit(limit: object) -> int | None:
    """Return ``limit`` if it is ``None`` or a non-negative ``int``.

    Raises:
        TypeError: ``limit`` has another type. A ``bool`` is not accepted.
        ValueError: ``limit`` is negative.
    """
    if limit is None:
        return None
    if type(limit) is not int:
        raise TypeError(f"limit is None or an int, not {limit!r:.80}")
    if limit < 0:
        raise ValueError(f"limit is at least 0, not {limit}")
    return limit
