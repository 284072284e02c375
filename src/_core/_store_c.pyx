# cython: language_level=3, auto_pickle=False, autotestdict=False
# cython: boundscheck=False, wraparound=False
"""LevelDB through its C API.

The stub ``treehub_level/_store_c.pyi`` documents every public name. The comments here cover
ownership: the code that frees each LevelDB object, and the time at which it does so.

The GIL is released around every call that can wait for the disk or for a compaction, so other
threads run meanwhile. Therefore `DB` counts the calls under way. `close()` refuses new calls, waits
for those under way, frees the snapshots and iterators that are left, and frees the database last.
The counts need no lock: they change only while the GIL is held.
"""

cimport cython
from leveldb cimport *
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.ref cimport Py_INCREF
from libc.stdint cimport UINT32_MAX, uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy

import os
import threading

from treehub_level.backends.leveldb.errors import status_error
from treehub_level.errors import InvalidKeyError, InvalidValueError, NotOpenError, StateError

#: The number of forks between this process and the one that imported this module. LevelDB's threads
#: do not survive a fork, and its locks keep their state: a child process can neither use nor free a
#: database that its parent opened.
cdef Py_ssize_t forks = 0

#: Seconds after which a close looks again for calls under way: it may be woken for another close,
#: from a signal handler.
cdef double IDLE_POLL = 0.05


def _forked():
    global forks
    forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


# ------------------------------------------------------------------------------------------ options


@cython.final
cdef class _Options:
    """LevelDB's options, and the filter and the cache that the options point to."""

    cdef leveldb_options_t *options
    cdef leveldb_filterpolicy_t *bloom_filter
    cdef leveldb_cache_t *cache

    def __cinit__(
        self,
        *,
        bint create_if_missing=False,
        bint error_if_exists=False,
        bint paranoid_checks=False,
        size_t write_buffer_size=4 * 1024 * 1024,
        size_t block_cache_size=8 * 1024 * 1024,
        int bloom_filter_bits=0,
        size_t block_size=4096,
        int max_open_files=1000,
        size_t max_file_size=2 * 1024 * 1024,
        compression="snappy",
    ):
        if compression is not None and compression != "snappy":
            raise ValueError(f'compression must be "snappy" or None, not {compression!r:.80}')
        self.options = leveldb_options_create()
        leveldb_options_set_create_if_missing(self.options, create_if_missing)
        leveldb_options_set_error_if_exists(self.options, error_if_exists)
        leveldb_options_set_paranoid_checks(self.options, paranoid_checks)
        leveldb_options_set_write_buffer_size(self.options, write_buffer_size)
        leveldb_options_set_block_size(self.options, block_size)
        leveldb_options_set_max_open_files(self.options, max_open_files)
        leveldb_options_set_max_file_size(self.options, max_file_size)
        leveldb_options_set_compression(
            self.options, leveldb_no_compression if compression is None else leveldb_snappy_compression
        )
        self.cache = leveldb_cache_create_lru(block_cache_size)
        leveldb_options_set_cache(self.options, self.cache)
        if bloom_filter_bits > 0:
            self.bloom_filter = leveldb_filterpolicy_create_bloom(bloom_filter_bits)
            leveldb_options_set_filter_policy(self.options, self.bloom_filter)

    def __dealloc__(self):
        if self.options != NULL:
            leveldb_options_destroy(self.options)
        if self.cache != NULL:
            leveldb_cache_destroy(self.cache)
        if self.bloom_filter != NULL:
            leveldb_filterpolicy_destroy(self.bloom_filter)


include "packed.pyx"


cdef object status_exception(str path, char *status):
    """The exception for a LevelDB status. The status is freed."""
    cdef bytes text = <bytes>status
    leveldb_free(status)
    return status_error(path, os.fsdecode(text))


cdef bytes checked_key(object key):
    if not isinstance(key, bytes):
        raise TypeError(f"a key must be bytes, not {type(key).__name__}")
    return <bytes>key


