# A rewriter of JSON in another form: white space, other escapes, other forms of numbers, objects of
# many keys. It builds no Python objects for containers: a list of 2 bytes of text takes 80 bytes.

cdef enum:
    DETAILED_SIZE = 64 << 10  # in bytes: the counterpart explains the faults of shorter texts
    STEPS_WITHOUT_RELEASE = 2048  # values; one that orjson has to rewrite takes 0.2 to 0.5 us

cdef enum Fault:
    MALFORMED
    TOO_DEEP
    REPEATED_KEY

cdef struct Rewriter:
    char *data
    Py_ssize_t size
    Py_ssize_t capacity
    Fault fault
    Position fault_start
    Position fault_end

cdef unsigned int steps = 0


cdef void let_other_threads_run() noexcept:
    """Release the GIL at every 2048th call, so that one long text does not stop other threads."""
    global steps
    steps += 1
    if steps % STEPS_WITHOUT_RELEASE == 0:
        PyEval_RestoreThread(PyEval_SaveThread())


cdef bytes canonical_form(bytes text):
    """The canonical form of a JSON text; None if the counterpart must explain its fault.

    Raises:
        InvalidValueError: A long text is not JSON, or has a value that cannot be stored.
    """
    cdef Rewriter out
    cdef Position start = <Position>PyBytes_AS_STRING(text)
    cdef Position end = start + PyBytes_GET_SIZE(text)
    cdef Position stop
    memset(&out, 0, sizeof(Rewriter))
    try:
        stop = rewrite_value(&out, start, end, DEPTH_LIMIT)
        if stop != NULL and skip_spaces(stop, end) == end:
            return PyBytes_FromStringAndSize(out.data, out.size)
        if end - start < DETAILED_SIZE:
            return None
        raise fault_of(&out, start, end if stop == NULL else stop)
    finally:
        PyMem_RawFree(out.data)


cdef object fault_of(Rewriter *out, Position start, Position stop):
    cdef bytes key
    cdef Position at = stop if out.fault_start == NULL else out.fault_start
    if out.fault == REPEATED_KEY:
        key = PyBytes_FromStringAndSize(<const char *>out.fault_start, out.fault_end - out.fault_start)
        return _json_py.repeated_key(loads(key))
    if out.fault == TOO_DEEP:
        return _json_py.too_deep()
    return _json_py.malformed_at(at - start)


cdef Position fail(Rewriter *out, Fault fault, Position start, Position end) noexcept:
    """Remember the first fault."""
    if out.fault_start == NULL:
        out.fault = fault
        out.fault_start = start
        out.fault_end = end
    return NULL


