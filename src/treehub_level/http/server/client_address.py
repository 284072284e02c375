"""The address of a client, also behind reverse proxies that the operator has declared."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from starlette.types import Scope

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

#: The header to which each proxy appends the address that it was called from.
_FORWARDED_FOR: Final = b"x-forwarded-for"
#: An address as some proxies write it: with a port.
_WITH_PORT: Final = re.compile(r"([0-9.]+):[0-9]{1,5}|\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?")


class TrustedProxies:
    """Finds the client of a request that has come through trusted proxies.

    A client can send the header itself, so it counts only if the connection comes from a trusted
    proxy. It is read from its end, where the nearest proxy has appended: the first address that is
    no trusted proxy's is the client. Those before it may be forged.

    Args:
        networks: The addresses and networks of the proxies, such as ``10.0.0.0/8``.

    Raises:
        ValueError: One of them is no address or network.
    """

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = [*map(_network, networks)]

    def client(self, scope: Scope) -> str | None:
        """Return the address of the client; ``None`` if it is unknown, as on a Unix socket."""
        peer = scope.get("client")
        address = _address(peer[0]) if peer else None
        if address is None:
            return None
        for text in reversed(_forwarded(scope) if self._networks else []):
            if not self._trusts(address):
                break
            previous = _address(text.strip())
            if previous is None:  # no address, such as "unknown": nothing before it can be trusted
                break
            address = previous
        return str(address)

    def _trusts(self, address: IPAddress) -> bool:
        return any(address in network for network in self._networks)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(
            f"{text!r:.80} is neither an address nor a network: {error}; give one such as 10.0.0.0/8"
        ) from error


def _forwarded(scope: Scope) -> list[str]:
    """Return the addresses of the header, the nearest proxy's at the end."""
    values = [value for name, value in scope["headers"] if name == _FORWARDED_FOR]
    return b",".join(values).decode("latin-1").split(",") if values else []


def _address(text: str) -> IPAddress | None:
    """Return an address, with or without a port; ``None`` for another text.

    An IPv4 address that is mapped into IPv6, as on a socket for both, is the IPv4 address.
    """
    found = _WITH_PORT.fullmatch(text)
    try:
        address = ipaddress.ip_address((found[1] or found[2]) if found else text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:  # any text may follow the "%"
            return None
        return address.ipv4_mapped or address
    return address
