"""The server's side of HTTP: an ASGI application over a directory of stores."""
