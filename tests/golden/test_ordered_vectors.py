"""The bytes of ordered keys: `ordered.json`, in key order, which JavaScript reads too."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pytest

from treehub_level import DecodeError, ordered

pytestmark = pytest.mark.once

VECTORS: Final = json.loads((Path(__file__).parent / "ordered.json").read_text(encoding="utf-8"))

#: Makes an element from its one member: the name of the type, and a text.
ELEMENTS: Final[dict[str, Callable[[Any], Any]]] = {
    "null": lambda value: None,
    "bool": bool,
    "date": date.fromisoformat,
    "float": lambda text: struct.unpack(">d", bytes.fromhex(text))[0],  # the bytes of IEEE 754
    "int": int,
    "naive": datetime.fromisoformat,
    "str": str,
    "datetime": lambda text: datetime.fromisoformat(text.replace("Z", "+00:00")),
    "uuid": UUID,
    "bytes": bytes.fromhex,
}


def values_of(vector: Any) -> Any:
    return tuple(
        ELEMENTS[kind](text) for element in vector["values"] for kind, text in element.items() if kind != "note"
    )


@pytest.mark.parametrize("vector", VECTORS["keys"], ids=lambda vector: ascii(vector["key"])[:40])
def test_a_vector_is_encoded_and_decoded(vector: Any) -> None:
    values = values_of(vector)
    assert ordered.encode(values) == vector["key"]
    decoded = ordered.decode(vector["key"])
    assert decoded == values
    assert [*map(repr, decoded)] == [*map(repr, values)]  # of the same types, and zeros of the same sign


@pytest.mark.parametrize("key", VECTORS["invalid"], ids=lambda key: ascii(key)[:40])
def test_an_invalid_key_is_refused(key: str) -> None:
    with pytest.raises(DecodeError):
        ordered.decode(key)


def test_the_vectors_are_in_the_order_of_their_bytes() -> None:
    keys = [vector["key"].encode() for vector in VECTORS["keys"]]
    assert keys == sorted({*keys})
