# Snapshots and cursors: handles that must be freed before the database that they read from.

#: Bytes of rows after which a fetch ends early, so that a thousand long values do not fill memory.
cdef size_t CHUNK_BYTES = 1024 * 1024


@cython.no_gc
cdef class _Handle:
    """A handle that is freed when it is closed, garbage-collected, or when its database is closed.

    It is never freed during a call that uses it; the end of that call frees it.
    """

    cdef DB owner
    cdef Py_ssize_t calls
    cdef bint closed

    cdef void attach(self, DB owner):
        self.owner = owner
        owner.handles.add(<size_t><void *>self)

    def close(self):
        self.closed = True
        if self.calls == 0:
            self.release()

    cdef int enter(self) except -1:
        if self.closed:
            raise NotOpenError(f"this cursor or snapshot of the LevelDB store at {self.owner.path!r} is closed")
        self.owner.enter()
        self.calls += 1
        return 0

    cdef int leave(self) except -1:
        self.calls -= 1
        if self.closed and self.calls == 0:
            self.release()
        return self.owner.leave()

    cdef void release(self):
        """Free the LevelDB objects, once. No call may be under way."""
        if self.owner is not None:
            self.owner.handles.discard(<size_t><void *>self)
            if self.owner.forks == forks:
                self.destroy()

    cdef void destroy(self):
        pass


@cython.final
@cython.no_gc
cdef class Snapshot(_Handle):
    cdef const leveldb_snapshot_t *snapshot
    cdef leveldb_readoptions_t *read_options

    def __cinit__(self, DB owner not None):
        owner.enter()
        self.attach(owner)
        self.read_options = leveldb_readoptions_create()
        leveldb_readoptions_set_verify_checksums(self.read_options, True)
        with nogil:
            self.snapshot = leveldb_create_snapshot(owner.db)
        leveldb_readoptions_set_snapshot(self.read_options, self.snapshot)
        owner.leave()

    def __dealloc__(self):
        self.release()

    cdef void destroy(self):
        if self.read_options != NULL:
            leveldb_readoptions_destroy(self.read_options)
            self.read_options = NULL
        if self.snapshot != NULL:
            leveldb_release_snapshot(self.owner.db, self.snapshot)
            self.snapshot = NULL

    def get(self, key):
        return self.owner.read(self, key)

    def get_many(self, keys):
        return self.owner.read_many(self, tuple(keys))

    def scan(self, start, stop, *, bint reverse=False, bint values=True):
        return Cursor.__new__(Cursor, self.owner, self, checked_bound(start), checked_bound(stop), reverse)


cdef struct Chunk:
    char *bytes  # packed rows
    size_t used
    size_t capacity


cdef bint append(Chunk *chunk, const char *key, size_t key_size, const char *value, size_t value_size) noexcept nogil:
    """Copy a row to the end of a chunk. False: out of memory."""
    cdef size_t needed = chunk.used + ROW_HEAD + key_size + value_size
    cdef char *out
    cdef size_t capacity = max(chunk.capacity, <size_t>4096)
    cdef char *grown
    if needed > chunk.capacity:
        while capacity < needed:
            capacity *= 2
        grown = <char *>realloc(chunk.bytes, capacity)
        if grown == NULL:
            return False
        chunk.bytes, chunk.capacity = grown, capacity
    out = put_row_head(chunk.bytes + chunk.used, key_size, value_size)
    put_bytes(put_bytes(out, key, key_size), value, value_size)
    chunk.used = needed
    return True


cdef bint sorts_before(const char *one, size_t one_size, const char *other, size_t other_size) noexcept nogil:
    """True if one key sorts before another."""
    cdef int order = memcmp(one, other, min(one_size, other_size))
    return order < 0 or (order == 0 and one_size < other_size)


