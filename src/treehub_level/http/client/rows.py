"""Pages of rows whose values take much memory once they are decoded: 8 MiB of lists take 400 MiB.

A few kilobytes of gzip are enough for such a page. So its rows are decoded one after another, and
the page ends here with the row before the one that exceeds `MAX_PAGE_NODES`. The next request asks
for the rest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from ... import _core
from ...engine.codec import decode_json
from ...errors import ProtocolError
from ...replication.fields import MAX_CHANGES
from ...replication.wire import MAX_NODES
from .body import MAX_VALUE_BYTES

#: The most values of a page together, as `_core.count_nodes` counts them, unless one row alone has
#: more. Each takes up to 90 bytes of memory.
MAX_PAGE_NODES: Final = 300_000
#: The most members of a page.
_MAX_FIELDS: Final = 100
_ROWS: Final = re.compile(rb'"(changes|entries)"[ \t\r\n]*:')


class DecodedRows(NamedTuple):
    """The first rows of a page.

    Attributes:
        rows: The rows, decoded.
        is_cut: True if the page has more.
    """

    rows: list[Any]
    is_cut: bool


def is_large(body: bytes) -> bool:
    """Return True if a page has to be decoded row by row."""
    return len(body) > MAX_PAGE_NODES and _core.count_nodes(body) > MAX_PAGE_NODES


def decode_rows(texts: Sequence[bytes]) -> DecodedRows:
    """Decode rows until they take too much memory.

    Raises:
        ProtocolError: A row is larger than its value can be.
        ValueError: A row is not JSON.
    """
    rows: list[Any] = []
    nodes = 0
    for text in texts:
        if len(text) > MAX_VALUE_BYTES:
            raise ProtocolError(f"a row of the server has more than {MAX_VALUE_BYTES:,} bytes")
        nodes += _core.count_nodes(text)
        if rows and nodes > MAX_PAGE_NODES:
            return DecodedRows(rows, is_cut=True)
        rows.append(decode_json(text))
    return DecodedRows(rows, is_cut=False)


def decode_page(body: bytes, name: str, since: int = 0) -> dict[str, Any]:
    """Decode a page in JSON, row by row.

    Args:
        body: The page.
        name: The member with its rows: "changes" or "entries".
        since: The CID after which a page of changes was requested.

    Returns:
        The page. If it was cut, it announces more, and its CID is that of its last change.

    Raises:
        ProtocolError: The body is no such page.
    """
    others, texts = _split_page(body, name)
    try:
        page: dict[str, Any] = decode_json(b"{%b}" % b",".join(others), MAX_NODES)
        rows, is_cut = decode_rows(texts)
    except ValueError as error:
        raise ProtocolError(f"the server's page is not JSON: {error}") from error
    page[name] = rows
    if is_cut:
        page["has_more"] = True
        if "cid" in page:
            # In JSON the changes have no CIDs: they are known if the page has all of its range.
            if page["cid"] != since + len(texts):
                raise ProtocolError("the server's page is too large: ask for fewer changes at a time, by limit=")
            page["cid"] = since + len(rows)
    return page


def _split_page(body: bytes, name: str) -> tuple[list[bytes], list[bytes]]:
    """Return the members of a page beside its rows, and its rows, as they are written.

    Raises:
        ProtocolError: The body has no such rows, or has them twice.
    """
    others: list[bytes] = []
    texts: list[bytes] | None = None
    for member in _core.split_items(body, b"{}", _MAX_FIELDS) or ():
        found = _ROWS.match(member)
        if found is None:
            others.append(member)
        elif found[1].decode() != name or texts is not None:
            break
        else:
            texts = _core.split_items(member[found.end() :], b"[]", MAX_CHANGES)
    else:
        if texts is not None:
            return others, texts
    raise ProtocolError(f'the server\'s response is no page of "{name}": {body[:80]!r}')