cdef bytes checked_bound(object key):
    return None if key is None else checked_key(key)


# ----------------------------------------------------------------------------------------- database


@cython.final
@cython.no_gc  # neither databases nor their cursors and snapshots are in reference cycles
cdef class DB:
    cdef readonly str path
    cdef readonly uint64_t buffered
    cdef _Options options
    cdef leveldb_t *db
    cdef leveldb_readoptions_t *read_options
    cdef leveldb_writeoptions_t *write_options
    cdef leveldb_writeoptions_t *durable_write_options
    cdef Py_ssize_t calls
    cdef Py_ssize_t forks
    cdef bint closing
    cdef object idle  # a lock: released by the last call once the database is closing
    cdef object close_lock
    cdef set handles  # addresses of the handles to free before the database; no references

    def __cinit__(self, str path, **options):
        cdef bytes encoded = os.fsencode(path)
        cdef const char *name = encoded
        cdef char *error = NULL
        self.path = path
        self.forks = forks
        self.idle = threading.Lock()
        self.idle.acquire()
        self.close_lock = threading.RLock()
        self.handles = set()
        self.options = _Options(**options)
        self.read_options = leveldb_readoptions_create()
        leveldb_readoptions_set_verify_checksums(self.read_options, True)
        self.write_options = leveldb_writeoptions_create()
        self.durable_write_options = leveldb_writeoptions_create()
        leveldb_writeoptions_set_sync(self.durable_write_options, True)
        with nogil:
            self.db = leveldb_open(self.options.options, name, &error)
        if error != NULL:
            raise status_exception(path, error)

    def __dealloc__(self):
        # Every call and every handle keeps a reference to the database, so none is left here.
        if self.db != NULL and self.forks == forks:
            with nogil:
                leveldb_close(self.db)
        elif self.db != NULL:
            # Leaked: the parent's database points to the options, and cannot be closed here.
            Py_INCREF(self.options)
        if self.read_options != NULL:
            leveldb_readoptions_destroy(self.read_options)
        if self.write_options != NULL:
            leveldb_writeoptions_destroy(self.write_options)
        if self.durable_write_options != NULL:
            leveldb_writeoptions_destroy(self.durable_write_options)

    def close(self):
        cdef leveldb_t *db
        if self.forks != forks:
            return
        with self.close_lock:
            self.closing = True
            while self.calls:
                self.idle.acquire(timeout=IDLE_POLL)
            for address in list(self.handles):
                (<_Handle><void *><size_t>address).close()
            db = self.db
            self.db = NULL
            with nogil:
                if db != NULL:
                    leveldb_close(db)

    # Between enter and leave the database is not freed, even while the GIL is released. The code
    # between them runs no Python code except to raise: a finalizer that closed the database would
    # wait for the call that it interrupts.

    cdef int enter(self) except -1:
        if self.closing:
            raise NotOpenError(f"the LevelDB store at {self.path!r} is closed")
        if self.forks != forks:
            raise NotOpenError(
                f"the LevelDB store at {self.path!r} was opened before this process was forked: open it again"
            )
        self.calls += 1
        return 0

    cdef int leave(self) except -1:
        self.calls -= 1
        if self.closing and self.calls == 0 and self.idle.locked():
            self.idle.release()
        return 0

    cdef const leveldb_readoptions_t *enter_read(self, Snapshot snapshot) except NULL:
        """Enter, and return the read options: of a snapshot, or of the current state for None."""
        if snapshot is None:
            self.enter()
            return self.read_options
        snapshot.enter()
        return snapshot.read_options

    cdef int leave_read(self, Snapshot snapshot) except -1:
        return self.leave() if snapshot is None else snapshot.leave()

    def get(self, key):
        return self.read(None, key)

    def get_many(self, keys):
        cdef Snapshot snapshot = self.snapshot()
        try:
            return snapshot.get_many(keys)
        finally:
            snapshot.close()

    def scan(self, start, stop, *, bint reverse=False, bint values=True):
        return Cursor.__new__(Cursor, self, None, checked_bound(start), checked_bound(stop), reverse)

    def snapshot(self):
        return Snapshot.__new__(Snapshot, self)

    def write(self, entries, *, bint durable=False):
        cdef leveldb_writebatch_t *batch = leveldb_writebatch_create()
        cdef leveldb_writeoptions_t *options = self.durable_write_options if durable else self.write_options
        cdef char *error = NULL
        try:
            if type(entries) is not list and hasattr(entries, "rows"):
                self.buffered += add_packed(batch, entries.rows)
                entries = entries.more
            for entry in entries:
                self.buffered += add(batch, entry)
            self.enter()
            with nogil:
                leveldb_write(self.db, options, batch, &error)
            self.leave()
        finally:
            leveldb_writebatch_destroy(batch)
        if error != NULL:
            raise status_exception(self.path, error)

    def approximate_size(self, start, stop):
        cdef bytes first = checked_key(start), last = checked_key(stop)
        cdef const char *first_bytes = first
        cdef const char *last_bytes = last
        cdef size_t first_size = len(first), last_size = len(last)
        cdef uint64_t size = 0
        self.enter()
        with nogil:
            leveldb_approximate_sizes(self.db, 1, &first_bytes, &first_size, &last_bytes, &last_size, &size)
        self.leave()
        return size

    def compact_range(self, start=None, stop=None):
        cdef bytes first = checked_bound(start), last = checked_bound(stop)
        cdef const char *first_bytes = NULL
        cdef const char *last_bytes = NULL
        cdef size_t first_size = 0, last_size = 0
        if first is not None:
            first_bytes, first_size = first, len(first)
        if last is not None:
            last_bytes, last_size = last, len(last)
        self.enter()
        with nogil:
            leveldb_compact_range(self.db, first_bytes, first_size, last_bytes, last_size)
        self.leave()

    def property_value(self, str name):
        cdef bytes encoded = name.encode()
        cdef const char *wanted = encoded
        cdef char *value
        self.enter()
        with nogil:
            value = leveldb_property_value(self.db, wanted)
        self.leave()
        if value == NULL:
            return None
        try:
            return (<bytes>value).decode()
        finally:
            leveldb_free(value)

    cdef object read(self, Snapshot snapshot, object key):
        """The value of a key, or None."""
        cdef bytes wanted = checked_key(key)
        cdef const char *wanted_bytes = wanted
        cdef size_t wanted_size = len(wanted), size = 0
        cdef char *error = NULL
        cdef char *value
        cdef const leveldb_readoptions_t *options = self.enter_read(snapshot)
        with nogil:
            value = leveldb_get(self.db, options, wanted_bytes, wanted_size, &size, &error)
        self.leave_read(snapshot)
        if error != NULL:
            raise status_exception(self.path, error)
        return take_value(&value, size)

    cdef list read_many(self, Snapshot snapshot, tuple keys):
        """The value of each key, or None."""
        cdef Py_ssize_t index, count = len(keys)
        cdef const leveldb_readoptions_t *options
        cdef char *error = NULL
        cdef Wanted *wanted = <Wanted *>PyMem_Calloc(count, sizeof(Wanted))
        if wanted == NULL:
            raise MemoryError
        try:
            for index in range(count):
                wanted[index].key, wanted[index].key_size = checked_key(keys[index]), len(<bytes>keys[index])
            options = self.enter_read(snapshot)
            with nogil:
                for index in range(count):
                    wanted[index].value = leveldb_get(
                        self.db, options, wanted[index].key, wanted[index].key_size, &wanted[index].value_size, &error
                    )
                    if error != NULL:
                        break
            self.leave_read(snapshot)
            if error != NULL:
                raise status_exception(self.path, error)
            return [take_value(&wanted[index].value, wanted[index].value_size) for index in range(count)]
        finally:
            for index in range(count):
                leveldb_free(wanted[index].value)
            PyMem_Free(wanted)


