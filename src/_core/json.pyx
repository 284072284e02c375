# Values and their JSON. The twin of _core_py/json.py.

cdef int DEEPEST = MAX_DEPTH
cdef Py_ssize_t WORTH_COPYING = _json_py._WORTH_COPYING
cdef object JSONDecodeError = orjson.JSONDecodeError
cdef object JSONEncodeError = orjson.JSONEncodeError

check_value = _json_py.check_value


cdef bint plain(PyObject *value, int depth) noexcept:
    """Whether all types in here are plain and all floats finite, so that orjson finds whatever else may be wrong.

    No Python code runs in here, so borrowed references are safe.
    """
    cdef PyTypeObject *kind = Py_TYPE(<object>value)
    cdef Py_ssize_t index = 0
    cdef PyObject *key = NULL
    cdef PyObject *item = NULL
    if kind is <PyTypeObject *>str or kind is <PyTypeObject *>int or kind is <PyTypeObject *>bool or value is <PyObject *>None:
        return True
    if kind is <PyTypeObject *>float:
        return isfinite(PyFloat_AS_DOUBLE(<object>value))
    if depth == 0:
        return False
    if kind is <PyTypeObject *>dict:
        while PyDict_Next(<object>value, &index, &key, &item):
            if Py_TYPE(<object>key) is not <PyTypeObject *>str or not plain(item, depth - 1):
                return False
        return True
    if kind is <PyTypeObject *>list:
        for index in range(PyList_GET_SIZE(<object>value)):
            if not plain(PyList_GET_ITEM(<object>value, index), depth - 1):
                return False
        return True
    if kind is <PyTypeObject *>tuple:
        for index in range(PyTuple_GET_SIZE(<object>value)):
            if not plain(PyTuple_GET_ITEM(<object>value, index), depth - 1):
                return False
        return True
    return False


cdef object json_of(object value):
    """A value as JSON, or None if the twin must judge it."""
    cdef object encoded
    if type(value) is JSONBytes:
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    if not plain(<PyObject *>value, DEEPEST):
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


# What follows looks whether text is JSON exactly as orjson would write what it says: then it need not be decoded to be
# known as good. A function answers with the place behind what it was asked for, or with NULL where the twin must judge:
# for what is no JSON, and for JSON that is written in another way, or of which it is hard to say. Nothing at end or
# behind it is read.

ctypedef const unsigned char *Place

cdef enum:
    MOST_KEYS = 32  # of an object: each is compared with all before it
    MOST_DIGITS = 32  # of a number, its signs included: orjson writes at most 24
    PLAIN_INT_DIGITS = 18  # fewer than those of 2**63
    PLAIN_FLOAT_DIGITS = 15  # no two decimals of so many digits are one float: each is the shortest form of its own

cdef struct Key:
    Place start
    Py_ssize_t size


cdef bint is_canonical(bytes json) except -1:
    """Whether this is one value, as orjson would write it, and one that can be stored."""
    cdef Place start = <Place>PyBytes_AS_STRING(json)
    cdef Place end = start + PyBytes_GET_SIZE(json)
    return after_value(start, end, DEEPEST) == end


cdef Place after_value(Place at, Place end, int depth) except? NULL:
    """Behind a value with at most depth containers inside each other."""
    if at == end:
        return NULL
    if at[0] == c'"':
        return after_string(at + 1, end)
    if at[0] == c'{':
        return after_object(at + 1, end, depth - 1) if depth else NULL
    if at[0] == c'[':
        return after_array(at + 1, end, depth - 1) if depth else NULL
    if at[0] == c't':
        return after_word(at, end, b"true", 4)
    if at[0] == c'f':
        return after_word(at, end, b"false", 5)
    if at[0] == c'n':
        return after_word(at, end, b"null", 4)
    return after_number(at, end)


cdef Place after_word(Place at, Place end, const char *word, Py_ssize_t size) noexcept nogil:
    return at + size if end - at >= size and memcmp(at, word, size) == 0 else NULL


cdef Place after_array(Place at, Place end, int depth) except? NULL:
    """Behind the array whose bracket stands before at."""
    if at < end and at[0] == c']':
        return at + 1
    while True:
        at = after_value(at, end, depth)
        if at == NULL or at == end:
            return NULL
        if at[0] == c']':
            return at + 1
        if at[0] != c',':
            return NULL
        at += 1


cdef Place after_object(Place at, Place end, int depth) except? NULL:
    """Behind the object whose brace stands before at."""
    cdef Key keys[MOST_KEYS]
    cdef int count = 0
    if at < end and at[0] == c'}':
        return at + 1
    while count < MOST_KEYS and at < end and at[0] == c'"':
        keys[count].start = at
        at = after_string(at + 1, end)
        if at == NULL or at == end or at[0] != c':':
            return NULL
        keys[count].size = at - keys[count].start
        if is_among(&keys[count], keys, count):
            return NULL
        count += 1
        at = after_value(at + 1, end, depth)
        if at == NULL or at == end:
            return NULL
        if at[0] == c'}':
            return at + 1
        if at[0] != c',':
            return NULL
        at += 1
    return NULL


cdef bint is_among(const Key *key, const Key *keys, int count) noexcept nogil:
    cdef int index
    for index in range(count):
        if keys[index].size == key.size and memcmp(keys[index].start, key.start, key.size) == 0:
            return True
    return False


