# Key spaces, order-preserving CID keys, range bounds. The counterpart of _core_py/keys.py.

MAX_CID = _keys_py.MAX_CID
MAX_KEY_BYTES = _keys_py.MAX_KEY_BYTES
MAX_VALUE_BYTES = _keys_py.MAX_VALUE_BYTES
MAX_DEPTH = _keys_py.MAX_DEPTH

cdef enum:
    MAX_DIGITS = 16  # of MAX_CID
    LENGTH_BASE = 0x38

cdef int64_t CID_LIMIT = MAX_CID
cdef Py_ssize_t KEY_BYTES_LIMIT = MAX_KEY_BYTES


cdef bint read_cid(object cid, int64_t lowest, int64_t *number) except -1:
    """Read a CID into number. False: it is not an exact int from lowest to MAX_CID."""
    cdef int overflow = 0
    if type(cid) is not int:
        return False
    number[0] = PyLong_AsLongLongAndOverflow(cid, &overflow)
    return not overflow and lowest <= number[0] <= CID_LIMIT


cdef Py_ssize_t write_digits(char *out, int64_t number) noexcept nogil:
    """Write the decimal digits of a number, 0 or more; return their count."""
    cdef char reversed_digits[MAX_DIGITS]
    cdef Py_ssize_t count = 0, index
    while True:
        reversed_digits[count] = <char>(c'0' + number % 10)
        count += 1
        number //= 10
        if number == 0:
            break
    for index in range(count):
        out[index] = reversed_digits[count - 1 - index]
    return count


cdef Py_ssize_t write_cid_key(char *out, int64_t cid) noexcept nogil:
    """Write the key of a CID, at most MAX_DIGITS + 1 bytes; return its length."""
    cdef Py_ssize_t count
    if cid < 10:
        out[0] = <char>(c'0' + cid)
        return 1
    count = write_digits(out + 1, cid)
    out[0] = <char>(LENGTH_BASE + count)
    return count + 1


cdef Py_ssize_t cid_key_size(int64_t cid) noexcept nogil:
    """The number of bytes that write_cid_key writes."""
    cdef char key[MAX_DIGITS + 1]
    return write_cid_key(key, cid)


cdef bytes prefixed_cid_key(bytes prefix, int64_t cid):
    cdef char key[MAX_DIGITS + 1]
    cdef Py_ssize_t size = write_cid_key(key, cid), head = PyBytes_GET_SIZE(prefix)
    cdef bytes result = PyBytes_FromStringAndSize(NULL, head + size)
    memcpy(PyBytes_AS_STRING(result), PyBytes_AS_STRING(prefix), head)
    memcpy(PyBytes_AS_STRING(result) + head, key, size)
    return result


cdef bytes digits(int64_t number):
    cdef char out[MAX_DIGITS]
    return PyBytes_FromStringAndSize(out, write_digits(out, number))


cdef int64_t read_cid_key(const unsigned char *key, Py_ssize_t size) noexcept nogil:
    """The CID that a key stands for; 0 for any key that write_cid_key does not write."""
    cdef int64_t cid = 0
    cdef Py_ssize_t index
    if size == 0 or size > MAX_DIGITS + 1:
        return 0
    if size > 1:
        if size == 2 or key[0] != LENGTH_BASE + size - 1:
            return 0
        key += 1
        size -= 1
    if key[0] == c'0':
        return 0
    for index in range(size):
        if not c'0' <= key[index] <= c'9':
            return 0
        cid = cid * 10 + (key[index] - c'0')
    return cid if cid <= CID_LIMIT else 0


def cid_key(cid):
    cdef int64_t number = 0
    return prefixed_cid_key(b"", number) if read_cid(cid, 1, &number) else _keys_py.cid_key(cid)


