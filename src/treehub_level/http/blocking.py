"""The blocking `RemoteServer`, for `treehub_level.blocking`."""

from .client.blocking import RemoteServer

__all__ = ["RemoteServer"]
