"""Replication: the messages, the client's and the server's half of an exchange, and the session.

No module here does I/O, except through a transaction that the caller passes in.
``docs/protocol.md`` describes the protocol.
"""
