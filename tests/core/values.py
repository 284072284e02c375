"""Values for the tests of the core, storable and not."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

from hypothesis import strategies as st

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
#: Every value that can be stored.
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5), max_leaves=20
)


class Colour(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    SMALL = 1


class Mood(str, enum.Enum):
    GLAD = "glad"


class Elsewhere(int, enum.Enum):
    """An enum whose members do not equal their values."""

    HERE = 1

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    __hash__ = int.__hash__


class Text(str):
    __slots__ = ()


class Whole(int):
    __slots__ = ()


class Number(float):
    __slots__ = ()


class Octets(bytes):
    __slots__ = ()


class Mapping(dict[Any, Any]):
    __slots__ = ()


class Sequence(list[Any]):
    __slots__ = ()


class Point(NamedTuple):
    x: int
    y: int


def nested(depth: int) -> Any:
    """A value with ``depth`` containers inside each other."""
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value