@cython.final
@cython.no_gc
cdef class Cursor(_Handle):
    cdef leveldb_iterator_t *iterator
    cdef bytes start
    cdef bytes stop
    cdef const char *start_bytes  # NULL: from the first key
    cdef const char *stop_bytes  # NULL: to the last key
    cdef size_t start_size
    cdef size_t stop_size
    cdef bint reverse
    cdef bint is_positioned
    cdef bint is_exhausted
    cdef Chunk chunk

    def __cinit__(self, DB owner not None, Snapshot snapshot, bytes start, bytes stop, bint reverse):
        cdef const leveldb_readoptions_t *options
        self.start, self.stop, self.reverse = start, stop, reverse
        if start is not None:
            self.start_bytes, self.start_size = start, len(start)
        if stop is not None:
            self.stop_bytes, self.stop_size = stop, len(stop)
        options = owner.enter_read(snapshot)
        self.attach(owner)
        with nogil:
            self.iterator = leveldb_create_iterator(owner.db, options)
        owner.leave_read(snapshot)

    def __dealloc__(self):
        self.release()
        free(self.chunk.bytes)

    cdef void destroy(self):
        if self.iterator != NULL:
            leveldb_iter_destroy(self.iterator)
            self.iterator = NULL

    def fetch(self, Py_ssize_t limit):
        return self.fetch_within(limit, CHUNK_BYTES)

    def fetch_within(self, Py_ssize_t limit, size_t max_bytes):
        cdef Chunk chunk = Chunk(NULL, 0, 0)
        cdef Py_ssize_t index = 0, count = self.fill(&chunk, limit, True, max_bytes)
        cdef const char *at = chunk.bytes
        cdef PackedRow row
        cdef list rows
        try:
            rows = PyList_New(count)
            while next_row(&at, chunk.bytes + chunk.used, &row):
                pair = untracked_pair(
                    PyBytes_FromStringAndSize(row.key, row.key_size), PyBytes_FromStringAndSize(row.value, row.value_size)
                )
                Py_INCREF(pair)
                PyList_SET_ITEM(rows, index, pair)
                index += 1
            return rows
        finally:
            self.recycle(&chunk)

    def fetch_packed(self, Py_ssize_t limit):
        cdef Chunk chunk = Chunk(NULL, 0, 0)
        self.fill(&chunk, limit, True, CHUNK_BYTES)
        try:
            return PyBytes_FromStringAndSize(chunk.bytes, chunk.used)
        finally:
            self.recycle(&chunk)

    def fetch_keys(self, Py_ssize_t limit):
        cdef Chunk chunk = Chunk(NULL, 0, 0)
        cdef Py_ssize_t index = 0, count = self.fill(&chunk, limit, False, CHUNK_BYTES)
        cdef const char *at = chunk.bytes
        cdef PackedRow row
        cdef list keys
        try:
            keys = PyList_New(count)
            while next_row(&at, chunk.bytes + chunk.used, &row):
                key = PyBytes_FromStringAndSize(row.key, row.key_size)
                Py_INCREF(key)
                PyList_SET_ITEM(keys, index, key)
                index += 1
            return keys
        finally:
            self.recycle(&chunk)

    cdef Py_ssize_t fill(self, Chunk *chunk, Py_ssize_t limit, bint values, size_t max_bytes) except -1:
        """Copy the next rows into a chunk, which the caller then owns, and return their count.

        The last row reaches `max_bytes`, or CHUNK_BYTES if that is less.
        """
        cdef Py_ssize_t count
        cdef char *error = NULL
        cdef bint failed
        if self.is_exhausted:
            return 0
        if self.calls:
            raise StateError(f"this cursor of the LevelDB store at {self.owner.path!r} is in use by another thread")
        self.enter()
        chunk[0], self.chunk = self.chunk, Chunk(NULL, 0, 0)
        with nogil:
            count = self.walk(chunk, limit, values, min(max_bytes, CHUNK_BYTES))
            # After every fetch: an iterator skips a block that it cannot read, and reports that
            # only here.
            leveldb_iter_get_error(self.iterator, &error)
        failed = count < 0 or error != NULL
        self.is_exhausted = self.is_exhausted and not failed
        self.closed = self.closed or self.is_exhausted or failed
        self.leave()
        if not failed:
            return count
        self.recycle(chunk)
        raise MemoryError if error == NULL else status_exception(self.owner.path, error)

    cdef void recycle(self, Chunk *chunk) noexcept:
        """Keep the memory of a chunk for the next fetch, unless another thread has returned one."""
        if self.chunk.bytes == NULL:
            self.chunk = chunk[0]
        else:
            free(chunk.bytes)

    cdef Py_ssize_t walk(self, Chunk *chunk, Py_ssize_t limit, bint values, size_t max_bytes) noexcept nogil:
        """Copy rows without the GIL, and return their count. -1: out of memory."""
        cdef Py_ssize_t count = 0
        cdef size_t key_size, value_size = 0
        cdef const char *key
        cdef const char *value = ""
        chunk.used = 0
        while count < limit and chunk.used < max_bytes:
            self.advance()
            if not leveldb_iter_valid(self.iterator):
                self.is_exhausted = True
                break
            key = leveldb_iter_key(self.iterator, &key_size)
            if self.is_past_end(key, key_size):
                self.is_exhausted = True
                break
            if values:
                value = leveldb_iter_value(self.iterator, &value_size)
            if not append(chunk, key, key_size, value, value_size):
                return -1
            count += 1
        return count

    cdef void advance(self) noexcept nogil:
        """Move to the next row; the first call moves to the first row."""
        if self.is_positioned:
            if self.reverse:
                leveldb_iter_prev(self.iterator)
            else:
                leveldb_iter_next(self.iterator)
            return
        self.is_positioned = True
        if not self.reverse:
            if self.start_bytes == NULL:
                leveldb_iter_seek_to_first(self.iterator)
            else:
                leveldb_iter_seek(self.iterator, self.start_bytes, self.start_size)
            return
        if self.stop_bytes != NULL:
            leveldb_iter_seek(self.iterator, self.stop_bytes, self.stop_size)
            if leveldb_iter_valid(self.iterator):
                leveldb_iter_prev(self.iterator)
                return
        leveldb_iter_seek_to_last(self.iterator)

    cdef bint is_past_end(self, const char *key, size_t size) noexcept nogil:
        """True if a key lies past the end of the range, in the direction of the cursor."""
        if self.reverse:
            return self.start_bytes != NULL and sorts_before(key, size, self.start_bytes, self.start_size)
        return self.stop_bytes != NULL and not sorts_before(key, size, self.stop_bytes, self.stop_size)
