# Encoding of user operations, and the write batches of each mode. The counterpart of
# _core_py/batch.py.

cdef Py_ssize_t VALUE_BYTES_LIMIT = MAX_VALUE_BYTES


cdef enum Form:
    OPERATION
    PAIR
    CHANGE
    RECORD


def _encode_record(encoder, record):
    """`Encoder._record` of the counterpart, with `json_value` of this core.

    That of the counterpart parses the value, which may take 40 times the memory of its text.
    """
    key, value = split_record(record)
    key = decode_key(key)
    return encoder.delete(key) if value is None else encoder.put(key, json_value(value))


cdef tuple entry_of(bytes key, object value):
    """The entry of an operation. Only a subclass of bytes may refer to other objects."""
    if type(key) is bytes and (value is None or type(value) is bytes):
        return untracked_pair(key, value)
    return key, value


@cython.final
cdef class Encoder:
    # Readable from Python: methods of the counterpart are called with an Encoder of this class.
    cdef readonly KeySpace _space
    cdef readonly object _limit
    cdef readonly bytes _prefix
    cdef readonly bint _raw_keys, _raw_values

    def __cinit__(self, KeySpace space=None, *, key_prefix="", bint raw_keys=False, bint raw_values=False):
        self._space = space
        self._limit = None if space is None else MAX_VALUE_BYTES
        self._prefix = key_prefix if isinstance(key_prefix, bytes) else encode_key(key_prefix)
        self._raw_keys = raw_keys
        self._raw_values = raw_values

    def key(self, key):
        cdef bytes encoded = self.fast_key(key)
        return _batch_py.Encoder.key(self, key) if encoded is None else encoded

    def value(self, value):
        cdef object encoded = self.fast_value(value)
        return _batch_py.Encoder.value(self, value) if encoded is None else encoded

    def put(self, key, value):
        cdef tuple entry = self.fast_put(key, value)
        return _batch_py.Encoder.put(self, key, value) if entry is None else entry

    def delete(self, key):
        return self.key(key), None

    def ops(self, ops):
        return self.encode_each(ops, OPERATION, "operation", _batch_py.Encoder._op)

    def pairs(self, pairs):
        return self.encode_each(pairs, PAIR, "item", _batch_py.Encoder._pair)

    def changes(self, changes):
        return self.encode_each(changes, CHANGE, "change", _batch_py.Encoder._change)

    def records(self, records):
        return self.encode_each(records, RECORD, "change", _encode_record)

    cdef list encode_each(self, object items, Form form, str noun, object fallback):
        """Encode every item; the counterpart's method `fallback` encodes the rare forms."""
        cdef list entries = []
        cdef tuple entry
        for item in _batch_py.check_iterable(items, noun):
            entry = self.fast_entry(item, form)
            if entry is None:
                try:
                    entry = fallback(self, item)
                except (TypeError, ValueError) as error:
                    raise _batch_py.item_error(error, noun, len(entries)) from error
            entries.append(entry)
        return entries

    # The methods below return None where the counterpart must decide.

    cdef tuple fast_entry(self, object item, Form form):
        cdef object kind = type(item)
        if form == RECORD:
            return self.fast_record(<bytes>item) if kind is bytes else None
        if form == OPERATION:
            if kind is Put:
                return self.fast_put((<tuple>item)[0], (<tuple>item)[1])
            if kind is Delete:
                return self.fast_delete((<tuple>item)[0])
            return self.fast_op(<dict>item) if kind is dict else None
        if kind is list:
            if len(<list>item) == 2:
                return self.fast_put((<list>item)[0], (<list>item)[1])
            return self.fast_delete((<list>item)[0]) if form == CHANGE and len(<list>item) == 1 else None
        if isinstance(item, tuple):
            if PyTuple_GET_SIZE(item) == 2:
                return self.fast_put((<tuple>item)[0], (<tuple>item)[1])
            return self.fast_delete((<tuple>item)[0]) if form == CHANGE and PyTuple_GET_SIZE(item) == 1 else None
        return None

    cdef tuple fast_op(self, dict op):
        cdef object kind = op.get("type")
        if type(kind) is not str or "key" not in op:
            return None
        if <str>kind == "put" and "value" in op:
            return self.fast_put(op["key"], op["value"])
        return self.fast_delete(op["key"]) if <str>kind == "del" else None

    cdef tuple fast_put(self, object key, object value):
        cdef bytes encoded_key = self.fast_key(key)
        cdef object encoded_value
        if encoded_key is None:
            return None
        encoded_value = self.fast_value(value)
        return None if encoded_value is None else entry_of(encoded_key, encoded_value)

    cdef tuple fast_delete(self, object key):
        cdef bytes encoded = self.fast_key(key)
        return None if encoded is None else entry_of(encoded, None)

    cdef tuple fast_record(self, bytes record):
        cdef tuple parts
        cdef bytes value
        if self._space is None or self._raw_keys or self._raw_values or PyBytes_GET_SIZE(self._prefix):
            return None
        parts = split_plain_record(record)
        if parts is None or not self._space.allows(<bytes>parts[0]):
            return None
        value = <bytes>parts[1]
        if value is not None and (PyBytes_GET_SIZE(value) > VALUE_BYTES_LIMIT or not is_canonical(value)):
            return None
        return parts

    cdef bytes fast_key(self, object key):
        cdef bytes encoded
        if self._raw_keys:
            return self._prefix + <bytes>key if isinstance(key, bytes) else None
        encoded = encode_utf8(key)
        if encoded is None:
            return None
        if PyBytes_GET_SIZE(self._prefix):
            encoded = self._prefix + encoded
        return encoded if self._space is None or self._space.allows(encoded) else None

    cdef object fast_value(self, object value):
        cdef object encoded
        if self._raw_values:
            return value if isinstance(value, bytes) else None
        encoded = json_of(value)
        if encoded is not None and self._space is not None and PyBytes_GET_SIZE(encoded) > VALUE_BYTES_LIMIT:
            return None
        return encoded


