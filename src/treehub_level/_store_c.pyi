"""The contract of ``src/_core/_store_c.pyx``: LevelDB, linked directly. It is absent where LevelDB was at build time.

Any method may be called from any thread at any time, also while another closes what it is called on: a call that is
under way is finished first, and later ones raise NotOpenError. The GIL is released around every call that can wait for
the disk or for a compaction. Errors of LevelDB's are raised as StorageError, CorruptionError and LockedError.
"""

from collections.abc import Iterable, Sequence
from typing import final

from .backends.base import Entry, Row

@final
class DB:
    """An open database. It is closed when it is forgotten, too.

    Args:
        path: Its directory.
        create_if_missing: Make a database where there is none, rather than raise StorageError.
        error_if_exists: Raise StorageError if there is one.
        paranoid_checks: Refuse to open a log with damage inside, instead of leaving out what is damaged.
        write_buffer_size: Bytes gathered in memory before they become a table.
        block_cache_size: Bytes of uncompressed blocks kept in memory.
        bloom_filter_bits: Bits per key of the filter for absent keys; 0 for no filter.
        block_size: Bytes of a block.
        max_open_files: Tables kept open.
        max_file_size: Bytes of a table, after which the next is begun.
        compression: "snappy" or None.
    """

    @property
    def path(self) -> str: ...
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
        """Refuse new calls, wait for those under way, free what is open, close. Closing twice is harmless."""
    def get(self, key: bytes) -> bytes | None: ...
    def get_many(self, keys: Iterable[bytes]) -> list[bytes | None]: ...
    def scan(self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True) -> Cursor:
        """From start, inclusive, to stop, exclusive. LevelDB reads values with the keys, so `values` saves nothing."""
    def snapshot(self) -> Snapshot: ...
    def write(self, entries: Iterable[Entry], *, durable: bool = False) -> None:
        """All entries, in order, or none. TypeError: not bytes. InvalidKeyError, InvalidValueError: 4 GiB or longer."""
    def approximate_size(self, start: bytes, stop: bytes) -> int:
        """About how many bytes a range takes in tables on disk."""
    def compact_range(self, start: bytes | None = None, stop: bytes | None = None) -> None: ...
    def property_value(self, name: str) -> str | None:
        """What LevelDB calls a property, such as "leveldb.stats"; None if it knows none of that name."""

@final
class Snapshot:
    """A moment, for reading."""

    def get(self, key: bytes) -> bytes | None: ...
    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...
    def scan(
        self, start: bytes | None, stop: bytes | None, *, reverse: bool = False, values: bool = True
    ) -> Cursor: ...
    def close(self) -> None:
        """Closing twice is harmless."""

@final
class Cursor:
    """A walk over a range at one moment. StateError: two threads fetch from it at once."""

    def fetch(self, limit: int) -> list[Row]:
        """The next rows, at most `limit`, fewer if they are long; none at the end."""
    def fetch_keys(self, limit: int) -> list[bytes]:
        """The same, keys only."""
    def close(self) -> None:
        """Closing twice is harmless. Fetching afterwards raises NotOpenError, unless the end was reached before."""

def repair(path: str, **options: object) -> None:
    """Make a damaged database one that opens, with what can be read. The options are those of DB."""

def destroy(path: str) -> None:
    """Delete the files of a database."""
