// The control: an extension with two bugs, built like the package. Each must end the process.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static PyObject *read_behind_the_end(PyObject *self, PyObject *number) {
    Py_ssize_t size = PyLong_AsSsize_t(number);
    char *bytes = PyMem_RawMalloc(size);
    memset(bytes, 1, size);
    long found = bytes[size];
    PyMem_RawFree(bytes);
    return PyLong_FromLong(found);
}

static PyObject *overflow(PyObject *self, PyObject *number) {
    int value = (int)PyLong_AsLong(number);
    return PyLong_FromLong(value + 2147483647);
}

static PyMethodDef methods[] = {
    {"read_behind_the_end", read_behind_the_end, METH_O, NULL},
    {"overflow", overflow, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "bugs", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_bugs(void) {
    return PyModule_Create(&module);
}
