"""Harnesses for the decoders of both cores: keys, values, records, rows.

Each harness takes any bytes. It raises if a core breaks its contract, or if the cores differ.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import orjson

from treehub_level._core_py.packed import unpack
from treehub_level.errors import DecodeError, InvalidKeyError, InvalidValueError, ProtocolError

#: The pure core, and the compiled core where it is installed.
CORES: Final[list[Any]] = [
    import_module(f"treehub_level.{name}")
    for name in ("_core_py", "_core_c")
    if find_spec(f"treehub_level.{name}") is not None
]


def agreed(call: Callable[[Any], Any], *refusals: type[Exception]) -> Any:
    """Call both cores, and return the common result, or ``None`` if both raised the same error.

    Args:
        call: A function of a core.
        refusals: The errors that the contract allows. Any other error is raised, and is a finding.
    """
    outcomes = [_outcome(call, core, refusals) for core in CORES]
    if _form(outcomes[0]) != _form(outcomes[-1]):
        raise AssertionError(f"the cores disagree: {_form(outcomes[0]):.500} and {_form(outcomes[-1]):.500}")
    return None if isinstance(outcomes[0], Exception) else outcomes[0]


def _outcome(call: Callable[[Any], Any], core: Any, refusals: tuple[type[Exception], ...]) -> Any:
    try:
        return call(core)
    except refusals as error:
        return error


def _form(outcome: Any) -> str:
    """An outcome as text, which tells 1 from True, -0.0 from 0.0 and one error from another."""
    try:
        return repr(outcome)
    except RecursionError:
        return f"a deeply nested {type(outcome).__name__}"


def keys(data: bytes) -> None:
    """Keys, the keys of change ids, and ranges of keys."""
    key = agreed(lambda core: core.decode_key(data), DecodeError)
    if key is not None:
        assert agreed(lambda core: core.encode_key(key)) == data
        agreed(lambda core: core.KeySpace("!").check_key(key), InvalidKeyError)
        prefix = agreed(lambda core: core.KeySpace(key[:3]).prefix, ValueError)
        assert prefix is None or prefix == data[:3]
    cid = agreed(lambda core: core.parse_cid_key(data), ValueError)
    assert cid is None or agreed(lambda core: core.cid_key(cid)) == data
    agreed(lambda core: core.KeySpace("!").parse_log_key(data), ValueError)
    successor = agreed(lambda core: core.successor(data))
    assert successor is None or (successor > data and not successor.startswith(data))
    bounds = [part or None for part in data.split(b",", 5)]
    bounds += [None] * (6 - len(bounds))
    start, stop = agreed(lambda core: core.range_bounds(*bounds))
    for bound in filter(None, bounds[:2]):
        assert start >= bound
    for bound in filter(None, bounds[2:4]):
        assert stop <= bound + b"\0"


def json_value(data: bytes) -> None:
    """One JSON document, returned unaltered or rewritten."""
    value = agreed(lambda core: core.json_value(data), InvalidValueError)
    if value is not None:
        assert orjson.dumps(orjson.loads(bytes(value))) == value, "the result is not in canonical form"
        assert json.loads(value) == json.loads(data), "the result has another value"
        assert agreed(lambda core: core.json_value(bytes(value))) == value


def json_line(data: bytes) -> None:
    """A line of JSON Lines, split into its key and its value without decoding it."""
    pair = agreed(lambda core: core.json_line(data))
    if pair is not None:
        assert json.loads(data) == {"key": pair[0], "value": json.loads(bytes(pair[1]))}


def records(data: bytes) -> None:
    """Change records, as in the change log and in a page in lines."""
    parts = agreed(lambda core: core.split_record(data), ValueError)
    if parts is not None:
        again = agreed(lambda core: core.join_record(*parts))
        assert agreed(lambda core: core.split_record(again)) == parts
    lines = data.split(b"\n")
    rows = agreed(lambda core: core.split_rows(lines))
    if rows is not None:
        assert [b"[%d,%b]" % row for row in rows] == lines
    changes = agreed(lambda core: core.decode_changes(lines), ValueError)
    assert changes is None or len(changes) == len(lines)
    entries = agreed(lambda core: [*core.Encoder(core.KeySpace("!")).records(lines)], ProtocolError)
    damaged = agreed(lambda core: core.find_damaged(core.KeySpace("!"), lines))
    if entries is not None:
        assert damaged is None, "a server refuses to send what clients accept"
        written = agreed(lambda core: [*core.server_batch(core.KeySpace("!"), 7, entries)])
        joined = agreed(lambda core: [core.join_record(*entry) for entry in entries])
        assert [record for _, record in written[1:-1:2]] == joined


def packed(data: bytes) -> None:
    """Packed rows, as the native engine returns them."""
    for options in ({}, {"strip": 2}, {"raw_keys": True}, {"raw_values": True}):
        _packed(data, options)


def _packed(data: bytes, options: dict[str, Any]) -> None:
    refusals = DecodeError, ValueError, TypeError
    items = agreed(lambda core: core.Decoder(**options).items(data), *refusals)
    values = agreed(lambda core: core.Decoder(**options).values(data), *refusals)
    if items is not None:
        assert [value for _, value in items] == values
        assert len(items) == len(unpack(data))
