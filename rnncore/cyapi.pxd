# The engine's table of C functions, for `from rnncore.cyapi cimport rnncore_c_api, import_rnncore`.
# Headers: rnncore.get_include().

from libc.stdint cimport int64_t
from cpython.pycapsule cimport PyCapsule_Import


cdef extern from "rnncore/c_api.h" nogil:
    int RNNCORE_C_API_VERSION
    const char* RNNCORE_C_API_CAPSULE
    const char* RNNCORE_PACKED_CAPSULE

    ctypedef struct rnncore_stream:
        pass

    ctypedef struct rnncore_sizes:
        int64_t input_size, hidden_size, num_layers, num_directions, output_size
        int64_t item_size, carries_c, nbytes

    ctypedef struct rnncore_sequences:
        int64_t steps, batch
        const int64_t* lengths
        const void* x
        int64_t x_time_stride, x_row_stride
        const void* h0
        const void* c0
        void* y
        int64_t y_time_stride, y_row_stride
        void* hn
        void* cn
        int num_threads

    ctypedef struct rnncore_c_api:
        int version
        const char* (*isa)() noexcept nogil
        int (*get_num_threads)() noexcept nogil
        void (*set_num_threads)(int n) noexcept nogil
        void (*packed_sizes)(const void* packed, rnncore_sizes* sizes) noexcept nogil
        rnncore_stream* (*stream_create)(const void* packed, int64_t batch,
                                         int num_threads) noexcept nogil
        void (*stream_destroy)(rnncore_stream* stream) noexcept nogil
        int (*stream_step)(rnncore_stream* stream, const void* x, int64_t x_row_stride, void* y,
                           int64_t y_row_stride) noexcept nogil
        void (*stream_reset)(rnncore_stream* stream, const unsigned char* rows) noexcept nogil
        void (*stream_get_state)(const rnncore_stream* stream, void* h, void* c) noexcept nogil
        void (*stream_set_state)(rnncore_stream* stream, const void* h,
                                 const void* c) noexcept nogil
        int (*forward)(const void* packed, const rnncore_sequences* call) noexcept nogil


cdef inline const rnncore_c_api* import_rnncore() except NULL:
    """Return the table of the installed engine; ImportError where it is older than this header."""
    cdef const rnncore_c_api* table = <const rnncore_c_api*>PyCapsule_Import(
        RNNCORE_C_API_CAPSULE, 0)
    if table.version < RNNCORE_C_API_VERSION:
        raise ImportError("rnncore: the installed engine is older than these headers")
    return table
