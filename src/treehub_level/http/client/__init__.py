"""The HTTP client: `RemoteServer` for asyncio and blocking."""
