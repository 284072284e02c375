# Functions that recognise only strings and brackets, so that the size of a document is known before
# it is parsed. The counterpart of _core_py/json_structure.py.


def count_nodes(text):
    cdef Position start, end
    cdef Py_ssize_t nodes
    if type(text) is not bytes:
        return _structure_py.count_nodes(text)
    start = <Position>PyBytes_AS_STRING(text)
    end = start + PyBytes_GET_SIZE(text)
    with nogil:
        nodes = nodes_between(start, end)
    return nodes


cdef Py_ssize_t nodes_between(Position at, Position end) noexcept nogil:
    cdef Py_ssize_t nodes = 1
    cdef bint quoted = False
    while at < end:
        if at[0] == c'"':
            quoted = not quoted
        elif at[0] == c'\\':
            if at + 1 < end and (at[1] == c'"' or at[1] == c'\\'):
                at += 1
        elif not quoted and (at[0] == c',' or at[0] == c':' or at[0] == c'[' or at[0] == c'{'):
            nodes += 1
        at += 1
    return nodes


def split_items(text, brackets, limit):
    cdef Position start, end
    cdef Py_ssize_t count, capacity, index
    cdef Position *cuts
    cdef list items
    cdef unsigned char opening, closing
    if type(text) is not bytes or type(limit) is not int or type(brackets) is not bytes or (
        brackets != b"[]" and brackets != b"{}"
    ) or limit < 0:
        return _structure_py.split_items(text, brackets, limit)
    opening, closing = (<bytes>brackets)[0], (<bytes>brackets)[1]
    start = skip_spaces(<Position>PyBytes_AS_STRING(text), <Position>PyBytes_AS_STRING(text) + PyBytes_GET_SIZE(text))
    end = space_start(start, <Position>PyBytes_AS_STRING(text) + PyBytes_GET_SIZE(text))
    if end - start < 2 or start[0] != opening or (end - 1)[0] != closing:
        return None
    start += 1
    end -= 1
    if skip_spaces(start, end) == end:
        return []
    capacity = min(limit, <object>(end - start))
    cuts = <Position *>PyMem_RawMalloc((capacity + 1) * sizeof(Position))
    if cuts == NULL:
        raise MemoryError
    try:
        with nogil:
            count = find_cuts(start, end, cuts, capacity)
        if count < 0:
            return None
        items = []
        for index in range(count):
            end = space_start(start, cuts[index])
            start = skip_spaces(start, end)
            if start == end:
                return None
            items.append(PyBytes_FromStringAndSize(<const char *>start, end - start))
            start = cuts[index] + 1
        return items
    finally:
        PyMem_RawFree(cuts)


cdef Position space_start(Position start, Position end) noexcept nogil:
    """The start of the white space that ends at `end`."""
    while end > start and is_space((end - 1)[0]):
        end -= 1
    return end


cdef Py_ssize_t find_cuts(Position at, Position end, Position *cuts, Py_ssize_t limit) noexcept nogil:
    """Store the end of each item; -1 if there are more than `limit`, or the brackets do not match."""
    cdef Py_ssize_t count = 0, depth = 0
    while at < end:
        if at[0] == c'"':
            at = string_end(at + 1, end)
            if at == NULL:
                return -1
            continue
        if at[0] == c'[' or at[0] == c'{':
            depth += 1
        elif at[0] == c']' or at[0] == c'}':
            depth -= 1
            if depth < 0:
                return -1
        elif at[0] == c',' and depth == 0:
            if count == limit:
                return -1
            cuts[count] = at
            count += 1
        at += 1
    if depth != 0 or count == limit:
        return -1
    cuts[count] = end
    return count + 1
