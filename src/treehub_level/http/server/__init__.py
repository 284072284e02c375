"""The HTTP server: an ASGI application over a directory, or a database table, of stores."""
