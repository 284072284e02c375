"""What stands in the URL of a request: a key, and parameters, decoded strictly."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_to_bytes

from starlette.requests import Request

from ... import _core
from ...replication.endpoint import MAX_WAIT
from ...replication.fields import MAX_CHANGES
from .refusals import malformed

_INTEGER: Final = re.compile(r"[0-9]{1,16}")
_SECONDS: Final = re.compile(r"[0-9]{1,2}(\.[0-9]{1,6})?")
_MAX_PARAMETERS: Final = 16


def parameters(request: Request, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """The parameters of a request, each as its reader gives it; ``None`` for those that are not there.

    Raises:
        RefusedError: One that is unknown, or stands twice, or is not what its reader takes.
    """
    found: dict[str, Any] = dict.fromkeys(known)
    try:
        pairs = parse_qsl(
            request.scope["query_string"].decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MAX_PARAMETERS,
        )
    except ValueError as error:  # not UTF-8 behind the percent signs, or too many
        raise malformed("the query of the URL cannot be read: percent-encoded UTF-8 is needed") from error
    for name, value in pairs:
        if name not in known:
            raise malformed(f"the parameter {name[:40]!r} is unknown; there are {', '.join(known)}")
        if found[name] is not None:
            raise malformed(f"the parameter {name} stands twice")
        found[name] = known[name](value)
    return found


def cid(text: str) -> int:
    """A change id."""
    return _integer(text, 0, _core.MAX_CID, "a change id")


def limit(text: str) -> int:
    """How many items are wanted."""
    return _integer(text, 1, MAX_CHANGES, "a limit")


def seconds(text: str) -> float:
    """How long to wait."""
    if not _SECONDS.fullmatch(text) or float(text) > MAX_WAIT:
        raise malformed(f"{text[:40]!r} is no time to wait: a number of seconds from 0 to {MAX_WAIT} is needed")
    return float(text)


def _integer(text: str, low: int, high: int, what: str) -> int:
    if not _INTEGER.fullmatch(text) or not low <= int(text) <= high:
        raise malformed(f"{text[:40]!r} is not {what}: a number from {low} to {high} is needed")
    return int(text)


def key(request: Request) -> str:
    """The key that the path of a request ends with. It may hold slashes, bare or encoded.

    Raises:
        RefusedError: It is not percent-encoded UTF-8.
    """
    # The decoded path has something else in place of what is not UTF-8, and so may name another key.
    path: bytes = request.scope["raw_path"]
    marker = f"/v1/{request.path_params['db']}/entries/".encode()
    _, found, encoded = path.partition(marker)
    try:
        if not found:
            raise ValueError("the part before the key is percent-encoded")
        return unquote_to_bytes(encoded).decode()
    except ValueError as error:
        raise malformed("the key in the URL cannot be read: percent-encoded UTF-8 is needed") from error