cdef list unpacked(bytes rows):
    """Packed rows as entries."""
    cdef const char *at = PyBytes_AS_STRING(rows)
    cdef const char *end = at + PyBytes_GET_SIZE(rows)
    cdef PackedRow row
    cdef list entries = []
    while next_row(&at, end, &row):
        entries.append((
            PyBytes_FromStringAndSize(row.key, row.key_size),
            None if row.value == NULL else PyBytes_FromStringAndSize(row.value, row.value_size),
        ))
    return entries


@cython.final
cdef class _PackedBatch:
    """A batch of packed rows, which the native engine writes as they are.

    Other backends read it as a sequence of entries.
    """

    cdef readonly bytes rows
    cdef readonly list more  # entries appended after the rows were packed

    def append(self, entry):
        self.more.append(entry)

    cdef list entries(self):
        return unpacked(self.rows) + self.more

    def __len__(self):
        return len(self.entries())

    def __bool__(self):
        return bool(self.rows or self.more)

    def __iter__(self):
        return iter(self.entries())

    def __getitem__(self, index):
        return self.entries()[index]

    def __eq__(self, other):
        return self.entries() == [*other] if isinstance(other, (list, _PackedBatch)) else NotImplemented

    def __repr__(self):
        return repr(self.entries())


cdef enum Kind:
    SERVER_BATCH
    CLIENT_BATCH
    APPLY_BATCH


cdef bint is_plain_key(bytes key):
    """True if a key is UTF-8 and JSON escapes none of its characters."""
    cdef bint ascii = False, escaped = False
    classify_key(<const unsigned char *>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), &ascii, &escaped)
    return not escaped and (ascii or decode_utf8(key, 0) is not None)


cdef Py_ssize_t record_size(bytes key, object value) noexcept:
    """The number of bytes that put_record writes."""
    return PyBytes_GET_SIZE(key) + 4 + (0 if value is None else PyBytes_GET_SIZE(value) + 1)


cdef Py_ssize_t packed_size(Kind kind, KeySpace space, int64_t cid, object entries) except -2:
    """The size of a packed batch, in bytes. -1: the counterpart must make the batch.

    That is so where an entry is not a tuple of bytes and of bytes or None, as an Encoder makes
    them, or where JSON escapes a character of a key.
    """
    cdef Py_ssize_t head = ROW_HEAD + PyBytes_GET_SIZE(space.prefix), size = 0
    cdef bytes key
    cdef object value
    for entry in entries:
        if type(entry) is not tuple or PyTuple_GET_SIZE(entry) != 2 or type((<tuple>entry)[0]) is not bytes:
            return -1
        key, value = <bytes>(<tuple>entry)[0], (<tuple>entry)[1]
        if not (value is None or isinstance(value, bytes)) or not (kind == APPLY_BATCH or is_plain_key(key)):
            return -1
        size += ROW_HEAD + PyBytes_GET_SIZE(key) + (0 if value is None else PyBytes_GET_SIZE(value)) + head
        if kind == SERVER_BATCH:
            cid += 1
            size += cid_key_size(cid)
        else:
            size += PyBytes_GET_SIZE(key)
        if kind != APPLY_BATCH:
            size += record_size(key, value)
    return size if kind == CLIENT_BATCH else size + head + PyBytes_GET_SIZE(digits(cid))


