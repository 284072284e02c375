# cython: language_level=3, auto_pickle=False, autotestdict=False
"""The compiled core of treehub-level.

The stub ``treehub_level/_core_c.pyi`` documents every public name. Each function here does the
common case in C. It passes every other case (a wrong type, invalid input, a rare form) to its
counterpart in ``treehub_level/_core_py``, which decides and raises the error. So both cores raise
the same messages, and the loops here stay short.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next
from cpython.float cimport PyFloat_AS_DOUBLE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_TYPE
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8String, PyUnicode_DecodeUTF8
from libc.math cimport isfinite
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

import orjson

from treehub_level._core_py import batch as _batch_py
from treehub_level._core_py import json as _json_py
from treehub_level._core_py import json_structure as _structure_py
from treehub_level._core_py import keys as _keys_py
from treehub_level._core_py import records as _records_py
from treehub_level._core_py import scan as _scan_py
from treehub_level._core_py.json import JSONBytes
from treehub_level.types import Delete, Put

cdef extern from "Python.h":
    int PyGC_Disable()
    int PyGC_Enable()
    ctypedef struct PyThreadState:
        pass
    PyThreadState *PyEval_SaveThread()
    void PyEval_RestoreThread(PyThreadState *state)

cdef object dumps = orjson.dumps
cdef object loads = orjson.loads

include "packed.pyx"
include "keys.pyx"
include "records.pyx"
include "json.pyx"
include "json_rewriter.pyx"
include "json_structure.pyx"
include "batch.pyx"
include "scan.pyx"
