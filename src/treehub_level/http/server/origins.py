"""Requests that a page of another site makes a browser send, and their refusal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers

from .refusals import RefusedError

#: In the set of allowed origins: allow every origin.
ANY_ORIGIN: Final = "*"
#: Values of ``Sec-Fetch-Site`` of requests that no page of another origin has caused: ``none`` is a
#: request of the user, as by the address bar.
_OWN_SITE: Final = ("same-origin", "none")


class OriginPolicy:
    """Decides by the headers that browsers add and pages cannot change.

    The CORS protocol alone does not suffice: a browser sends simple requests, such as those of
    ``<img>``, before it asks if the page may read the response. Browsers send ``Sec-Fetch-Site`` to
    this machine and over TLS; older ones, and those on plain HTTP in a network, send ``Origin``
    with all requests but simple ``GET`` ones. Programs send neither, and are admitted.

    Args:
        allowed: The origins whose pages may call the server; `ANY_ORIGIN` allows every one.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(allowed)

    def check(self, headers: Headers) -> None:
        """Check the headers of a request.

        Raises:
            RefusedError: A page of another origin that is not allowed has caused the request.
        """
        sites, origins = headers.getlist("sec-fetch-site"), headers.getlist("origin")
        if ANY_ORIGIN in self._allowed or (len(origins) == 1 and origins[0] in self._allowed):
            return
        if sites:
            is_own = len(sites) == 1 and sites[0] in _OWN_SITE
        else:
            # A proxy that terminates TLS changes the scheme, so the scheme does not count.
            is_own = not origins or (
                len(origins) == 1 and origins[0].lower().partition("://")[2] == headers.get("host", "").lower()
            )
        if not is_own:
            raise RefusedError(
                403,
                "LEVEL_ORIGIN",
                "a page of another origin has sent this request: allow its origin with --allow-origin",
            )
