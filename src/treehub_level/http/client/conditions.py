"""Conditions of a write over HTTP: entity tags, and the headers that carry them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ...types import ANY_VALUE

_TAG: Final = re.compile(r'"[\x21\x23-\x7e]{0,200}"')


class Tagged(NamedTuple):
    """A value with its entity tag.

    Attributes:
        value: The value, or the default if the key is absent.
        etag: The tag; ``None`` if the key is absent. It is opaque: pass it on as it is.
    """

    value: Any
    etag: str | None


def parse_etag(headers: Mapping[str, str]) -> str | None:
    """Return the entity tag in the headers of a response; ``None`` without a valid one."""
    tag = headers.get("etag", "")
    return tag if _TAG.fullmatch(tag) else None


def condition_headers(*, if_match: object = ANY_VALUE, if_absent: object = False) -> dict[str, str]:
    """Return the headers of a write that depends on the present value.

    Args:
        if_match: The tag of the value that the key must have; ``None`` if it must be absent.
        if_absent: True if the key must be absent.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: ``if_match`` is no strong tag, or both arguments are given.
    """
    if not isinstance(if_absent, bool):
        raise TypeError(f"if_absent is True or False, not {if_absent!r:.80}")
    if if_match is ANY_VALUE:
        return {"If-None-Match": "*"} if if_absent else {}
    if if_absent:
        raise ValueError("give if_match or if_absent, not both")
    if if_match is None:
        return {"If-None-Match": "*"}
    if not isinstance(if_match, str):
        raise TypeError(f"if_match is the ETag of a value, or None, not {if_match!r:.80}")
    if not _TAG.fullmatch(if_match):
        raise ValueError(f"{if_match!r:.80} is not an ETag: pass the one of get_with_etag(), with its quotes")
    return {"If-Match": if_match}