cdef Place after_string(Place at, Place end) noexcept nogil:
    """Behind the string whose first quotation mark stands before at."""
    cdef int size
    while at < end:
        if at[0] == c'"':
            return at + 1
        if at[0] == c'\\':
            size = escape_size(at, end)
        elif at[0] < 0x80:
            size = at[0] >= 0x20
        else:
            size = utf8_size(at, end)
        if size == 0:
            return NULL
        at += size
    return NULL


cdef int escape_size(Place at, Place end) noexcept nogil:
    """How long the escape at a backslash is; 0 if it is none of those that orjson writes."""
    if end - at < 2:
        return 0
    if memchr(b'"\\bfnrt', at[1], 7) != NULL:
        return 2
    if end - at < 6 or memcmp(at + 1, b"u00", 3) != 0 or memchr(b"0123456789abcdef", at[5], 16) == NULL:
        return 0
    if at[4] == c'0':
        return 6 if memchr(b"89acd", at[5], 5) == NULL else 0  # those have short forms
    return 6 if at[4] == c'1' else 0


cdef int utf8_size(Place at, Place end) noexcept nogil:
    """How many bytes the character at a byte from 0x80 on has; 0 if they are not UTF-8."""
    cdef Py_ssize_t left = end - at
    if 0xC2 <= at[0] <= 0xDF:
        return 2 if left >= 2 and is_tail(at[1]) else 0
    if 0xE0 <= at[0] <= 0xEF:
        if left < 3 or not is_tail(at[1]) or not is_tail(at[2]):
            return 0
        # Not what fits in two bytes, and not a surrogate.
        return 0 if (at[0] == 0xE0 and at[1] < 0xA0) or (at[0] == 0xED and at[1] >= 0xA0) else 3
    if 0xF0 <= at[0] <= 0xF4:
        if left < 4 or not is_tail(at[1]) or not is_tail(at[2]) or not is_tail(at[3]):
            return 0
        # Not what fits in three bytes, and not beyond U+10FFFF.
        return 0 if (at[0] == 0xF0 and at[1] < 0x90) or (at[0] == 0xF4 and at[1] >= 0x90) else 4
    return 0


cdef bint is_tail(unsigned char byte) noexcept nogil:
    return byte & 0xC0 == 0x80


cdef Place after_number(Place at, Place end) except? NULL:
    """Behind a number in the form that orjson writes."""
    cdef Place stop = after_plain_number(at, end)
    cdef bytes number
    if stop != NULL:
        return stop
    stop = at
    while stop < end and memchr(b"0123456789.-+eE", stop[0], 15) != NULL:
        stop += 1
    if stop == at or stop - at > MOST_DIGITS:
        return NULL
    number = PyBytes_FromStringAndSize(<const char *>at, stop - at)
    try:
        return stop if dumps(loads(number)) == number else NULL
    except JSONDecodeError:
        return NULL


cdef Place after_plain_number(Place at, Place end) noexcept nogil:
    """Behind a number that all write alike: 7, -1.5, 0.001; NULL if it is long, very small, or has an exponent."""
    cdef bint negative = at[0] == c'-'
    cdef Place start = at + negative, point
    cdef Py_ssize_t whole, fraction
    point = after_digits(start, end)
    whole = point - start
    if whole == 0 or (whole > 1 and start[0] == c'0') or is_exponent(point, end):
        return NULL
    if point == end or point[0] != c'.':
        if whole > PLAIN_INT_DIGITS or (negative and start[0] == c'0'):
            return NULL
        return point
    at = after_digits(point + 1, end)
    fraction = at - point - 1
    if fraction == 0 or whole + fraction > PLAIN_FLOAT_DIGITS or is_exponent(at, end):
        return NULL
    if fraction > 1 and (at - 1)[0] == c'0':
        return NULL
    if fraction > 4 and start[0] == c'0' and memcmp(point + 1, b"0000", 4) == 0:
        return NULL  # some write an exponent below 0.0001
    return at


cdef Place after_digits(Place at, Place end) noexcept nogil:
    while at < end and c'0' <= at[0] <= c'9':
        at += 1
    return at


cdef bint is_exponent(Place at, Place end) noexcept nogil:
    return at < end and (at[0] == c'e' or at[0] == c'E')


def json_value(text):
    if type(text) is bytes and is_canonical(<bytes>text):
        return JSONBytes(text)
    return _json_py.json_value(text)


def json_line(line):
    cdef tuple parts = canonical_line(<bytes>line) if type(line) is bytes else None
    return _json_py.json_line(line) if parts is None else parts


cdef tuple canonical_line(bytes line):
    """Key and value of a line whose parts are in the form that orjson writes; None for any other."""
    cdef Place key = <Place>PyBytes_AS_STRING(line) + 7, value, stop, line_end
    cdef Place end = <Place>PyBytes_AS_STRING(line) + PyBytes_GET_SIZE(line)
    cdef Py_ssize_t size
    if not line.startswith(b'{"key":"'):
        return None
    stop = after_string(key + 1, end)
    if stop == NULL:
        return None
    size = stop - key
    value = after_word(stop, end, b',"value":', 9)
    if value == NULL:
        return None
    stop = after_value(value, end, DEEPEST)
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