cdef char *put_entry(char *out, bytes key, object value) noexcept:
    out = put_row_head(out, PyBytes_GET_SIZE(key), NO_VALUE if value is None else <size_t>PyBytes_GET_SIZE(value))
    out = put_bytes(out, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
    return out if value is None else put_bytes(out, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))


cdef char *put_record(char *out, bytes key, object value) noexcept:
    """Write the change record of an entry whose key JSON does not escape."""
    out = put_bytes(put_bytes(put_bytes(out, b'["', 2), PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)), b'"', 1)
    if value is not None:
        out = put_bytes(put_bytes(out, b",", 1), PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    return put_bytes(out, b"]", 1)


cdef char *put_companion_row(
    char *out, Kind kind, bytes prefix, const char *name, Py_ssize_t name_size, bytes key, object value
) noexcept:
    """Write the row that accompanies an entry, under the prefix and a name.

    The row is the entry's change record; in an APPLY_BATCH it deletes the dirty change of the key.
    """
    cdef size_t size = NO_VALUE if kind == APPLY_BATCH else <size_t>record_size(key, value)
    out = put_row_head(out, PyBytes_GET_SIZE(prefix) + name_size, size)
    out = put_bytes(put_bytes(out, PyBytes_AS_STRING(prefix), PyBytes_GET_SIZE(prefix)), name, name_size)
    return out if kind == APPLY_BATCH else put_record(out, key, value)


cdef _PackedBatch packed_batch(Kind kind, KeySpace space, int64_t cid, object entries):
    """Make the batch of a public function; None if the counterpart must make it."""
    cdef Py_ssize_t size = packed_size(kind, space, cid, entries)
    cdef char number[MAX_DIGITS + 1]
    cdef char *out
    cdef bytes key
    cdef object value
    cdef _PackedBatch batch
    if size < 0:
        return None
    batch = _PackedBatch.__new__(_PackedBatch)
    batch.more = []
    batch.rows = PyBytes_FromStringAndSize(NULL, size)
    out = PyBytes_AS_STRING(batch.rows)
    for entry in entries:
        key, value = <bytes>(<tuple>entry)[0], (<tuple>entry)[1]
        out = put_entry(out, key, value)
        if kind == SERVER_BATCH:
            cid += 1
            out = put_companion_row(out, kind, space.prefix, number, write_cid_key(number, cid), key, value)
        else:
            out = put_companion_row(out, kind, space.prefix, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), key, value)
    if kind != CLIENT_BATCH:
        put_entry(out, space.prefix, digits(cid))
    return batch


cdef bint is_sequence(object entries):
    """True if entries are a list or a tuple, which can be iterated twice."""
    return type(entries) is list or type(entries) is tuple


def server_batch(space, cid, entries):
    cdef object batch = None
    cdef int64_t before = 0
    if is_sequence(entries) and entries and type(space) is KeySpace and read_cid(cid, 0, &before):
        if <int64_t>len(entries) <= CID_LIMIT - before:
            batch = packed_batch(SERVER_BATCH, space, before, entries)
    return _batch_py.server_batch(space, cid, entries) if batch is None else batch


def client_batch(space, entries):
    cdef object batch = None
    if is_sequence(entries) and type(space) is KeySpace:
        batch = packed_batch(CLIENT_BATCH, space, 0, entries)
    return _batch_py.client_batch(space, entries) if batch is None else batch


def apply_batch(space, cid, entries):
    cdef object batch = None
    cdef int64_t after = 0
    if is_sequence(entries) and type(space) is KeySpace and read_cid(cid, 0, &after):
        batch = packed_batch(APPLY_BATCH, space, after, entries)
    return _batch_py.apply_batch(space, cid, entries) if batch is None else batch
