# User operations to one write batch, for write, change, apply and clean. The twin of _core_py/batch.py.

cdef Py_ssize_t LARGEST_VALUE = MAX_VALUE_BYTES


cdef enum Form:
    OPERATION
    PAIR
    CHANGE
    RECORD


@cython.final
cdef class Encoder:
    # Readable from Python: the twin's methods are called with an Encoder of this class.
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
        return self.each(ops, OPERATION, "operation", _batch_py.Encoder._op)

    def pairs(self, pairs):
        return self.each(pairs, PAIR, "item", _batch_py.Encoder._pair)

    def changes(self, changes):
        return self.each(changes, CHANGE, "change", _batch_py.Encoder._change)

    def records(self, records):
        return self.each(records, RECORD, "change", _batch_py.Encoder._record)

    cdef list each(self, object items, Form form, str what, object judge):
        """Encode every item; those that are not taken here are left to the twin's method judge."""
        cdef list entries = []
        cdef tuple entry
        for item in _batch_py.iterate(items, what):
            entry = self.fast_entry(item, form)
            if entry is None:
                try:
                    entry = judge(self, item)
                except (TypeError, ValueError) as error:
                    raise _batch_py.numbered(error, what, len(entries)) from error
            entries.append(entry)
        return entries

    # What follows answers None where the twin must judge.

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
        return None if encoded_value is None else (encoded_key, encoded_value)

    cdef tuple fast_delete(self, object key):
        cdef bytes encoded = self.fast_key(key)
        return None if encoded is None else (encoded, None)

    cdef tuple fast_record(self, bytes record):
        cdef tuple parts
        cdef bytes value
        if self._space is None or self._raw_keys or self._raw_values or PyBytes_GET_SIZE(self._prefix):
            return None
        parts = split(record)
        if parts is None or not self._space.allows(<bytes>parts[0]):
            return None
        value = <bytes>parts[1]
        if value is not None and (PyBytes_GET_SIZE(value) > LARGEST_VALUE or not is_canonical(value)):
            return None
        return parts

    cdef bytes fast_key(self, object key):
        cdef bytes encoded
        if self._raw_keys:
            return self._prefix + <bytes>key if isinstance(key, bytes) else None
        encoded = utf8(key)
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
        if encoded is not None and self._space is not None and PyBytes_GET_SIZE(encoded) > LARGEST_VALUE:
            return None
        return encoded


cdef bint regular(object entry):
    """Whether an entry is what an Encoder makes: a tuple of bytes and bytes or None."""
    cdef object value
    if type(entry) is not tuple or PyTuple_GET_SIZE(entry) != 2 or type((<tuple>entry)[0]) is not bytes:
        return False
    value = (<tuple>entry)[1]
    return value is None or isinstance(value, bytes)


cdef list listed(object entries):
    """Entries as a list, or None if the twin must judge them."""
    if type(entries) is list:
        return <list>entries
    return list(entries) if type(entries) is tuple else None


cdef void put_at(list batch, Py_ssize_t index, tuple entry):
    """Fill a slot of a list that PyList_New made."""
    Py_INCREF(entry)
    PyList_SET_ITEM(batch, index, entry)


def server_batch(space, cid, entries):
    cdef list rows = listed(entries), batch = None
    cdef int64_t before = 0
    if rows is not None and type(space) is KeySpace and read_cid(cid, 0, &before):
        batch = fast_server_batch(space, before, rows)
    return _batch_py.server_batch(space, cid, entries) if batch is None else batch


cdef list fast_server_batch(KeySpace space, int64_t cid, list entries):
    cdef Py_ssize_t index, count = len(entries)
    cdef list batch
    cdef object entry
    cdef bytes record
    if count == 0:
        return []
    if count > HIGHEST_CID - cid:
        return None
    batch = PyList_New(2 * count + 1)
    for index in range(count):
        entry = entries[index]
        if not regular(entry):
            return None
        record = joined(<bytes>(<tuple>entry)[0], <bytes>(<tuple>entry)[1])
        if record is None:
            return None
        cid += 1
        put_at(batch, 2 * index, <tuple>entry)
        put_at(batch, 2 * index + 1, (prefixed_cid_key(space.prefix, cid), record))
    put_at(batch, 2 * count, (space.prefix, digits(cid)))
    return batch


def client_batch(space, entries):
    cdef list rows = listed(entries), batch = None
    if rows is not None and type(space) is KeySpace:
        batch = fast_client_batch(space, rows)
    return _batch_py.client_batch(space, entries) if batch is None else batch


cdef list fast_client_batch(KeySpace space, list entries):
    cdef Py_ssize_t index, count = len(entries)
    cdef list batch = PyList_New(2 * count)
    cdef object entry
    cdef bytes record
    for index in range(count):
        entry = entries[index]
        if not regular(entry):
            return None
        record = joined(<bytes>(<tuple>entry)[0], <bytes>(<tuple>entry)[1])
        if record is None:
            return None
        put_at(batch, 2 * index, <tuple>entry)
        put_at(batch, 2 * index + 1, (space.prefix + <bytes>(<tuple>entry)[0], record))
    return batch


def apply_batch(space, cid, entries):
    cdef list rows = listed(entries), batch = None
    cdef int64_t after = 0
    if rows is not None and type(space) is KeySpace and read_cid(cid, 0, &after):
        batch = fast_apply_batch(space, after, rows)
    return _batch_py.apply_batch(space, cid, entries) if batch is None else batch


cdef list fast_apply_batch(KeySpace space, int64_t cid, list entries):
    cdef Py_ssize_t index, count = len(entries)
    cdef list batch = PyList_New(2 * count + 1)
    cdef object entry
    for index in range(count):
        entry = entries[index]
        if not regular(entry):
            return None
        put_at(batch, 2 * index, <tuple>entry)
        put_at(batch, 2 * index + 1, (space.prefix + <bytes>(<tuple>entry)[0], None))
    put_at(batch, 2 * count, (space.prefix, digits(cid)))
    return batch
