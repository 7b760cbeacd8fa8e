# An array's address, shape and strides, read from NumPy's own struct: no buffer request.

from cpython.object cimport PyObject

cdef extern from *:
    """
    /* The head of NumPy's PyArrayObject, which its ABI fixes. */
    typedef struct {
        PyObject_HEAD
        char* data;
        int nd;
        Py_ssize_t* dimensions;
        Py_ssize_t* strides;
        PyObject* base;
        PyObject* descr;
        int flags;
    } rnncore_array;
    enum {
      RNNCORE_CONTIGUOUS = 0x0001,
      RNNCORE_ALIGNED = 0x0100,
      RNNCORE_WRITEABLE = 0x0400
    };
    """
    ctypedef struct rnncore_array:
        char* data
        int nd
        Py_ssize_t* dimensions
        Py_ssize_t* strides
        PyObject* descr
        int flags
    int RNNCORE_CONTIGUOUS
    int RNNCORE_ALIGNED
    int RNNCORE_WRITEABLE
