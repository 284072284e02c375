# Values and their JSON. The counterpart of _core_py/json.py, as json_rewriter.pyx is.

cdef int DEPTH_LIMIT = MAX_DEPTH
cdef Py_ssize_t WORTH_COPYING = _json_py._WORTH_COPYING
cdef object JSONDecodeError = orjson.JSONDecodeError
cdef object JSONEncodeError = orjson.JSONEncodeError

check_value = _json_py.check_value


cdef bint is_plain_value(PyObject *value, int depth) noexcept:
    """True if a value holds only plain JSON types and finite floats: orjson finds other faults.

    This function runs no Python code, so borrowed references are safe.
    """
    cdef PyTypeObject *kind = Py_TYPE(<object>value)
    cdef Py_ssize_t index = 0
    cdef PyObject *key = NULL
    cdef PyObject *item = NULL
    if kind is <PyTypeObject *>str or kind is <PyTypeObject *>int or kind is <PyTypeObject *>bool:
        return True
    if value is <PyObject *>None:
        return True
    if kind is <PyTypeObject *>float:
        return isfinite(PyFloat_AS_DOUBLE(<object>value))
    if depth == 0:
        return False
    if kind is <PyTypeObject *>dict:
        while PyDict_Next(<object>value, &index, &key, &item):
            if Py_TYPE(<object>key) is not <PyTypeObject *>str or not is_plain_value(item, depth - 1):
                return False
        return True
    if kind is <PyTypeObject *>list:
        for index in range(PyList_GET_SIZE(<object>value)):
            if not is_plain_value(PyList_GET_ITEM(<object>value, index), depth - 1):
                return False
        return True
    if kind is <PyTypeObject *>tuple:
        for index in range(PyTuple_GET_SIZE(<object>value)):
            if not is_plain_value(PyTuple_GET_ITEM(<object>value, index), depth - 1):
                return False
        return True
    return False


cdef object json_of(object value):
    """A value as JSON; None if the counterpart must decide."""
    cdef object encoded
    if type(value) is JSONBytes:
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    if not is_plain_value(<PyObject *>value, DEPTH_LIMIT):
        return None
    try:
        encoded = dumps(value)
    except JSONEncodeError:
        return None
    if PyBytes_GET_SIZE(encoded) < WORTH_COPYING:
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))
    return encoded


def encode_value(value, limit=None):
    cdef object encoded = json_of(value)
    if encoded is None or (limit is not None and PyBytes_GET_SIZE(encoded) > limit):
        return _json_py.encode_value(value, limit)
    return encoded


# A scanner for canonical JSON: JSON exactly as orjson writes it. Canonical text is valid without
# being decoded. Each skip function returns the position behind the element at `at`, or NULL where
# the counterpart must decide: the text is invalid, not canonical, or costly to classify. No byte at
# `end` or behind it is read.

ctypedef const unsigned char *Position

cdef enum:
    MAX_OBJECT_KEYS = 32  # each key of an object is compared with all before it
    MAX_NUMBER_SIZE = 32  # in characters, signs included; orjson writes at most 24
    PLAIN_INT_DIGITS = 18  # 2**63 has 19
    PLAIN_FLOAT_DIGITS = 15  # decimals of up to 15 digits are distinct floats

cdef struct Key:
    Position start
    Py_ssize_t size


cdef bint is_canonical(bytes json) except -1:
    """True if the text is one canonical JSON value that can be stored."""
    cdef Position start = <Position>PyBytes_AS_STRING(json)
    cdef Position end = start + PyBytes_GET_SIZE(json)
    return skip_value(start, end, DEPTH_LIMIT) == end


cdef Position skip_value(Position at, Position end, int depth) except? NULL:
    """Skip a value with at most `depth` containers inside each other."""
    if at == end:
        return NULL
    if at[0] == c'"':
        return skip_string(at + 1, end)
    if at[0] == c'{':
        return skip_object(at + 1, end, depth - 1) if depth else NULL
    if at[0] == c'[':
        return skip_array(at + 1, end, depth - 1) if depth else NULL
    if at[0] == c't':
        return skip_word(at, end, b"true", 4)
    if at[0] == c'f':
        return skip_word(at, end, b"false", 5)
    if at[0] == c'n':
        return skip_word(at, end, b"null", 4)
    return skip_number(at, end)


cdef Position skip_word(Position at, Position end, const char *word, Py_ssize_t size) noexcept nogil:
    return at + size if end - at >= size and memcmp(at, word, size) == 0 else NULL


