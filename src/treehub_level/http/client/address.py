"""The address of a database on a server: ``http(s)://HOST[:PORT]/v1/NAME``. A path may stand before ``/v1``."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

_PATH = re.compile(r"(/[0-9A-Za-z._~%-]+)*/v1/[a-z0-9][a-z0-9_-]{0,63}")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class DatabaseURL:
    """Where a database is.

    Attributes:
        url: The address, without a slash at its end.
    """

    url: str

    @classmethod
    def parse(cls, url: str) -> DatabaseURL:
        """Read an address.

        Raises:
            TypeError: Not a ``str``.
            ValueError: It is none. The message does not repeat what could be a password.
        """
        if not isinstance(url, str):
            raise TypeError(f"the address of a server is a str, not {url!r:.80}")
        parts = _split(url)
        if parts is None:
            raise ValueError(f"the address of a server's database is http(s)://HOST[:PORT]/v1/NAME, not {url!r:.200}")
        if "@" in parts.netloc:
            raise ValueError("an address of a server holds no user and no password: pass the token as token=...")
        path = parts.path.rstrip("/")
        if not _PATH.fullmatch(path) or parts.query or parts.fragment:
            raise ValueError(
                f"the address of a server's database is {parts.scheme}://{parts.netloc}/v1/NAME, with a NAME of "
                f"a-z, 0-9, - and _, not {url!r:.200}"
            )
        return cls(f"{parts.scheme}://{parts.netloc}{path}")

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can read what is sent there: it is encrypted, or stays on this machine."""
        return self.is_encrypted or self.is_loopback

    @property
    def is_encrypted(self) -> bool:
        """Whether it is reached by HTTPS."""
        return self.url.startswith("https:")

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")

    def redirected(self, url: str, location: str) -> str | None:
        """Where a redirect leads, if that is the same server; ``None`` if it is another one."""
        target = urljoin(url, location)
        return target if origin(target) == origin(self.url) else None


def origin(url: str) -> tuple[str, str, int | None] | None:
    """Scheme, host and port of a URL, which make a server; ``None`` if it is no URL of HTTP."""
    parts = _split(url)
    if parts is None or "@" in parts.netloc:
        return None
    return parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme]


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if usable and url.isascii() and url.isprintable() and " " not in url else None
