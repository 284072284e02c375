# Range scans, decoded in bulk. The counterpart of _core_py/scan.py.

cdef object text_at(list items, Py_ssize_t index, bint rows):
    """The JSON text of an item: its value where items are rows. None if it is not bytes."""
    cdef object item = items[index]
    if rows:
        if type(item) is not tuple or PyTuple_GET_SIZE(item) != 2:
            return None
        item = (<tuple>item)[1]
    return item if isinstance(item, bytes) else None


cdef list loads_all(list items, bint rows):
    """Parse many JSON texts as one array; None if one of them is invalid."""
    cdef Py_ssize_t index, count = len(items), size = 1
    cdef object text, parsed
    cdef bytes array
    cdef char *out
    if count == 0:
        return []
    for index in range(count):
        text = text_at(items, index, rows)
        if text is None:
            return None
        size += PyBytes_GET_SIZE(text) + 1
    array = PyBytes_FromStringAndSize(NULL, size)
    out = PyBytes_AS_STRING(array)
    for index in range(count):
        out[0] = c',' if index else c'['
        text = text_at(items, index, rows)
        memcpy(out + 1, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        out += 1 + PyBytes_GET_SIZE(text)
    out[0] = c']'
    try:
        parsed = loads(array)
    except JSONDecodeError:
        return None
    return <list>parsed if len(<list>parsed) == count else None


cdef Py_ssize_t measure(const char *at, const char *end, size_t *size) noexcept nogil:
    """Count packed rows, and set the size of their values as one JSON array.

    -1: a row is incomplete, or a deletion.
    """
    cdef PackedRow row
    cdef Py_ssize_t count = 0
    size[0] = 1
    while next_row(&at, end, &row):
        if row.value == NULL:
            return -1
        count += 1
        size[0] += row.value_size + 1
    return count if at == end else -1


cdef list loads_packed(bytes rows):
    """Parse the values of packed rows as one array; None if one of them is invalid."""
    cdef const char *at = PyBytes_AS_STRING(rows)
    cdef const char *end = at + PyBytes_GET_SIZE(rows)
    cdef PackedRow row
    cdef size_t size = 0
    cdef Py_ssize_t count = measure(at, end, &size)
    cdef object parsed
    cdef bytes array
    cdef char *out
    if count <= 0:
        return [] if count == 0 else None
    array = PyBytes_FromStringAndSize(NULL, size)
    out = PyBytes_AS_STRING(array)
    while next_row(&at, end, &row):
        out[0] = c','
        out = put_bytes(out + 1, row.value, row.value_size)
    out[0] = c']'
    PyBytes_AS_STRING(array)[0] = c'['
    try:
        parsed = loads(array)
    except JSONDecodeError:
        return None
    return <list>parsed if len(<list>parsed) == count else None


@cython.final
cdef class Decoder:
    # Readable from Python: methods of the counterpart are called with a Decoder of this class.
    cdef readonly Py_ssize_t _strip
    cdef readonly bint _raw_keys, _raw_values

    def __cinit__(self, *, Py_ssize_t strip=0, bint raw_keys=False, bint raw_values=False):
        if strip < 0:
            raise ValueError(f"strip must be 0 or more bytes, not {strip}")
        self._strip = strip
        self._raw_keys = raw_keys
        self._raw_values = raw_values

    def key(self, key):
        cdef object decoded = self.fast_key(key)
        return _scan_py.Decoder.key(self, key) if decoded is None else decoded

    def value(self, key, value):
        if not self._raw_values and type(value) is bytes:
            try:
                return loads(value)
            except JSONDecodeError:
                pass
        return _scan_py.Decoder.value(self, key, value)

    def items(self, rows):
        cdef list results = None
        if type(rows) is bytes:
            results = self.packed_items(<bytes>rows)
        elif type(rows) is list:
            results = self.fast_items(rows)
        return _scan_py.Decoder.items(self, rows) if results is None else results

    def keys(self, keys):
        return [self.key(key) for key in keys]

    def values(self, rows):
        cdef list results = None
        if not self._raw_values:
            if type(rows) is bytes:
                results = loads_packed(<bytes>rows)
            elif type(rows) is list:
                results = loads_all(rows, True)
        return _scan_py.Decoder.values(self, rows) if results is None else results

    # The methods below return None where the counterpart must decide.

    cdef list fast_items(self, list rows):
        cdef list results = None if self._raw_values else loads_all(rows, True)
        cdef Py_ssize_t index
        cdef object key
        if results is None:
            return None
        for index in range(len(results)):
            key = self.fast_key((<tuple>rows[index])[0])
            if key is None:
                return None
            results[index] = (key, results[index])
        return results

    cdef list packed_items(self, bytes rows):
        cdef list results = None if self._raw_values or self._raw_keys else loads_packed(rows)
        cdef const char *at = PyBytes_AS_STRING(rows)
        cdef const char *end = at + PyBytes_GET_SIZE(rows)
        cdef PackedRow row
        cdef Py_ssize_t index = 0, strip
        if results is None:
            return None
        while next_row(&at, end, &row):
            strip = min(self._strip, <Py_ssize_t>row.key_size)
            try:
                key = PyUnicode_DecodeUTF8(row.key + strip, row.key_size - strip, NULL)
            except UnicodeDecodeError:
                return None
            results[index] = (key, results[index])
            index += 1
        return results

    cdef object fast_key(self, object key):
        if self._raw_keys or type(key) is not bytes:
            return None
        return decode_utf8(<bytes>key, self._strip)


def collect(fetch, decode, keep, limit, chunk):
    cdef list results = []
    cdef bint paused
    if keep is None:
        paused = PyGC_Disable()
        try:
            return collect_all(fetch, decode, limit, chunk)
        finally:
            if paused:
                PyGC_Enable()
    while limit is None or len(results) < limit:
        rows = fetch(chunk)
        if not rows:
            break
        for result in without_gc(decode, rows):
            if keep(result):
                results.append(result)
                if limit is not None and len(results) == limit:
                    break
    return results


cdef list collect_all(object fetch, object decode, object limit, object chunk):
    cdef list results = []
    while limit is None or len(results) < limit:
        rows = fetch(chunk if limit is None else min(chunk, limit - len(results)))
        if not rows:
            break
        results += decode(rows)
    if len(results) >= _scan_py.PROMOTE_COUNT:
        _scan_py.promote()
    return results


def decode_changes(records):
    cdef list changes = loads_all(<list>records, False) if type(records) is list else None
    if changes is not None:
        for change in changes:
            if not is_change(change):
                changes = None
                break
    return _scan_py.decode_changes(records) if changes is None else changes


cdef bint is_change(object change):
    return type(change) is list and 1 <= len(<list>change) <= 2 and type((<list>change)[0]) is str


cdef object without_gc(object decode, object rows):
    if not PyGC_Disable():
        return decode(rows)
    try:
        return decode(rows)
    finally:
        PyGC_Enable()


def find_damaged(space, records):
    cdef Py_ssize_t index = 0
    cdef bint known = type(space) is KeySpace
    for record in records:
        if not (known and type(record) is bytes and is_plain_log_record(<KeySpace>space, <bytes>record)):
            if not _scan_py.is_log_record(space, record):
                return index
        index += 1
    return None


cdef bint is_plain_log_record(KeySpace space, bytes record) except -1:
    """True if a record is canonical JSON, and changes a key of users that JSON does not escape."""
    cdef Position start = <Position>PyBytes_AS_STRING(record)
    cdef Position end = start + PyBytes_GET_SIZE(record), at
    cdef Py_ssize_t size
    if end - start < 4 or start[0] != c'[' or start[1] != c'"':
        return False
    start += 2
    at = skip_string(start, end)
    if at == NULL or at == end:
        return False
    size = at - start - 1
    if memchr(start, c'\\', size) != NULL or not space.allows_text(<const char *>start, size):
        return False
    if at[0] == c',':
        at = skip_value(at + 1, end, DEPTH_LIMIT)
    return at != NULL and at + 1 == end and at[0] == c']'
