"""Replication: messages, the two halves of the exchange, the session. No I/O but through a transaction given."""
