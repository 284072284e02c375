"""The URL of a database on a server: ``http(s)://HOST[:PORT][/PREFIX]/v1/NAME``."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from ...redaction import redact_url

_PATH = re.compile(r"(/[0-9A-Za-z._~%-]+)*/v1/[a-z0-9][a-z0-9_-]{0,63}")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class DatabaseURL:
    """The URL of a database, validated.

    Attributes:
        url: The URL, without a trailing slash.
    """

    url: str

    @classmethod
    def parse(cls, url: str) -> DatabaseURL:
        """Validate a URL.

        Raises:
            TypeError: ``url`` is not a ``str``.
            ValueError: ``url`` does not name a database. The message repeats no password and no
                value of a parameter.
        """
        if not isinstance(url, str):
            raise TypeError(f"the URL of a database must be a str, not {url!r:.80}")
        parts = _split(url)
        if parts is None:
            raise ValueError(
                f"the URL of a database must be http(s)://HOST[:PORT]/v1/NAME, not {redact_url(url)!r:.200}"
            )
        if "@" in parts.netloc:
            raise ValueError(
                "the URL of a database must not contain a user name or a password: pass the token as token=..."
            )
        path = parts.path.rstrip("/")
        if not _PATH.fullmatch(path) or parts.query or parts.fragment:
            raise ValueError(
                f"the URL of a database must be {parts.scheme}://{parts.netloc}/v1/NAME, with a NAME of a-z, 0-9, "
                f"- and _, not {redact_url(url)!r:.200}"
            )
        return cls(f"{parts.scheme}://{parts.netloc}{path}")

    @property
    def is_secure(self) -> bool:
        """True if no third party can read the traffic: HTTPS, or a server on this machine."""
        return self.is_encrypted or self.is_loopback

    @property
    def is_encrypted(self) -> bool:
        """True if the scheme is ``https``."""
        return self.url.startswith("https:")

    @property
    def is_loopback(self) -> bool:
        """True if the server runs on this machine."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")

    def resolve_redirect(self, url: str, location: str) -> str | None:
        """Return the target of a redirect, or ``None`` if it is on another server.

        Args:
            url: The URL of the request that was redirected.
            location: The ``Location`` header of the response.
        """
        try:
            target = urljoin(url, location)
        except ValueError:  # an invalid IPv6 address, for example
            return None
        return target if origin(target) == origin(self.url) else None


def origin(url: str) -> tuple[str, str, int | None] | None:
    """Return the scheme, host and port of an HTTP URL, or ``None`` if ``url`` is not one."""
    parts = _split(url)
    if parts is None or "@" in parts.netloc:
        return None
    return parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        is_http = parts.scheme in _DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if is_http and url.isascii() and url.isprintable() and " " not in url else None
