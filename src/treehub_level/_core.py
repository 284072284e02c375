"""The names of the core, from the compiled core or its pure-Python counterpart.

The first import chooses. ``TREEHUB_LEVEL_CORE=c`` selects the compiled core and
``TREEHUB_LEVEL_CORE=python`` its counterpart. If the variable is unset or empty, the compiled core
is used where it is installed. `CORE` names the core in use.
"""
# ruff: noqa: F405

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from ._core_c import *  # noqa: F403

_VARIABLE: Final = "TREEHUB_LEVEL_CORE"

__all__ = [
    "CORE",
    "MAX_CID",
    "MAX_DEPTH",
    "MAX_KEY_BYTES",
    "MAX_VALUE_BYTES",
    "Decoder",
    "Encoder",
    "JSONBytes",
    "KeySpace",
    "apply_batch",
    "check_value",
    "cid_key",
    "client_batch",
    "collect",
    "count_nodes",
    "decode_changes",
    "decode_key",
    "encode_json_key",
    "encode_key",
    "encode_value",
    "find_damaged",
    "join_record",
    "json_line",
    "json_value",
    "parse_cid_key",
    "range_bounds",
    "server_batch",
    "split_items",
    "split_record",
    "split_rows",
    "successor",
]


def _select(choice: str) -> Literal["c", "python"]:
    if choice not in ("", "c", "python"):
        raise ImportError(f'{_VARIABLE} is {choice!r}: set it to "c" or "python", or unset it')
    if choice == "python":
        return "python"
    try:
        import_module("._core_c", __package__)
    except ImportError as error:
        if choice == "c":
            raise ImportError(
                f"{_VARIABLE} asks for the compiled core, which is not installed: "
                f"reinstall treehub-level with a C compiler, or set {_VARIABLE}=python"
            ) from error
        return "python"
    return "c"


#: The core in use: "c" or "python".
CORE: Final[Literal["c", "python"]] = _select(os.environ.get(_VARIABLE, ""))
_core = import_module("._core_c" if CORE == "c" else "._core_py", __package__)
globals().update((name, getattr(_core, name)) for name in __all__ if name != "CORE")
