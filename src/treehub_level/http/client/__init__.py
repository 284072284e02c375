"""The client's side of HTTP: `RemoteServer`, over asyncio and without."""
