"""The contract of ``src/_core/_store_c.pyx``: LevelDB, linked directly.

The module is missing where LevelDB was missing at build time.

Any method may be called from any thread at any time, also while another thread closes the object:
calls under way finish first, and later calls raise NotOpenError. The GIL is released around every
call that can wait for the disk or for a compaction. Errors of LevelDB are raised as StorageError,
CorruptionError and LockedError.
"""

from collections.abc import Iterable, Sequence
from typing import final

from .backends.base import Batch, Row

@final
class DB:
    """An open database. Garbage collection closes it, too.

    Args:
        path: The directory of the database.
        create_if_missing: Create a missing database, instead of raising StorageError.
        error_if_exists: Raise StorageError if the database exists.
        paranoid_checks: Refuse to open a database with a damaged write-ahead log, instead of
            skipping the damaged records.
        write_buffer_size: Bytes collected in memory before they are written to a table.
        block_cache_size: Bytes of uncompressed blocks kept in memory.
        bloom_filter_bits: Bits per key of the filter for absent keys; 0 for no filter.
        block_size: Bytes of a block.
        max_open_files: The number of tables kept open.
        max_file_size: Bytes of a table.
        compression: "snappy" or None.
    """

    @property
    def path(self) -> str: ...
    @property
    def buffered(self) -> int:
        """An upper bound of the bytes of write buffers that all writes since opening have taken."""
    def __new__(
        cls,
        path: str,
        *,
        create_if_missing: bool = False,
        error_if_exists: bool = False,
        paranoid_checks: bool = False,
        write_buffer_size: int = 4194304,
        block_cache_size: int = 8388608,
        bloom_filter_bits: int = 0,
        block_size: int = 4096,
        max_open_files: int = 1000,
        max_file_size: int = 2097152,
        compression: str | None = "snappy",
    ) -> DB: ...
    def close(self) -> None:
        """Refuse new calls, wait for those under way, free all handles, and close. Idempotent."""
    def get(self, key: bytes) -> bytes | None: ...
    def get_many(self, keys: Iterable[bytes]) -> list[bytes | None]: ...
    def scan(self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True) -> Cursor:
        """Return a cursor from start (inclusive) to stop (exclusive).

        LevelDB reads values together with keys, so ``values=False`` saves no reads.
        """
    def snapshot(self) -> Snapshot: ...
    def write(self, entries: Batch, *, durable: bool = False) -> None:
        """Write all entries, in order, or none.

        Raises:
            TypeError: A key or a value is not bytes.
            InvalidKeyError: A key has 4 GiB or more.
            InvalidValueError: A value has 4 GiB or more.
        """
    def approximate_size(self, start: bytes, stop: bytes) -> int:
        """Return the approximate size of a range in tables on disk, in bytes."""
    def compact_range(self, start: bytes | None = None, stop: bytes | None = None) -> None: ...
    def property_value(self, name: str) -> str | None:
        """Return a property of LevelDB, such as "leveldb.stats"; None if the name is unknown."""

@final
class Snapshot:
    """An immutable view of the database at one point in time."""

    def get(self, key: bytes) -> bytes | None: ...
    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...
    def scan(
        self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True
    ) -> Cursor: ...
    def close(self) -> None:
        """Release the snapshot. Idempotent."""

@final
class Cursor:
    """A cursor over a range of one snapshot. StateError: two threads fetch from it at once."""

    def fetch(self, limit: int) -> list[Row]:
        """Return the next rows: at most `limit`, fewer if they are long, none at the end."""
    def fetch_within(self, limit: int, max_bytes: int) -> list[Row]:
        """Return the next rows as `fetch` does, and end with the row that reaches `max_bytes`."""
    def fetch_packed(self, limit: int) -> bytes:
        """Return the next rows as `fetch` does, packed: see ``packed.pyx``."""
    def fetch_keys(self, limit: int) -> list[bytes]:
        """Return the keys of the next rows, as `fetch` does."""
    def close(self) -> None:
        """Release the cursor. Idempotent.

        A later fetch raises NotOpenError, unless the cursor has reached its end.
        """

def repair(path: str, **options: object) -> None:
    """Repair a damaged database: it opens with the readable rows. The options are those of DB."""

def destroy(path: str) -> None:
    """Delete the files of a database."""