cdef int append(Rewriter *out, const void *data, Py_ssize_t size) except -1:
    cdef Py_ssize_t capacity
    cdef void *grown
    if out.size + size > out.capacity:
        capacity = max(out.capacity + out.capacity // 2, out.size + size, 4096)
        grown = PyMem_RawRealloc(out.data, capacity)
        if grown == NULL:
            raise MemoryError
        out.data = <char *>grown
        out.capacity = capacity
    memcpy(out.data + out.size, data, size)
    out.size += size
    return 0


cdef Position skip_spaces(Position at, Position end) noexcept nogil:
    while at < end and is_space(at[0]):
        at += 1
    return at


cdef Position rewrite_value(Rewriter *out, Position at, Position end, int depth) except? NULL:
    """Append the canonical form of the value at `at`. Return the position behind the value."""
    cdef Position stop
    let_other_threads_run()
    at = skip_spaces(at, end)
    if at == end:
        return fail(out, MALFORMED, at, end)
    if at[0] == c'"':
        return rewrite_string(out, at, end)
    if at[0] == c'{' or at[0] == c'[':
        if depth == 0:
            return fail(out, TOO_DEEP, at, end)
        append(out, at, 1)
        if at[0] == c'{':
            return rewrite_object(out, at + 1, end, depth - 1)
        return rewrite_array(out, at + 1, end, depth - 1)
    if at[0] == c't' or at[0] == c'f' or at[0] == c'n':
        stop = skip_value(at, end, 0)
        if stop == NULL:
            return fail(out, MALFORMED, at, end)
        append(out, at, stop - at)
        return stop
    return rewrite_number(out, at, end)


cdef Position rewrite_array(Rewriter *out, Position at, Position end, int depth) except? NULL:
    at = skip_spaces(at, end)
    if at < end and at[0] == c']':
        append(out, at, 1)
        return at + 1
    while True:
        at = rewrite_value(out, at, end, depth)
        if at == NULL:
            return NULL
        at = skip_spaces(at, end)
        if at == end or (at[0] != c',' and at[0] != c']'):
            return fail(out, MALFORMED, at, end)
        append(out, at, 1)
        at += 1
        if (at - 1)[0] == c']':
            return at


cdef Position rewrite_object(Rewriter *out, Position at, Position end, int depth) except? NULL:
    cdef Py_ssize_t starts[MAX_OBJECT_KEYS]
    cdef Py_ssize_t sizes[MAX_OBJECT_KEYS]
    cdef Py_ssize_t start
    cdef int count = 0, index
    cdef Position name
    cdef set keys = None  # from the 33rd key on: all keys, in canonical form
    cdef bytes key
    at = skip_spaces(at, end)
    if at < end and at[0] == c'}':
        append(out, at, 1)
        return at + 1
    while True:
        name = skip_spaces(at, end)
        if name == end or name[0] != c'"':
            return fail(out, MALFORMED, name, end)
        start = out.size
        at = rewrite_string(out, name, end)
        if at == NULL:
            return NULL
        if keys is None and count < MAX_OBJECT_KEYS:
            for index in range(count):
                if sizes[index] == out.size - start and (
                    memcmp(out.data + starts[index], out.data + start, sizes[index]) == 0
                ):
                    return fail(out, REPEATED_KEY, name, at)
            starts[count] = start
            sizes[count] = out.size - start
            count += 1
        else:
            if keys is None:
                keys = {
                    PyBytes_FromStringAndSize(out.data + starts[index], sizes[index]) for index in range(count)
                }
            key = PyBytes_FromStringAndSize(out.data + start, out.size - start)
            if key in keys:
                return fail(out, REPEATED_KEY, name, at)
            keys.add(key)
        at = skip_spaces(at, end)
        if at == end or at[0] != c':':
            return fail(out, MALFORMED, at, end)
        append(out, at, 1)
        at = rewrite_value(out, at + 1, end, depth)
        if at == NULL:
            return NULL
        at = skip_spaces(at, end)
        if at == end or (at[0] != c',' and at[0] != c'}'):
            return fail(out, MALFORMED, at, end)
        append(out, at, 1)
        at += 1
        if (at - 1)[0] == c'}':
            return at


cdef Position rewrite_string(Rewriter *out, Position at, Position end) except? NULL:
    """Append the string whose opening quotation mark is at `at`."""
    cdef Position stop = skip_string(at + 1, end)
    cdef bytes text
    if stop != NULL:
        append(out, at, stop - at)
        return stop
    stop = string_end(at + 1, end)
    if stop == NULL:
        return fail(out, MALFORMED, at, end)
    try:
        text = dumps(loads(PyBytes_FromStringAndSize(<const char *>at, stop - at)))
    except JSONDecodeError:
        return fail(out, MALFORMED, at, stop)
    append(out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    return stop


cdef Position string_end(Position at, Position end) noexcept nogil:
    """The position behind a string of any form, whose opening quotation mark is before `at`."""
    while at < end:
        if at[0] == c'"':
            return at + 1
        at += 2 if at[0] == c'\\' else 1
    return NULL


cdef Position rewrite_number(Rewriter *out, Position at, Position end) except? NULL:
    cdef Position stop = skip_plain_number(at, end)
    cdef bytes number, text
    if stop == NULL:
        stop = at
        while stop < end and memchr(b"0123456789.-+eE", stop[0], 15) != NULL:
            stop += 1
        number = PyBytes_FromStringAndSize(<const char *>at, stop - at)
        try:
            text = dumps(loads(number))
        except JSONDecodeError:
            return fail(out, MALFORMED, at, stop)
        # An int beyond 64 bits became a float; a float beyond the largest one is infinite ("null").
        is_integer = b"." not in number and b"e" not in number and b"E" not in number
        if text == b"null" or (is_integer and text != number and number != b"-0"):
            return fail(out, MALFORMED, at, stop)
        append(out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        return stop
    append(out, at, stop - at)
    return stop
