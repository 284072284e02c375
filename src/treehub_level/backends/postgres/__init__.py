"""The PostgreSQL backend: stores in a table of PostgreSQL, CockroachDB or YugabyteDB.

One table holds any number of stores. Any number of processes can open the same store, and the
database can shard and replicate the table. The price is one network round trip for each read, and
three for each write.

The backend uses only SQL that all three databases accept, and keeps no session state beyond a
transaction, so a connection pooler such as PgBouncer can stand in between.
"""

from .backend import PostgresBackend, remove_store, rename_store, stored_names

__all__ = ["PostgresBackend", "remove_store", "rename_store", "stored_names"]