def parse_cid_key(key):
    cdef int64_t cid = 0
    if type(key) is bytes:
        cid = read_cid_key(<const unsigned char *>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
    return cid if cid else _keys_py.parse_cid_key(key)


cdef bytes encode_utf8(object key):
    """A key as UTF-8; None if it is not a str, or holds a lone surrogate."""
    if not isinstance(key, str):
        return None
    try:
        return PyUnicode_AsUTF8String(key)
    except UnicodeEncodeError:
        return None


def encode_key(key):
    cdef bytes encoded = encode_utf8(key)
    return _keys_py.encode_key(key) if encoded is None else encoded


cdef object decode_utf8(bytes key, Py_ssize_t strip):
    """A stored key without its first `strip` bytes, as a str; None if it is not UTF-8."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(key)
    if strip > size:
        strip = size
    try:
        return PyUnicode_DecodeUTF8(PyBytes_AS_STRING(key) + strip, size - strip, NULL)
    except UnicodeDecodeError:
        return None


def decode_key(key):
    cdef object decoded = decode_utf8(key, 0) if type(key) is bytes else None
    return _keys_py.decode_key(key) if decoded is None else decoded


# Called once a scan, so C would gain nothing.
successor = _keys_py.successor
range_bounds = _keys_py.range_bounds


@cython.final
cdef class KeySpace:
    cdef readonly bytes prefix, user_start, log_start, log_stop, dirty_start, dirty_stop

    def __cinit__(self, prefix):
        space = _keys_py.KeySpace(prefix)
        self.prefix = space.prefix
        self.user_start = space.user_start
        self.log_start = space.log_start
        self.log_stop = space.log_stop
        self.dirty_start = space.dirty_start
        self.dirty_stop = space.dirty_stop

    def log_key(self, cid):
        cdef int64_t number = 0
        if read_cid(cid, 1, &number):
            return prefixed_cid_key(self.prefix, number)
        return _keys_py.KeySpace.log_key(self, cid)

    def parse_log_key(self, key):
        cdef int64_t cid = self.log_cid(key)
        return cid if cid else _keys_py.KeySpace.parse_log_key(self, key)

    cdef int64_t log_cid(self, object key) noexcept:
        """The CID of a log key; 0 for any other key."""
        cdef Py_ssize_t head = PyBytes_GET_SIZE(self.prefix)
        cdef const char *start
        if type(key) is not bytes or PyBytes_GET_SIZE(key) < head:
            return 0
        start = PyBytes_AS_STRING(key)
        if memcmp(start, PyBytes_AS_STRING(self.prefix), head) != 0:
            return 0
        return read_cid_key(<const unsigned char *>start + head, PyBytes_GET_SIZE(key) - head)

    def parse_log_rows(self, rows):
        cdef list numbered = []
        cdef int64_t cid
        for row in rows:
            cid = 0
            if type(row) is tuple and PyTuple_GET_SIZE(row) == 2 and type((<tuple>row)[1]) is bytes:
                cid = self.log_cid((<tuple>row)[0])
            if cid:
                numbered.append(untracked_pair(cid, (<tuple>row)[1]))
            else:
                numbered += _keys_py.KeySpace.parse_log_rows(self, [row])
        return numbered

    def dirty_key(self, key):
        return self.prefix + <bytes>key if type(key) is bytes else _keys_py.KeySpace.dirty_key(self, key)

    def own_key(self, name):
        return _keys_py.KeySpace.own_key(self, name)

    def check_key(self, key):
        cdef bytes encoded = encode_utf8(key)
        return encoded if encoded is not None and self.allows(encoded) else _keys_py.KeySpace.check_key(self, key)

    cdef bint allows(self, bytes key) noexcept:
        """True if users may write the key in SERVER and CLIENT mode."""
        return self.allows_text(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))

    cdef bint allows_text(self, const char *key, Py_ssize_t size) noexcept:
        """True if users may write the key, given by its bytes, in SERVER and CLIENT mode."""
        cdef Py_ssize_t start = PyBytes_GET_SIZE(self.user_start)
        cdef int order = memcmp(key, PyBytes_AS_STRING(self.user_start), min(size, start))
        return size <= KEY_BYTES_LIMIT and (order > 0 or (order == 0 and size >= start))