cdef struct Wanted:
    const char *key
    size_t key_size
    char *value  # NULL: the key is absent
    size_t value_size


cdef object take_value(char **value, size_t size):
    """A copy of a value that leveldb_get returned, which is freed; None for NULL."""
    cdef bytes copy
    if value[0] == NULL:
        return None
    copy = PyBytes_FromStringAndSize(value[0], size)
    leveldb_free(value[0])
    value[0] = NULL
    return copy


cdef size_t write_buffer_usage(size_t key_size, size_t value_size) noexcept nogil:
    """An upper bound of the bytes that an entry takes in LevelDB's write buffer.

    These are its own bytes, two lengths and a sequence number (18 bytes), its node in the skip list
    (at most 111 bytes), and a third of the sum, which blocks of 4 KiB may leave unused.
    """
    return 200 + 2 * (key_size + value_size)


cdef Py_ssize_t add(leveldb_writebatch_t *batch, object entry) except -1:
    """Add an entry to a batch, and return its `write_buffer_usage`."""
    key, value = entry
    if not isinstance(key, bytes):
        raise TypeError(f"a key must be bytes, not {type(key).__name__}")
    # LevelDB would cut the length of a longer key to 32 bits.
    if <size_t>PyBytes_GET_SIZE(key) > UINT32_MAX:
        raise InvalidKeyError(f"a key must be shorter than 4 GiB, not {PyBytes_GET_SIZE(key)} bytes")
    if value is None:
        leveldb_writebatch_delete(batch, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        return write_buffer_usage(PyBytes_GET_SIZE(key), 0)
    if not isinstance(value, bytes):
        raise TypeError(f"a value must be bytes or None, not {type(value).__name__}")
    if <size_t>PyBytes_GET_SIZE(value) > UINT32_MAX:
        raise InvalidValueError(f"a value must be shorter than 4 GiB, not {PyBytes_GET_SIZE(value)} bytes")
    leveldb_writebatch_put(
        batch, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)
    )
    return write_buffer_usage(PyBytes_GET_SIZE(key), PyBytes_GET_SIZE(value))


