"""The table of connections: limits on their number, and which idle one makes room for a new one."""

from __future__ import annotations

import enum
import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

#: Connections beyond the limits while all others are in use. They can ask for the server's health,
#: and receive 503 for everything else.
RESERVED: Final = 32


class ConnectionState(enum.Enum):
    """The state of a connection, in the order in which connections make room."""

    #: Idle, and no request of it was authorised yet. A TLS handshake counts as idle.
    UNKNOWN = enum.auto()
    #: Idle after an authorised request.
    KNOWN = enum.auto()
    #: A request is in progress. Such a connection never makes room.
    BUSY = enum.auto()
    #: No longer in the table.
    CLOSED = enum.auto()


_IDLE: Final = (ConnectionState.UNKNOWN, ConnectionState.KNOWN)


class _Address:
    """The connections of one address, by state, each state in the order of entering it."""

    def __init__(self) -> None:
        self.count = 0
        self.by_state: dict[ConnectionState, OrderedDict[TableEntry, None]] = {
            state: OrderedDict() for state in (*_IDLE, ConnectionState.BUSY)
        }


class TableEntry:
    """A connection in a `ConnectionTable`, from its acceptance to its end.

    Attributes:
        address: The address of the peer, as the table groups addresses.
        state: The state of the connection.
        close: Closes the connection at once.
        is_gone: Returns True if the peer has closed the connection.
    """

    def __init__(self, table: ConnectionTable, address: str, close: Callable[[], object]) -> None:
        self.address = address
        self.state = ConnectionState.UNKNOWN
        self.close = close
        self.is_gone: Callable[[], bool] = _is_open
        self._table = table
        self._is_known = False

    def begin_request(self) -> bool:
        """Mark the connection as in use. Return False if the limits are exceeded meanwhile."""
        self._table.move(self, ConnectionState.BUSY)
        return self._table.is_within_limits(self)

    def end_request(self, *, authorised: bool) -> None:
        """Mark the connection as idle.

        Args:
            authorised: True if the request had the rights that it needed.
        """
        self._is_known |= authorised
        self._table.move(self, ConnectionState.KNOWN if self._is_known else ConnectionState.UNKNOWN)

    def remove(self) -> None:
        """Remove the connection from the table."""
        self._table.move(self, ConnectionState.CLOSED)
        # The entry no longer refers to the connection, which can be freed.
        self.close, self.is_gone = _do_nothing, _is_closed


class ConnectionTable:
    """The connections of a server.

    A new connection beyond a limit takes the place of an idle one: the one that has been idle
    longest, at first among those without an authorised request. Beyond the limit of an address it
    is one of the same address. Beyond the limit of the server it is one of the address that has the
    most connections, so that one hostile peer does not displace the others.

    Args:
        limit: The most connections.
        per_address: The most connections of one address: an IPv4 address, or an IPv6 network of 64
            bits, which providers assign to one customer.
    """

    def __init__(self, limit: int, per_address: int) -> None:
        self._limit = limit
        self._per_address = per_address
        self._count = 0
        self._addresses: dict[str, _Address] = {}

    def __len__(self) -> int:
        """Return the number of connections."""
        return self._count

    def admit(self, host: str, close: Callable[[], object]) -> TableEntry | None:
        """Add a new connection, for which an idle one makes room if needed.

        Args:
            host: The IP address of the peer.
            close: Closes the connection at once.

        Returns:
            The entry; ``None`` if the connection must be refused: all others are in use, and the
            reserve is exhausted.
        """
        entry = TableEntry(self, address_group(host), close)
        present = self._addresses.get(entry.address)
        if present is not None and present.count >= self._per_address:
            self._evict(present)
            if present.count >= self._per_address + RESERVED:
                return None
        if self._count >= self._limit:
            self.make_room()
            if self._count >= self._limit + RESERVED:
                return None
        self._insert(entry)
        return entry

    def make_room(self) -> bool:
        """Close the idle connection that can be missed most. Return False if none is idle."""
        for state in _IDLE:
            candidates = [address for address in self._addresses.values() if address.by_state[state]]
            if candidates:
                self._evict(max(candidates, key=lambda address: address.count))
                return True
        return False

    def is_within_limits(self, entry: TableEntry) -> bool:
        """Return True if a connection is within the limits, perhaps after others made room."""
        if entry.state is ConnectionState.CLOSED:
            return False
        address = self._addresses[entry.address]
        while address.count > self._per_address and self._evict(address):
            pass
        while self._count > self._limit and self.make_room():
            pass
        return address.count <= self._per_address and self._count <= self._limit

    def move(self, entry: TableEntry, state: ConnectionState) -> None:
        """Move an entry to another state. A closed one stays closed."""
        if entry.state is ConnectionState.CLOSED:
            return
        address = self._addresses[entry.address]
        del address.by_state[entry.state][entry]
        entry.state = state
        if state is not ConnectionState.CLOSED:
            address.by_state[state][entry] = None
            return
        self._count -= 1
        address.count -= 1
        if not address.count:
            del self._addresses[entry.address]

    def _insert(self, entry: TableEntry) -> None:
        address = self._addresses.setdefault(entry.address, _Address())
        address.by_state[entry.state][entry] = None
        address.count += 1
        self._count += 1

    def _evict(self, address: _Address) -> bool:
        """Close the connection of an address that has been idle longest, if one is idle."""
        for state in _IDLE:
            if address.by_state[state]:
                entry = next(iter(address.by_state[state]))
                close = entry.close
                entry.remove()
                close()
                return True
        return False


def _do_nothing() -> None:
    """Do nothing."""


def _is_open() -> bool:
    """Return False, as the ``is_gone`` of a connection that has not had a request yet."""
    return False


def _is_closed() -> bool:
    """Return True, as the ``is_gone`` of a closed connection."""
    return True


def address_group(host: str) -> str:
    """Return the addresses among which the limit of an address is shared, as a text.

    Args:
        host: An IP address. A text that is none forms a group of its own.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((address, 64), strict=False))
        return str(address.ipv4_mapped)
    return host