cdef Position skip_array(Position at, Position end, int depth) except? NULL:
    """Skip an array whose opening bracket is before `at`."""
    if at < end and at[0] == c']':
        return at + 1
    while True:
        at = skip_value(at, end, depth)
        if at == NULL or at == end:
            return NULL
        if at[0] == c']':
            return at + 1
        if at[0] != c',':
            return NULL
        at += 1


cdef Position skip_object(Position at, Position end, int depth) except? NULL:
    """Skip an object whose opening brace is before `at`."""
    cdef Key keys[MAX_OBJECT_KEYS]
    cdef int count = 0
    if at < end and at[0] == c'}':
        return at + 1
    while count < MAX_OBJECT_KEYS and at < end and at[0] == c'"':
        keys[count].start = at
        at = skip_string(at + 1, end)
        if at == NULL or at == end or at[0] != c':':
            return NULL
        keys[count].size = at - keys[count].start
        if contains_key(&keys[count], keys, count):
            return NULL
        count += 1
        at = skip_value(at + 1, end, depth)
        if at == NULL or at == end:
            return NULL
        if at[0] == c'}':
            return at + 1
        if at[0] != c',':
            return NULL
        at += 1
    return NULL


cdef bint contains_key(const Key *key, const Key *keys, int count) noexcept nogil:
    cdef int index
    for index in range(count):
        if keys[index].size == key.size and memcmp(keys[index].start, key.start, key.size) == 0:
            return True
    return False


cdef extern from *:
    """
    #if defined(__GNUC__) && defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    #define FIRST_MARKED_BYTE(marks) (__builtin_ctzll(marks) >> 3)
    #else
    #define FIRST_MARKED_BYTE(marks) 0
    #endif
    """
    # The index in memory of the first byte of a word with a mark in its highest bit; 0 on other
    # platforms, where the caller looks for it byte by byte.
    int FIRST_MARKED_BYTE(uint64_t marks) nogil


cdef Position skip_plain_characters(Position at, Position end) noexcept nogil:
    """Skip ASCII characters that JSON writes as they are, eight at a time.

    A byte of the word is not plain if it is below 0x20, `"`, a backslash, or not ASCII: then one of
    the differences, or the word, has its highest bit. A borrow can only mark a byte above such one.
    """
    cdef uint64_t word, marks
    while end - at >= 8:
        memcpy(&word, at, 8)
        marks = (
            (word - 0x2020202020202020ULL)
            | ((word ^ 0x2222222222222222ULL) - 0x0101010101010101ULL)
            | ((word ^ 0x5C5C5C5C5C5C5C5CULL) - 0x0101010101010101ULL)
            | word
        ) & 0x8080808080808080ULL
        if marks:
            at += FIRST_MARKED_BYTE(marks)
            break
        at += 8
    while at < end and 0x20 <= at[0] < 0x80 and at[0] != c'"' and at[0] != c'\\':
        at += 1
    return at


cdef Position skip_string(Position at, Position end) noexcept nogil:
    """Skip a string whose opening quotation mark is before `at`."""
    cdef int size
    while True:
        at = skip_plain_characters(at, end)
        if at == end:
            return NULL
        if at[0] == c'"':
            return at + 1
        if at[0] == c'\\':
            size = escape_size(at, end)
        else:
            size = 0 if at[0] < 0x20 else utf8_size(at, end)
        if size == 0:
            return NULL
        at += size


cdef int escape_size(Position at, Position end) noexcept nogil:
    """The size of the escape at a backslash, in bytes; 0 if orjson does not write it."""
    if end - at < 2:
        return 0
    if memchr(b'"\\bfnrt', at[1], 7) != NULL:
        return 2
    if end - at < 6 or memcmp(at + 1, b"u00", 3) != 0 or memchr(b"0123456789abcdef", at[5], 16) == NULL:
        return 0
    if at[4] == c'0':
        return 6 if memchr(b"89acd", at[5], 5) == NULL else 0  # those have short forms
    return 6 if at[4] == c'1' else 0


