"""Strict parsers for the parts of a URL: query parameters, and the key in the path."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_to_bytes

from starlette.requests import Request

from ... import _core
from ...replication.endpoint import MAX_WAIT
from ...replication.fields import MAX_CHANGES
from .refusals import bad_request

_INTEGER: Final = re.compile(r"[0-9]{1,16}")
_SECONDS: Final = re.compile(r"[0-9]{1,2}(\.[0-9]{1,6})?")
_MAX_PARAMETERS: Final = 16


def parse_parameters(request: Request, parsers: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """Parse the query parameters of a request.

    Args:
        request: The request.
        parsers: A parser for each parameter that the route knows.

    Returns:
        The parsed value of each known parameter; ``None`` for those that are not given.

    Raises:
        RefusedError: A parameter is unknown, given twice, or rejected by its parser.
    """
    parsed: dict[str, Any] = dict.fromkeys(parsers)
    try:
        pairs = parse_qsl(
            request.scope["query_string"].decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MAX_PARAMETERS,
        )
    except ValueError as error:  # percent-encoding that is not UTF-8, or too many parameters
        raise bad_request(
            f"the query of the URL cannot be read: send at most {_MAX_PARAMETERS} parameters in percent-encoded UTF-8"
        ) from error
    for name, value in pairs:
        if name not in parsers:
            raise bad_request(f"the parameter {name[:40]!r} is unknown: use {', '.join(parsers)}")
        if parsed[name] is not None:
            raise bad_request(f"the parameter {name} is given twice: give it once")
        parsed[name] = parsers[name](value)
    return parsed


def parse_cid(text: str) -> int:
    """Parse a change id.

    Raises:
        RefusedError: ``text`` is not an integer from 0 to 2^53 - 1.
    """
    return _integer(text, 0, _core.MAX_CID, "a change id")


def parse_limit(text: str) -> int:
    """Parse the largest number of items in a page.

    Raises:
        RefusedError: ``text`` is not an integer from 1 to 1000.
    """
    return _integer(text, 1, MAX_CHANGES, "a limit")


def parse_wait(text: str) -> float:
    """Parse the longest time of a long poll, in seconds.

    Raises:
        RefusedError: ``text`` is not a number from 0 to 60.
    """
    if not _SECONDS.fullmatch(text) or float(text) > MAX_WAIT:
        raise bad_request(f"{text[:40]!r} is not a waiting time: send a number of seconds from 0 to {MAX_WAIT}")
    return float(text)


def parse_flag(text: str) -> bool:
    """Parse a parameter that is true or false.

    Raises:
        RefusedError: ``text`` is something else.
    """
    if text not in ("true", "false"):
        raise bad_request(f"{text[:40]!r} is neither true nor false")
    return text == "true"


def _integer(text: str, low: int, high: int, noun: str) -> int:
    if not _INTEGER.fullmatch(text) or not low <= int(text) <= high:
        raise bad_request(f"{text[:40]!r} is not {noun}: send an integer from {low} to {high}")
    return int(text)


def parse_key(request: Request) -> str:
    """Parse the key at the end of a request's path. Its slashes may be percent-encoded or not.

    Raises:
        RefusedError: The key is not percent-encoded UTF-8.
    """
    encoded: str = request.path_params["key"]  # as sent: see `raw_path`
    try:
        return unquote_to_bytes(encoded.encode("latin-1")).decode()
    except ValueError as error:
        raise bad_request("the key in the URL cannot be read: send it in percent-encoded UTF-8") from error
