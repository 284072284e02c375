"""Replies of a scripted server, written by hand."""

from __future__ import annotations

from typing import Any

import orjson

JSON = {"Content-Type": "application/json"}
OURS = {**JSON, "Treehub-Level": "1"}
EPOCH = ["e" * 32, 0]

#: The status, the headers and the body of a response.
Response = tuple[int, dict[str, str], bytes]


def reply_to(request: dict[str, Any], **fields: Any) -> Response:
    """Return a reply of kind ``page`` that is correct but for the given fields.

    The server is empty. It accepts each push, and ends each fill. The numbers of rows are those of
    the rows, if no other ones are given. A field that is ``...`` is left out.
    """
    cid, count = request["cid"], len(request["changes"])
    page: dict[str, Any] = {"kind": "page", "cid": cid + count, "head": cid + count, "more": False}
    page |= {"epochs": [], "ack": None, "rejected": [], "count": 0, "page": []}
    if count:
        page |= {"ack": [cid, cid + count, EPOCH[0]], "epochs": [EPOCH] if cid == 0 else []}
    elif request["fill"] is not None and not fields.get("more"):
        after = request["fill"][1]
        page |= {"fill": {"prefix": "", "after": after, "to": after, "end": True, "count": 0}, "entries": []}
    common = {"protocol": 2, "server": "s" * 32, "nonce": request["nonce"], "base": cid}
    reply = {**common, **page, **fields}
    for counter, rows in (("count", "page"), ("value_count", "values")):
        if isinstance(reply.get(rows), list) and counter not in fields:
            reply[counter] = len(reply[rows])
    return 200, OURS, orjson.dumps({name: field for name, field in reply.items() if field is not ...})
