"""The id of a request, by which its lines in the logs of several programs are found."""

from __future__ import annotations

import re
import uuid
from typing import Final

from starlette.types import Scope

#: The header of a request and of its response. It is no standard, but widely used.
REQUEST_ID_HEADER: Final = "x-request-id"

#: Ids that may be repeated in logs, headers and JSON without harm.
_HARMLESS: Final = re.compile(rb"[A-Za-z0-9._:+/=@-]{1,64}")


def request_id(scope: Scope) -> str:
    """Return the id of a request: the one that it brings, if that is harmless, else a new one.

    An id is harmless if the request has one such header, of 1 to 64 letters, digits and
    ``._:+/=@-``.
    """
    name = REQUEST_ID_HEADER.encode()
    sent = [value for header, value in scope["headers"] if header == name]
    if len(sent) == 1 and _HARMLESS.fullmatch(sent[0]):
        return str(sent[0], "ascii")
    return new_request_id()


def new_request_id() -> str:
    """Return a new id, of 32 hex digits."""
    return uuid.uuid4().hex
