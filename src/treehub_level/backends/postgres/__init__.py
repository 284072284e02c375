"""Stores in a table of PostgreSQL, or of what speaks its protocol and its SQL: CockroachDB, YugabyteDB.

One table holds any number of stores, so this is the road to a database that shards and replicates. What it costs is
a journey over the network for each read, and three for each write.

Only SQL that all three take is used, and nothing that outlives a transaction, so that a pooler may stand between.
"""

from .backend import PostgresBackend, stored_names

__all__ = ["PostgresBackend", "stored_names"]
