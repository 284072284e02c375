"""The response header by which a client recognises a treehub-level server.

A captive portal, a gateway or a proxy may answer in the server's place, with any status and any
body. Only a response with this header counts as the server's.
"""

from __future__ import annotations

from typing import Final

#: The name of the header, in lower case. Every response of the server has it.
SERVER_HEADER: Final = "treehub-level"
#: Its value: the version of the protocol. Clients accept every value.
SERVER_HEADER_VALUE: Final = "1"