cdef uint64_t add_packed(leveldb_writebatch_t *batch, bytes rows) except? 0:
    """Add packed rows to a batch, and return the `write_buffer_usage` of all."""
    cdef const char *at = PyBytes_AS_STRING(rows)
    cdef const char *end = at + PyBytes_GET_SIZE(rows)
    cdef PackedRow row
    cdef uint64_t size = 0
    with nogil:
        while next_row(&at, end, &row) and row.key_size <= UINT32_MAX and row.value_size <= UINT32_MAX:
            size += write_buffer_usage(row.key_size, row.value_size)
            if row.value == NULL:
                leveldb_writebatch_delete(batch, row.key, row.key_size)
            else:
                leveldb_writebatch_put(batch, row.key, row.key_size, row.value, row.value_size)
    if at != end:
        raise InvalidValueError("a key or a value must be shorter than 4 GiB, and end where its row does")
    return size


# -------------------------------------------------------------------------------- whole directories


def repair(str path, **options):
    cdef _Options parsed = _Options(**options)
    cdef bytes encoded = os.fsencode(path)
    cdef const char *name = encoded
    cdef char *error = NULL
    with nogil:
        leveldb_repair_db(parsed.options, name, &error)
    if error != NULL:
        raise status_exception(path, error)


def destroy(str path):
    cdef _Options defaults = _Options()
    cdef bytes encoded = os.fsencode(path)
    cdef const char *name = encoded
    cdef char *error = NULL
    with nogil:
        leveldb_destroy_db(defaults.options, name, &error)
    if error != NULL:
        raise status_exception(path, error)


include "handles.pyx"