cdef int utf8_size(Position at, Position end) noexcept nogil:
    """The size of the character at a byte from 0x80 on, in bytes; 0 if it is not UTF-8."""
    cdef Py_ssize_t left = end - at
    if 0xC2 <= at[0] <= 0xDF:
        return 2 if left >= 2 and is_continuation(at[1]) else 0
    if 0xE0 <= at[0] <= 0xEF:
        if left < 3 or not is_continuation(at[1]) or not is_continuation(at[2]):
            return 0
        # Neither an overlong form nor a surrogate.
        return 0 if (at[0] == 0xE0 and at[1] < 0xA0) or (at[0] == 0xED and at[1] >= 0xA0) else 3
    if 0xF0 <= at[0] <= 0xF4:
        if left < 4 or not is_continuation(at[1]) or not is_continuation(at[2]) or not is_continuation(at[3]):
            return 0
        # Neither an overlong form nor beyond U+10FFFF.
        return 0 if (at[0] == 0xF0 and at[1] < 0x90) or (at[0] == 0xF4 and at[1] >= 0x90) else 4
    return 0


cdef bint is_continuation(unsigned char byte) noexcept nogil:
    return byte & 0xC0 == 0x80


cdef Position skip_number(Position at, Position end) except? NULL:
    """Skip a number in the form that orjson writes."""
    cdef Position stop = skip_plain_number(at, end)
    cdef bytes number
    if stop != NULL:
        return stop
    stop = at
    while stop < end and memchr(b"0123456789.-+eE", stop[0], 15) != NULL:
        stop += 1
    if stop == at or stop - at > MAX_NUMBER_SIZE:
        return NULL
    number = PyBytes_FromStringAndSize(<const char *>at, stop - at)
    let_other_threads_run()
    try:
        return stop if dumps(loads(number)) == number else NULL
    except JSONDecodeError:
        return NULL


cdef Position skip_plain_number(Position at, Position end) noexcept nogil:
    """Skip a number that has one canonical form, such as 7, -1.5 or 0.001.

    NULL: the number is long, very small, or has an exponent.
    """
    cdef bint negative = at[0] == c'-'
    cdef Position start = at + negative, point
    cdef Py_ssize_t whole, fraction
    point = skip_digits(start, end)
    whole = point - start
    if whole == 0 or (whole > 1 and start[0] == c'0') or is_exponent(point, end):
        return NULL
    if point == end or point[0] != c'.':
        if whole > PLAIN_INT_DIGITS or (negative and start[0] == c'0'):
            return NULL
        return point
    at = skip_digits(point + 1, end)
    fraction = at - point - 1
    if fraction == 0 or whole + fraction > PLAIN_FLOAT_DIGITS or is_exponent(at, end):
        return NULL
    if fraction > 1 and (at - 1)[0] == c'0':
        return NULL
    if fraction > 4 and start[0] == c'0' and memcmp(point + 1, b"0000", 4) == 0:
        return NULL  # below 0.0001 orjson may write an exponent
    return at


cdef Position skip_digits(Position at, Position end) noexcept nogil:
    while at < end and c'0' <= at[0] <= c'9':
        at += 1
    return at


cdef bint is_exponent(Position at, Position end) noexcept nogil:
    return at < end and (at[0] == c'e' or at[0] == c'E')


def json_value(text):
    cdef bytes rewritten
    if type(text) is not bytes:
        return _json_py.json_value(text)
    if is_canonical(<bytes>text):
        return JSONBytes(text)
    rewritten = canonical_form(<bytes>text)
    return _json_py.json_value(text) if rewritten is None else JSONBytes(rewritten)


def json_line(line):
    cdef tuple parts = canonical_line(<bytes>line) if type(line) is bytes else None
    return _json_py.json_line(line) if parts is None else parts


cdef tuple canonical_line(bytes line):
    """Key and value of a line of canonical JSON; None for any other line."""
    cdef Position key = <Position>PyBytes_AS_STRING(line) + 7, value, stop, line_end
    cdef Position end = <Position>PyBytes_AS_STRING(line) + PyBytes_GET_SIZE(line)
    cdef Py_ssize_t size
    if not line.startswith(b'{"key":"'):
        return None
    stop = skip_string(key + 1, end)
    if stop == NULL:
        return None
    size = stop - key
    value = skip_word(stop, end, b',"value":', 9)
    if value == NULL:
        return None
    stop = skip_value(value, end, DEPTH_LIMIT)
    if stop == NULL or stop == end or stop[0] != c'}':
        return None
    line_end = stop + 1
    while line_end < end and is_space(line_end[0]):
        line_end += 1
    if line_end != end:
        return None
    return (
        loads(PyBytes_FromStringAndSize(<const char *>key, size)),
        JSONBytes(PyBytes_FromStringAndSize(<const char *>value, stop - value)),
    )
