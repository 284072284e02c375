# Change records: join and split without decoding the value. The counterpart of _core_py/records.py.

cdef void classify_key(const unsigned char *key, Py_ssize_t size, bint *ascii, bint *escaped) noexcept nogil:
    """Find out if a key is all ASCII, and if JSON escapes any of its characters.

    The loop has no early exit, so that the compiler can vectorise it.
    """
    cdef unsigned char high = 0, special = 0
    cdef Py_ssize_t index
    for index in range(size):
        high |= key[index]
        special |= (key[index] < 0x20) | (key[index] == c'"') | (key[index] == c'\\')
    ascii[0] = high < 0x80
    escaped[0] = special != 0


cdef bytes join_utf8_record(bytes key, bytes value):
    """The change record, or None if the key is not UTF-8."""
    cdef Py_ssize_t key_size = PyBytes_GET_SIZE(key), value_size = 0 if value is None else PyBytes_GET_SIZE(value) + 1
    cdef bint ascii = False, escaped = False
    cdef object decoded
    cdef bytes record
    cdef char *out
    classify_key(<const unsigned char *>PyBytes_AS_STRING(key), key_size, &ascii, &escaped)
    if escaped or not ascii:
        decoded = decode_utf8(key, 0)
        if decoded is None:
            return None
        if escaped:
            return b"[" + <bytes>dumps(decoded) + (b"]" if value is None else b"," + value + b"]")
    record = PyBytes_FromStringAndSize(NULL, key_size + value_size + 4)
    out = PyBytes_AS_STRING(record)
    out[0] = c'['
    out[1] = c'"'
    memcpy(out + 2, PyBytes_AS_STRING(key), key_size)
    out += 2 + key_size
    out[0] = c'"'
    if value_size:
        out[1] = c','
        memcpy(out + 2, PyBytes_AS_STRING(value), value_size - 1)
    out[1 + value_size] = c']'
    return record


def encode_json_key(key):
    cdef object decoded = decode_utf8(key, 0) if type(key) is bytes else None
    return _records_py.encode_json_key(key) if decoded is None else dumps(decoded)


def join_record(key, value):
    cdef bytes record = None
    if type(key) is bytes and (value is None or isinstance(value, bytes)):
        # The casts are unchecked: a value may be of a subclass of bytes.
        record = join_utf8_record(<bytes>key, <bytes>value)
    return _records_py.join_record(key, value) if record is None else record


cdef bint is_space(char byte) noexcept nogil:
    return byte == c' ' or byte == c'\t' or byte == c'\n' or byte == c'\r'


cdef tuple split_plain_record(bytes record):
    """Key and value of a record without escapes and white space; None for any other form."""
    cdef const char *start = PyBytes_AS_STRING(record)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(record), key_size
    cdef const char *end
    cdef bint ascii = False, escaped = False
    cdef bytes key
    if size < 4 or start[0] != c'[' or start[1] != c'"' or start[size - 1] != c']':
        return None
    end = <const char *>memchr(start + 2, c'"', size - 2)
    if end == NULL:
        return None
    key_size = end - start - 2
    classify_key(<const unsigned char *>start + 2, key_size, &ascii, &escaped)
    if escaped:
        return None
    key = PyBytes_FromStringAndSize(start + 2, key_size)
    if not ascii and decode_utf8(key, 0) is None:
        return None
    size -= key_size + 4  # the bytes between the key and the last bracket
    if size == 0:
        return untracked_pair(key, None)
    if size == 1 or end[1] != c',' or is_space(end[2]) or is_space(end[size]):
        return None
    return untracked_pair(key, PyBytes_FromStringAndSize(end + 2, size - 1))


def split_record(record):
    cdef tuple parts = split_plain_record(record) if type(record) is bytes else None
    return _records_py.split_record(record) if parts is None else parts


def split_rows(rows):
    cdef list numbered = []
    cdef tuple parts
    if type(rows) is not list:
        return _records_py.split_rows(rows)
    for row in <list>rows:
        parts = split_row(<bytes>row) if type(row) is bytes else None
        if parts is None:
            return _records_py.split_rows(rows)
        numbered.append(parts)
    return numbered


cdef tuple split_row(bytes row):
    """The CID and the record of a row; None if its form is another."""
    cdef const char *start = PyBytes_AS_STRING(row)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(row), at = 1
    cdef int64_t cid = 0
    if size < 5 or start[0] != c'[' or start[1] == c'0' or start[size - 1] != c']':
        return None
    while at < size and at <= MAX_DIGITS and c'0' <= start[at] <= c'9':
        cid = cid * 10 + (start[at] - c'0')
        at += 1
    if at == 1 or cid > CID_LIMIT or start[at] != c',' or at + 2 == size:
        return None
    return untracked_pair(cid, PyBytes_FromStringAndSize(start + at + 1, size - at - 2))
