"""The ranges of a request as sets of stored keys, within the rights of a token."""

from __future__ import annotations

from typing import NamedTuple

from .. import _core
from ..engine.access import FULL, Access
from ..engine.key_ranges import KeyRanges, encode_prefix
from ..errors import ForbiddenError, InvalidKeyError, ProtocolError
from .fields import shown
from .messages import Request


class RequestedRanges(NamedTuple):
    """The keys that a request wants to know of.

    Attributes:
        log: The keys whose changes are wanted.
        fill: The keys whose live entries are wanted: those of the range after its filled part.
    """

    log: KeyRanges
    fill: KeyRanges


def requested_ranges(request: Request, space: _core.KeySpace, access: Access) -> RequestedRanges:
    """Return the keys that a request wants to know of, and the caller may read.

    Args:
        request: The request.
        space: The key space of the store.
        access: The rights of the caller.

    Raises:
        ProtocolError: No key that users may write begins with one of the prefixes.
        ForbiddenError: The caller may read no key with one of the prefixes, other than those in
            ``partial``. A client may list a prefix there of which it only has keys to push.
    """
    complete = [_encode(space, access, "complete", prefix) for prefix in request.complete]
    partial = [_encode(space, FULL, "partial", prefix) for prefix in request.partial]
    log = KeyRanges.of_prefixes([*complete, *partial])
    fill = KeyRanges(())
    if request.fill is not None:
        prefix, after = _encode(space, access, "fill", request.fill.prefix), request.fill.after.encode()
        stop = _core.successor(prefix)
        rest = after + b"\0" if after else max(prefix, space.user_start)
        log = log.union([(prefix, rest)]) if after else log
        fill = KeyRanges([(rest, stop)]).without(KeyRanges.of_prefixes(complete))
    return RequestedRanges(log.intersection(access.keys), fill.intersection(access.keys))


def _encode(space: _core.KeySpace, access: Access, name: str, prefix: str) -> bytes:
    try:
        encoded = encode_prefix(space, prefix)
    except InvalidKeyError as error:
        raise ProtocolError(f'the field "{name}" of the request: {error}') from error
    if not access.may_cover(encoded):
        raise ForbiddenError(
            f"no key that begins with {shown(prefix)} begins with {access.shown}, and this token is for "
            "keys that do: follow other keys, or ask for another token"
        )
    return encoded
