# Packed rows: the form in which the core and the native engine pass many rows at once. Both include
# this file.
#
# Each row is the size of its key and the size of its value, in size_t, then the key, then the
# value. The value size NO_VALUE stands for a deletion. Packed rows never leave the process. The
# counterpart of _core_py/packed.py.

cdef size_t NO_VALUE = <size_t>-1
cdef size_t ROW_HEAD = 2 * sizeof(size_t)


cdef struct PackedRow:
    const char *key
    size_t key_size
    const char *value  # NULL: the key is to be deleted
    size_t value_size


cdef extern from "Python.h":
    void PyObject_GC_UnTrack(object)


cdef tuple untracked_pair(object first, object second):
    """A pair of objects that refer to no others, and so are in no cycle.

    The garbage collector would find that out too, but after it has traversed a page of such pairs
    several times. With `KeySpace.parse_log_rows`, "pull" takes 1 / 1.17 of the instructions.
    """
    cdef tuple pair = (first, second)
    PyObject_GC_UnTrack(pair)
    return pair


cdef char *put_row_head(char *out, size_t key_size, size_t value_size) noexcept nogil:
    """Write the sizes of a row, and return the place for its key."""
    cdef size_t[2] sizes = [key_size, value_size]
    memcpy(out, sizes, ROW_HEAD)
    return out + ROW_HEAD


cdef char *put_bytes(char *out, const char *source, size_t size) noexcept nogil:
    """Copy, and return the end of the copy."""
    memcpy(out, source, size)
    return out + size


cdef bint next_row(const char **at, const char *end, PackedRow *row) noexcept nogil:
    """Read the row at a position, and advance past it. False: no complete row lies before `end`."""
    cdef size_t[2] sizes
    cdef size_t left = end - at[0]
    if left < ROW_HEAD:
        return False
    memcpy(sizes, at[0], ROW_HEAD)
    left -= ROW_HEAD
    row.key_size, row.value_size = sizes[0], 0 if sizes[1] == NO_VALUE else sizes[1]
    if row.key_size > left or row.value_size > left - row.key_size:
        return False
    row.key = at[0] + ROW_HEAD
    row.value = row.key + row.key_size
    at[0] = row.value + row.value_size
    if sizes[1] == NO_VALUE:
        row.value = NULL
    return True
