# What both of Cython's ways into the engine need: its table of functions, and an array's address,
# shape and strides, read from NumPy's own struct: no buffer request.

cimport cython
from cpython.object cimport PyObject, Py_TYPE
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int64_t

from rnncore.cyapi cimport (
    RNNCORE_PACKED_CAPSULE,
    import_rnncore,
    rnncore_c_api,
    rnncore_sizes,
)

import numpy as np

from rnncore.threads import get_num_threads  # brings the engine in, which holds the capsule

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


cdef const rnncore_c_api* table = import_rnncore()
cdef object ndarray = np.ndarray
cdef object empty = np.empty
# Bytes of weights times steps and rows, some 10 us: from here on others may run meanwhile.
cdef int64_t WORTH_RELEASING = 1 << 20
